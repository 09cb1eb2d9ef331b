package dockerauth

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"authserver/internal/scope"
)

const head = "server: {addr: \":5001\"}\ntoken: {issuer: i, expiration: 900}\nusers:\n" +
	"  alice: {password: " + hash + ", labels: {team: [web]}}\n  bob: {password: " + hash + "}\n"

const anonymousToo = "  \"\": {}\n"

func from(account, scopeText string) ask {
	parts := strings.Split(scopeText, ":")
	return ask{account: account, typ: parts[0], name: parts[1], actions: strings.Split(parts[2], ","), service: "registry.local", ip: netip.MustParseAddr("192.0.2.1")}
}

// Where docker_auth's meaning is dangerous, it is kept and told; with --safe the safe form is written.
func TestDangersAreToldAndHaveASafeForm(t *testing.T) {
	for name, c := range map[string]struct {
		acl        string
		ask        ask
		kept, safe []string
		note       string // what both say
	}{
		"a regular expression that is not anchored": {
			`[{match: {name: "/team/"}, actions: [pull]}]`, from("bob", "repository:evilteam/x:pull"), []string{"pull"}, nil, `is not anchored`},
		"an alternative that is not anchored": {
			`[{match: {account: "/admin|bob/"}, actions: [pull]}]`, from("notadmin2", "repository:x:pull"), []string{"pull"}, nil, `is not anchored`},
		"a name of one user in that of another": {
			`[{match: {name: "/${account}/.*/"}, actions: [push]}]`, from("bob", "repository:evilbob/x:push"), []string{"push"}, nil, `is not anchored`},
		"a star that is also nobody": {
			`[{match: {account: "*"}, actions: [push]}]`, from("", "repository:x:push"), []string{"push"}, nil, `matches the anonymous user too`},
		"everything that is also nobody": {
			`[{match: {account: "/.*/"}, actions: [push]}]`, from("", "repository:x:push"), []string{"push"}, nil, `matches the anonymous user too`},
		"no type": {
			`[{match: {account: bob}, actions: ["*"]}]`, from("bob", "registry:catalog:*"), []string{"*"}, nil, `without a type it covers the catalog`},
		"a mistyped key": {
			`[{match: {team: infrastructure}, actions: [pull, push]}]`, from("", "repository:prod/secret:pull,push"), []string{"pull", "push"}, nil, `docker_auth does not know this key`},
	} {
		t.Run(name, func(t *testing.T) {
			text := head + anonymousToo + "acl: " + c.acl + "\n"
			kept := importText(t, text, options())
			if theirs, ours := oracle(kept.theirs.acl, c.ask), kept.ours(c.ask); !slices.Equal(theirs, c.kept) || !slices.Equal(ours, c.kept) {
				t.Errorf("docker_auth %v, ours %v, want %v\n%s", theirs, ours, c.kept, kept.result.Policy)
			}
			if kept.lost() || !strings.Contains(fmt.Sprint(kept.result.Notes), c.note) || !strings.Contains(fmt.Sprint(kept.result.Notes), "--safe") {
				t.Errorf("notes %v", kept.result.Notes)
			}
			o := options()
			o.Safe = true
			safe := importText(t, text, o)
			if ours := safe.ours(c.ask); !slices.Equal(ours, c.safe) {
				t.Errorf("safe: %v, want %v\n%s", ours, c.safe, safe.result.Policy)
			}
			if name != "no type" && len(safe.result.Notes) == 0 {
				t.Error("safe: nothing is told")
			}
		})
	}
}

// The safe form still means what was meant.
func TestTheSafeFormStillGrantsWhatWasMeant(t *testing.T) {
	o := options()
	o.Safe = true
	i := importText(t, head+anonymousToo+`acl:
  - {match: {name: "/team\\/.*/"}, actions: [pull]}
  - {match: {account: "/admin|bob/", name: "b"}, actions: [pull]}
  - {match: {account: "*", name: "c"}, actions: [pull]}
  - {match: {name: "/${account}\\/x/"}, actions: [push]}
  - {match: {account: bob}, actions: ["*"]}
`, o)
	for _, a := range []ask{from("bob", "repository:team/x:pull"), from("bob", "repository:b:pull"), from("alice", "repository:c:pull"),
		from("alice", "repository:alice/x:push"), from("bob", "repository:d:pull")} {
		if ours := i.ours(a); !slices.Equal(ours, a.actions) {
			t.Errorf("%s: %v", a, ours)
		}
	}
}

// What differs on purpose is written in docs/docker-auth.md, and is so.
func TestIntendedDifferences(t *testing.T) {
	page, err := os.ReadFile("../../docs/docker-auth.md")
	if err != nil {
		t.Fatal(err)
	}
	everything := `[{match: {}, actions: ["*"]}]`
	with := func(a ask, change func(*ask)) ask { change(&a); return a }
	shown := 0
	for title, c := range map[string]struct {
		acl          string
		ask          ask
		theirs, ours []string
	}{
		"Who asks for `*`": {
			`[{match: {}, actions: [pull]}]`, from("bob", "repository:x:*"), nil, []string{"pull"}},
		"`\"*\"` beside other actions": {
			`[{match: {}, actions: ["*", pull]}]`, from("bob", "repository:x:*"), []string{"*"}, []string{"pull"}},
		"Other resource types": {
			everything, from("bob", "plugin:x:pull"), []string{"pull"}, nil},
		"The empty name": {
			`[{match: {name: "*"}, actions: [pull]}]`, from("bob", "repository::pull"), []string{"pull"}, nil},
		"Everything below a path": {
			`[{match: {name: "team/*"}, actions: [pull]}]`, from("bob", "repository:team/*:pull"), []string{"pull"}, nil},
		"Labels and captures are text": {
			`[{match: {name: "${labels:team}/*"}, actions: [push]}]`,
			with(from("bob", "repository:victim/x:push"), func(a *ask) { a.labels = map[string][]string{"team": {"*"}} }), []string{"push"}, nil},
		"Names with a slash in patterns": {
			`[{match: {account: "*-ci"}, actions: [pull]}]`, from("a/b-ci", "repository:x:pull"), nil, []string{"pull"}},
		"Names with a slash in variables": {
			`[{match: {name: "${account}/*"}, actions: [pull]}]`, from("a/b", "repository:a/b/x:pull"), []string{"pull"}, nil},
		"Nothing in the place of a variable": {
			`[{match: {name: "x${account}"}, actions: [pull]}]`, from("", "repository:x:pull"), []string{"pull"}, nil},
		"An address that is not known": {
			`[{match: {ip: "10.0.0.0/8"}, actions: []}, {match: {}, actions: [pull]}]`,
			with(from("bob", "repository:x:pull"), func(a *ask) { a.ip = netip.Addr{} }), []string{"pull"}, nil},
	} {
		if !strings.Contains(string(page), "| "+title+" |") {
			t.Errorf("docs/docker-auth.md does not name %q", title)
		}
		shown++
		i := importText(t, head+anonymousToo+"acl: "+c.acl+"\n", options())
		if theirs := oracle(i.theirs.acl, c.ask); !slices.Equal(theirs, c.theirs) {
			t.Errorf("%s: docker_auth grants %v, want %v", title, theirs, c.theirs)
		}
		if ours := i.ours(c.ask); !slices.Equal(ours, c.ours) {
			t.Errorf("%s: ours %v, want %v\n%s", title, ours, c.ours, i.result.Policy)
		}
	}
	_, table, _ := strings.Cut(string(page), "## What differs on purpose\n")
	table, _, _ = strings.Cut(table, "\n## ")
	if rows := strings.Count(table, "\n| ") - 1; rows != shown+3 { // three are of the server, not of the policy
		t.Errorf("the page has %d rows, %d are shown here", rows, shown)
	}
}

func TestWhatIsNotCarriedOverIsListedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		head + "ldap_auth: {addr: x}\nacl: []\n":                                                `config.yml:6: ldap_auth: there is no such backend here yet; its users cannot log in`,
		head + "acl_mongo: {collection: x}\nacl: []\n":                                          `config.yml:6: acl_mongo: entries in a database are not read; write them under acl, below those that are there`,
		head + "ext_authz: {command: x}\nacl: []\n":                                             `config.yml:6: ext_authz: not carried over; an external decision is acl.webhook here, see docs/webhook.md`,
		head + "something: {command: x}\nacl: []\n":                                             `config.yml:6: something: not carried over`,
		head + "  carol: {}\nacl: []\n":                                                         `config.yml:6: users."carol": has no password: docker_auth lets anybody in under this name, whatever the password; give the user one with "authserver user add"`,
		head + "  carol: {password: secret}\nacl: []\n":                                         `config.yml:6: users."carol": the password is not a bcrypt hash`,
		head + "  'a:b': {password: " + hash + "}\nacl: []\n":                                   `config.yml:6: users."a:b": a user name cannot hold a colon`,
		head + "  '': {password: " + hash + "}\nacl: []\n":                                      `config.yml:6: users."": a user without a name who has a password; anonymous here is who sends no credentials`,
		head + "  '': {labels: {a: [b]}}\nacl: []\n":                                            `config.yml:6: users."".labels.a: the anonymous user is in no group here; name anonymous in the rules that are meant`,
		head + "  carol: {password: " + hash + ", labels: {team: [\"*\"]}}\nacl: []\n":          `config.yml:6: users.carol.labels.team: "*" cannot be part of a group's name`,
		head + "acl:\n  - match: {}\n":                                                          `config.yml:7: acl[0]: it has no actions, docker_auth would fail on every request that comes to it`,
		head + "acl:\n  - actions: [pull]\n":                                                    `config.yml:7: acl[0]: it has no match, docker_auth would fail on every request that comes to it`,
		head + "acl:\n  - {match: {ip: everywhere}, actions: [pull]}\n":                         `config.yml:7: acl[0].match.ip: "everywhere" is neither an address nor a network; what the entry matches at most is denied instead`,
		head + "acl:\n  - {match: {name: \"/(/\"}, actions: [pull]}\n":                          `config.yml:7: acl[0].match.name: "/(/" is no regular expression: error parsing regexp: missing closing ): ` + "`(`; what the entry matches at most is denied instead",
		head + "acl:\n  - {match: {service: \"${account}\"}, actions: [pull]}\n":                `config.yml:7: acl[0].match.service: "${account}": variables are read in account, name and labels only; what the entry matches at most is denied instead`,
		strings.Replace(head, "900", "soon", 1) + "acl: []\n":                                   `config.yml:2: token.expiration: "soon" is no number of seconds`,
		strings.Replace(head, `":5001"`, `":5001", path_prefix: /a`, 1) + "acl: []\n":           `config.yml:1: server.path_prefix: authserver answers at /token; let a proxy cut the prefix off, and give --public-url with it`,
		strings.Replace(head, `":5001"`, `":5001", real_ip_header: X-Real-IP`, 1) + "acl: []\n": `config.yml:1: server.real_ip_header: name the proxies in server.trusted_proxies: only their X-Forwarded-For and Forwarded are believed, read from the right`,
		strings.Replace(head, `":5001"`, `":https"`, 1) + "acl: []\n":                           `config.yml:1: server.addr: ":https" is no host:port with a number; set server.listen`,
		strings.Replace(head, `":5001"`, `":5001", certificate: /c`, 1) + "acl: []\n":           `config.yml:1: server.certificate: certificate and key go together; set server.tls`,
		strings.Replace(head, `issuer: i`, `issuer: Büro`, 1) + "acl: []\n":                     `config.yml:2: token.issuer: "Büro" holds a blank at an end, a control character or a letter beyond ASCII; the default is used, change the registry's auth.token.issuer with it`,
	} {
		i := importText(t, text, options())
		var lost []string
		for _, n := range i.result.Notes {
			if n.Severity == Lost {
				lost = append(lost, n.String())
			}
		}
		if !slices.Equal(lost, []string{want}) {
			t.Errorf("lost %q\nwant %q", lost, want)
		}
	}
}

func TestWhatDockerAuthDoesNotReadEither(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "is no configuration of docker_auth",
		"- a":                            "is no configuration of docker_auth",
		"kind: ConfigMap":                "it has neither server, token, users nor acl",
		"server: {":                      "config.yml: yaml: ",
		"acl: {a: b}":                    "config.yml:1: acl: a list belongs here",
		"acl: [{match: [a]}]":            "config.yml:1: a mapping of keys to values belongs here",
		"acl: [{match: {name: [a]}}]":    "config.yml:1: name: a text belongs here",
		"acl: [{match: {}, actions: a}]": "config.yml:1: actions: a list belongs here",
		"acl: []\nacl: []":               "config.yml:2: acl: given twice",
		"users: {a: {labels: {b: c}}}":   "config.yml:1: b: a list belongs here",
		"acl: [{match: {<<: [{}, {}]}}]": "is not read; write the values out",
		"acl: [{match: {name: \"" + strings.Repeat("a", 5000) + "\"}}]": "longer than 4096 bytes",
	} {
		if r, err := Convert("config.yml", []byte(text), options()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, %v; want %s", text, r, err, want)
		}
	}
}

func TestAnchorsAndMergeKeysAreFollowed(t *testing.T) {
	i := importText(t, head+"x: &pull {match: {name: a}, actions: [pull]}\nacl:\n  - *pull\n  - {match: {<<: &who {account: bob, name: c}, name: b}, actions: [push]}\n  - match: *who\n    actions: [delete]\n"+
		"  - {match: {name: d, <<: {account: bob, name: e}}, actions: [pull]}\n", options())
	for a, want := range map[string]string{"alice repository:a:pull": "pull", "bob repository:b:push": "push", "alice repository:b:push": "", "bob repository:c:delete": "delete",
		"bob repository:d:pull": "", "bob repository:e:pull": "pull"} {
		who, scopeText, _ := strings.Cut(a, " ")
		if got := strings.Join(i.ours(from(who, scopeText)), ","); got != want {
			t.Errorf("%s: %s", a, got)
		}
	}
}

// samples are files of the shapes of docker_auth's own examples, and what is asked of them.
func samples(t *testing.T) (requests []sample) {
	t.Helper()
	data, err := os.ReadFile("testdata/requests.yaml")
	if err == nil {
		err = yaml.Unmarshal(data, &requests)
	}
	if err != nil || len(requests) < 30 {
		t.Fatalf("%d requests, %v", len(requests), err)
	}
	return requests
}

type sample struct{ File, As, IP, Scope, Grants string }

func TestTheSamplesAreAnsweredAlike(t *testing.T) {
	files := map[string]imported{}
	for _, s := range samples(t) {
		i, read := files[s.File]
		if !read {
			data, err := os.ReadFile(filepath.Join("testdata", s.File+".yml"))
			if err != nil {
				t.Fatal(err)
			}
			i = importText(t, string(data), options())
			files[s.File] = i
		}
		a := from(s.As, s.Scope)
		if s.IP != "" {
			a.ip = netip.MustParseAddr(s.IP)
		}
		for _, u := range i.theirs.users {
			if u.name == s.As {
				a.labels = u.labels
			}
		}
		theirs, ours := strings.Join(oracle(i.theirs.acl, a), ","), strings.Join(i.ours(a), ",")
		if sorted := scope.Canonical(scope.Access{Actions: strings.Split(theirs, ",")}); theirs != "" {
			theirs = strings.Join(sorted[0].Actions, ",")
		}
		if s.File == "ldap_auth" && s.As == "" { // it has no anonymous user: docker_auth answers 401
			theirs = ""
		}
		if theirs != s.Grants || ours != s.Grants {
			t.Errorf("%s: %s\ndocker_auth grants %q, ours %q, want %q", s.File, a, theirs, ours, s.Grants)
		}
	}
}

// The policies are read by people: they are kept beside the samples as they are.
func TestTheSamplesAreWrittenAsTheyAre(t *testing.T) {
	for _, name := range []string{"reference", "simple", "non_tls", "ldap_auth"} {
		data, err := os.ReadFile("testdata/" + name + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		o := options()
		o.Services = nil
		r, err := Convert(name+".yml", data, o)
		if err != nil {
			t.Fatal(err)
		}
		notes := ""
		for _, n := range r.Notes {
			notes += string(n.Severity) + ": " + n.String() + "\n"
		}
		got := fmt.Sprintf("-- authserver.yaml --\n%s-- policy.yaml --\n%s-- users.htpasswd --\n%s-- notes --\n%s", r.Config, r.Policy, r.Users, notes)
		file := "testdata/" + name + ".want"
		if os.Getenv("WRITE_WANT") != "" {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || got != string(want) {
			t.Errorf("%s: %v; look at the difference, and write it with WRITE_WANT=1 if it is meant\n%s", name, err, got)
		}
	}
}
