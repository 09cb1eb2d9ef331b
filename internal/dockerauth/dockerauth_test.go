package dockerauth

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func options() Options {
	return Options{
		Services: []string{"registry.local", "other.local"}, PublicURL: "https://auth.example.com",
		Exists: func(string) bool { return true },
		Check: func(policy []byte) error {
			_, err := acl.Parse("policy.yaml", policy)
			return err
		},
	}
}

// imported is a configuration of docker_auth, read and translated.
type imported struct {
	theirs *configuration
	result *Result
	policy *acl.Policy
}

func importText(t testing.TB, text string, o Options) imported {
	t.Helper()
	theirs, err := read("config.yml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r, err := Convert("config.yml", []byte(text), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	p, err := acl.Parse("policy.yaml", r.Policy)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Policy)
	}
	return imported{theirs, r, p}
}

func (i imported) lost() bool {
	return slices.ContainsFunc(i.result.Notes, func(n Note) bool { return n.Severity == Lost })
}

// ours decides as the server does.
func (i imported) ours(a ask) []string {
	who := users.Anonymous()
	if a.account != "" {
		who = users.Principal{Name: a.account, Kind: users.KindUser}
	}
	asked := scope.Canonical(scope.Access{Type: a.typ, Name: a.name, Actions: a.actions})
	granted, _ := i.policy.Decide(who, a.ip, a.service, time.Time{}, asked)
	return asked.Intersect(granted).Find(a.typ, a.name)
}

// theirUsers are the users of every random configuration, with their labels.
var theirUsers = map[string]map[string][]string{
	"":                nil,
	"alice":           {"group": {"dev", "VIP"}, "project": {"web"}},
	"bob":             {"group": {"trainee"}, "project": {"web", "api"}, "tier": {"prod", "test"}},
	"ci-1":            {"team": {"backend"}},
	"ci":              nil,
	"admin":           {"group": {"developers"}},
	"john.d@test.com": {"project": {"john"}},
	"joe@it.test.com": nil,
	"web":             nil,
	"registry.local":  nil,
	"we.b":            nil,
}

const hash = "$2y$05$WuwBasGDAgr.QCbGIjKJaep4dhxeai9gNZdmBnQXqpKly57oNutya"

// world makes random configurations and requests.
type world struct{ *rand.Rand }

func (w world) pick(from ...string) string { return from[w.IntN(len(from))] }

func (w world) configuration(anonymous bool) string {
	var out strings.Builder
	out.WriteString("server: {addr: \":5001\"}\ntoken: {issuer: Acme auth server, expiration: 900}\nusers:\n")
	for name, labels := range theirUsers {
		if name == "" {
			if anonymous {
				out.WriteString("  \"\": {}\n")
			}
			continue
		}
		fmt.Fprintf(&out, "  %q: {password: %q, labels: %s}\n", name, hash, labelText(labels))
	}
	out.WriteString("acl:\n")
	for range 1 + w.IntN(6) {
		var match []string
		add := func(key string, values ...string) {
			match = append(match, fmt.Sprintf("%s: %q", key, w.pick(values...)))
		}
		if w.IntN(3) > 0 {
			add("account", "", "alice", "bob", "admin", "nobody", "*", "?*", "ci*", "ci-*", "*i*", "[a-c]*", "[^a]*", "c?", "**", `ci\-1`, "[a", "a]", `a\`, "${account}", "${name}", "web",
				"/.+/", "/.*/", "/^$/", "/^.+$/", "/admin|ci/", "/^(admin|ci)$/", "/^ci/", "/ci$/", "/^(.+)@test.com$/", `/^(.+)@(.+?)\.test\.com$/`, `/^(.*)@test\.com$/`,
				"/^(?i)ALICE$/", "/^a.*e$/", "/[[:digit:]]$/", "/^${name}$/", "/${service}/", "*@test.com", "/@/", "/^[^/]+$/", "/^c(i(-1)?)?$/", "${labels:project}", "/^${labels:project}/")
		}
		if w.IntN(4) == 0 {
			add("type", "repository", "registry", "*", "re*", "/re/", "/^repo/", "plugin", "nothing", "[r]*", "/^(registry|plugin)$/")
		}
		if w.IntN(4) > 0 {
			add("name", "web/app", "web", "*", "**", "*/*", "web/*", "*/app", "w*", "w*/a*", "*b", "*eb*/*", "?eb/*", "[vw]eb/*", "web/[^b]*", `web\/app`, "web/a**p", "Web/*", "web app", "web-*", "*-*/*", "catalog", "cat*", "[",
				"${account}", "${account}/*", "${account}/*/*", "x-${account}/*", "${account}-*", "${service}", "${type}/*", "${account:1}/*", "${account:1}-${account:2}/*", "${account:3}/*", "${name}", "${foo}/*",
				"${labels:project}/*", "${labels:group}-shared/*", "${labels:project}-${labels:tier}/*", "${labels:project}/${labels:project}-*", "${labels:none}/*", "${labels:project}-?/*", "{labels:tier}/*", "${labels:tier}",
				"/web/", "/^web/", "/^web\\//", "/^web\\/.*$/", "/^web\\/.+/", "/web$/", "/.*/", "/.+/", "/^.*$/", "/^(web|api)\\/.*$/", "/^(web|api)(\\/.*)?$/", "/^[^/]+$/", "/^[^/]*\\/app$/", "/^.*\\/app$/", "/\\/app/", "/^w.b\\/a/",
				"/^web|api$/", "/(?i)WEB/", "/^${account}\\/.*$/", "/${account}/", "/${account}\\/.*/", "/^(test|demo)-${account}$/", "/^${account:1}\\/.*$/", "/^${labels:project}\\/.*$/", "/^${labels:project}-${labels:tier}\\//",
				"/${labels:project}/", "/^catalog|${labels:project}\\/app$/", "/^a?pi\\/(x|y)\\/[^/]*$/", "/^web\\/app$/", "/^(?:web\\/){1,2}app$/", "/^\\Qweb\\E/", "/^web\\/(app|.*)$/", "/\\bapp\\b/", "/^${name}$/")
		}
		if w.IntN(5) == 0 {
			add("ip", "10.0.0.0/8", "10.0.0.7", "192.0.2.0/24", "2001:db8::/32", "::1", "10.1.2.3/8")
		}
		if w.IntN(5) == 0 {
			add("service", "registry.local", "other.local", "*", "*.local", "/other/", "none.local", "/^registry/")
		}
		if w.IntN(4) == 0 {
			var labels []string
			for _, l := range []string{"group", "project", "team", "tier"} {
				if w.IntN(3) == 0 {
					labels = append(labels, fmt.Sprintf("%s: %q", l, w.pick("VIP", "dev", "web", "backend", "*", "d*", "*e*", "dev*", "?ev", "/trainee|dev/", "/^(trainee|dev)$/", "/^d/", "/.*/", "/.+/", "/^[a-z]+$/",
						"${account}", "*${account}*", "/${account}/", "/^${account:1}$/", "[", "", "/^(pro|te)/")))
				}
			}
			match = append(match, "labels: {"+strings.Join(labels, ", ")+"}")
		}
		actions := w.pick(`["*"]`, "[]", "[pull]", "[push]", "[pull, push]", "[pull, push, delete]", "[delete]")
		fmt.Fprintf(&out, "  - match: {%s}\n    actions: %s\n", strings.Join(match, ", "), actions)
	}
	return out.String()
}

func labelText(labels map[string][]string) string {
	var parts []string
	for k, v := range labels {
		parts = append(parts, fmt.Sprintf("%s: [%s]", k, strings.Join(v, ", ")))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (w world) ask(anonymous bool) ask {
	names := []string{}
	for name := range theirUsers {
		if name != "" || anonymous {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	a := ask{account: w.pick(names...), typ: "repository", service: w.pick("registry.local", "other.local")}
	if a.account == "" && !anonymous {
		a.account = "alice"
	}
	a.labels = theirUsers[a.account]
	if w.IntN(8) == 0 {
		a.typ, a.name, a.actions = "registry", "catalog", []string{"*"}
	} else {
		first := w.pick("web", "api", "alice", "bob", "ci", "ci-1", "john", "john.d", "joe", "joe-it", "admin", "x-alice", "web-prod", "web-test", "api-prod", "VIP-shared", "dev-shared", "test-alice", "demo-bob", "evil", "evilweb", "weby", "catalog", "we.b", "weab", "repository", "prod", "hello")
		a.name = strings.Join(append([]string{first}, []string{w.pick("app", "a", "b", "web", "web-1", "x", "y"), w.pick("x", "app", "web"), "z"}[:w.IntN(4)]...), "/")
		for _, action := range []string{"delete", "pull", "push"} {
			if w.IntN(3) > 0 {
				a.actions = append(a.actions, action)
			}
		}
		if len(a.actions) == 0 || w.IntN(20) == 0 {
			a.actions = []string{"*"}
		}
	}
	a.ip = netip.MustParseAddr(w.pick("10.0.0.7", "10.9.9.9", "192.0.2.7", "2001:db8::1", "::1", "203.0.113.1"))
	return a
}

// same compares what was granted. Who asks for "*" gets the actions that it stands for here, so only "*" itself is compared.
func same(a ask, theirs, ours []string) bool {
	if slices.Equal(a.actions, []string{"*"}) {
		return slices.Contains(theirs, "*") == slices.Contains(ours, "*")
	}
	return slices.Equal(theirs, ours)
}

// noMore tells whether ours is not more than theirs.
func noMore(ours, theirs []string, a ask) bool {
	if slices.Equal(a.actions, []string{"*"}) {
		return !slices.Contains(ours, "*") || slices.Contains(theirs, "*")
	}
	return !slices.ContainsFunc(ours, func(action string) bool { return !slices.Contains(theirs, action) })
}

// The import means the same: random configurations, random requests, both answers.
func TestTheImportDecidesAsDockerAuth(t *testing.T) {
	const configurations, requests = 2000, 60
	w := world{rand.New(rand.NewPCG(1, 2))}
	pairs, lost, granted, conditions := 0, 0, 0, 0
	for n := range configurations {
		anonymous := n%4 > 0
		text := w.configuration(anonymous)
		i := importText(t, text, options())
		if i.lost() { // what it took away is not granted instead
			lost++
			for range requests {
				if a := w.ask(anonymous); !noMore(i.ours(a), oracle(i.theirs.acl, a), a) {
					t.Fatalf("%s\ndocker_auth grants %v, ours %v, more\n%s\n%s", a, oracle(i.theirs.acl, a), i.ours(a), text, i.result.Policy)
				}
			}
			continue
		}
		conditions += strings.Count(string(i.result.Policy), "when:")
		for range requests {
			a := w.ask(anonymous)
			theirs, ours := oracle(i.theirs.acl, a), i.ours(a)
			pairs++
			if len(theirs) > 0 {
				granted++
			}
			if !same(a, theirs, ours) {
				t.Fatalf("%s\ndocker_auth grants %v, ours %v\n%s\n%s", a, theirs, ours, text, i.result.Policy)
			}
		}
	}
	t.Logf("%d pairs, of which docker_auth grants something to %d; %d rules with conditions; %d of %d configurations hold what is not carried over", pairs, granted, conditions, lost, configurations)
	if pairs < 100_000 || granted < pairs/10 || conditions < 1000 || lost > configurations/10 {
		t.Error("too little of it shows anything")
	}
}
