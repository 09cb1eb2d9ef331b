package acl

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"authserver/internal/users"
)

// FuzzCondition lets the fuzzer choose a condition and what it is asked about. What compiles costs what is allowed and no
// more, says the same twice, grants nothing when it fails, and depends on nothing that it is not known to name: the answer to
// one action is remembered for the others.
func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		"true", `user.name == "alice"`, `"dev" in user.groups && action == "pull"`, `user.groups.exists(g, resource.name.startsWith(g + "/"))`, `cidr("192.0.2.0/24").containsIP(request.ip)`,
		`resource.name.matches("^" + literal(user.name) + "/")`, `capture(resource.name, "^([a-z]+)/", 1) == claims.team`, `now.getHours("Europe/Berlin") < 6`, `claims.run.attempt == 2`, `has(claims.x) && claims.x == "y"`,
		`[1].exists(action, .action == "pull")`, `[action, resource.type].exists(x, x == "*")`, `user.groups.all(a, user.groups.all(b, a == b))`, `{"action": action}.action == "push"`, `resource.type + resource.name == "x"`,
		`request.ip == ip("192.0.2.1")`, `claims.list.map(x, x + 1).size() > 2`, `"a".matches("(a|b){1,10}")`, `string(now) == resource.name`, `user.name.split("/").size() > 1`, `duration("1h") > duration(claims.team)`,
		`1 / size(user.groups) > 0`, `type(action) == string`, `action.size() == 4 ? true : resource.name == "a"`, `dyn(resource).name == "a"`, `"%s".format([action]) == "pull"`, `claims["run"]["attempt"] == 2.0`, `claims == claims`,
		`resource.name.replace(user.name, "x").size() < 3`, `base64.encode(b"a") == "x"`, `user.kind == "robot" || user.groups[0] == "dev"`, "// nothing\ntrue", "\"\n", `timestamp(resource.name) < now`,
	} {
		f.Add(seed, "alice", "dev,ops", "team/app", "pull", "push", "192.0.2.1")
		f.Add(seed, ".*", "", "a", "*", "delete", "")
	}
	f.Fuzz(func(t *testing.T, text, user, groups, name, action, other, from string) {
		c, err := newCondition(text)
		if (c == nil) == (err == nil) {
			t.Fatalf("%q: %v and %v", text, c, err)
		}
		if err != nil {
			if len(err.Error()) > 64<<10 || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %d bytes of error: %.300s", text, len(err.Error()), err)
			}
			return
		}
		if len(user)+len(groups)+len(name)+len(action)+len(other) > 2048 {
			return
		}
		p := &Policy{byName: map[string]int{}}
		addr, _ := netip.ParseAddr(from)
		claims := map[string]any{"team": groups, "run": map[string]any{"attempt": 2}, "list": []any{1, user, nil}, "n": nil, "f": 1.5}
		ask := func() *question {
			return p.ask(users.Principal{Name: user, Kind: users.KindUser, Groups: strings.Split(groups, ","), Claims: claims}, addr, "registry.local", time.Date(2026, 7, 1, 3, 30, 0, 0, time.UTC))
		}
		start := time.Now()
		q := ask()
		first := c.evaluate(q, facts{q, "repository", name, action})
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("%q takes %s", text, took)
		}
		if q.cost > 2*maxConditionCost { // it stops at the step that goes past
			t.Fatalf("%q: cost %d", text, q.cost)
		}
		again := ask()
		if second := c.evaluate(again, facts{again, "repository", name, action}); second != first || first.holds && first.failed {
			t.Fatalf("%q: %+v, then %+v", text, first, second)
		}
		for what, f := range map[string]facts{"action": {typ: "repository", name: name, action: other}, "resource.name": {typ: "repository", name: other, action: action}, "resource.type": {typ: other, name: name, action: action}} {
			if named := map[string]bool{"action": c.action, "resource.name": c.name, "resource.type": c.typ}[what]; named {
				continue
			}
			f.q = ask()
			if o := c.evaluate(f.q, f); o != first {
				t.Fatalf("%q depends on %s, which it is not known to name: %+v, %+v with %q", text, what, first, o, other)
			}
		}
		allow, deny := &rule{name: "a", when: c}, &rule{name: "d", when: c, deny: true}
		for _, asked := range []string{action, "*"} {
			for _, on := range []string{name, name + "/*"} {
				applies, failed := allow.holds(ask(), "repository", on, asked)
				denies, deniesFailed := deny.holds(ask(), "repository", on, asked)
				open := asked == "*" && c.action || strings.HasSuffix(on, "/*") && c.name
				switch {
				case failed != deniesFailed, failed && (applies || !denies), open && (applies || !denies), !open && !failed && applies != denies:
					t.Fatalf("%q for %s of %s: allows %t, denies %t, failed %t", text, asked, on, applies, denies, failed)
				}
			}
		}
	})
}
