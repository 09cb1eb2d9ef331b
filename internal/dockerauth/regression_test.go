package dockerauth

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const crowd = "server: {addr: \":5001\"}\ntoken: {issuer: i, expiration: 900}\nusers:\n" +
	"  alice: {password: " + hash + ", labels: {team: [web], path: [a/b]}}\n  bob: {password: " + hash + ", labels: {project: [bob, api]}}\n" +
	"  bob@corp: {password: " + hash + ", labels: {project: [bob]}}\n"

var crowdLabels = map[string]map[string][]string{
	"alice": {"team": {"web"}, "path": {"a/b"}}, "bob": {"project": {"bob", "api"}}, "bob@corp": {"project": {"bob"}},
}

// What was once translated to more, or to less, than docker_auth grants.
func TestWhatWasOnceSaidWrong(t *testing.T) {
	const rest = `, {match: {}, actions: [pull]}]`
	for name, c := range map[string]struct {
		acl string
		ask ask
	}{
		"an escaped star of a glob":                {`[{match: {name: 'web/\*'}, actions: [pull]}]`, from("bob", "repository:web/x:pull")},
		"an escaped star of a regular expression":  {`[{match: {name: '/^web\/\*$/'}, actions: [pull]}]`, from("bob", "repository:web/x:pull")},
		"two wildcards of a glob are not **":       {`[{match: {name: 'web/?*?*'}, actions: [pull]}]`, from("bob", "repository:web/x/y/z:pull")},
		"two wildcards of a regular expression":    {`[{match: {name: '/^web\/[^\/]+[^\/]+$/'}, actions: [pull]}]`, from("bob", "repository:web/x/y/z:pull")},
		"an entry without type, a type of another": {`[{match: {account: bob}, actions: []}, {match: {type: plugin}, actions: ["*"]}]`, from("bob", "plugin:x:pull")},
		"an entry without type, statistics":        {`[{match: {account: bob}, actions: []}, {match: {type: registry}, actions: ["*"]}]`, from("bob", "registry:statistics:pull")},
		"a capture that only a label has":          {`[{match: {account: '/^(.+)@corp$/', labels: {project: '${account:1}'}}, actions: [pull]}]`, from("bob@corp", "repository:x:pull")},
		"the same as a regular expression":         {`[{match: {account: '/^(.+)@corp$/', labels: {project: '/^${account:1}$/'}}, actions: [pull]}]`, from("bob@corp", "repository:x:pull")},
		"a capture behind another variable":        {`[{match: {account: '/^(.+)@corp$/', name: 'x-${service}/${account:1}/*'}, actions: [pull]}]`, from("bob@corp", "repository:x-registry.local/bob/a:pull")},
		"a capture of nothing in an alternative":   {`[{match: {name: '/^secret$|^${account:1}$/'}, actions: []}` + rest, from("bob", "repository:secret:pull")},
		"a label with a slash":                     {`[{match: {name: '${labels:path}/*'}, actions: [pull]}]`, from("alice", "repository:a/b/x:pull")},
		"a label with a slash, denied":             {`[{match: {name: '${labels:path}/*'}, actions: []}` + rest, from("alice", "repository:a/b/x:pull")},
		"labels of which a user has one":           {`[{match: {name: '/^(${labels:project}|${labels:team})-[a-z]+$/'}, actions: [pull]}]`, from("alice", "repository:web-x:pull")},
		"labels of which a user has one, denied":   {`[{match: {name: '/^(${labels:project}|${labels:team})-[a-z]+$/'}, actions: []}` + rest, from("alice", "repository:web-x:pull")},
		"an account beside a label nobody has":     {`[{match: {name: '/^(${account}|${labels:project})-[a-z]+$/'}, actions: []}` + rest, from("alice", "repository:alice-x:pull")},
		"a variable that is a class":               {`[{match: {name: '/^[${account}]$/'}, actions: []}` + rest, from("alice", "repository:a:pull")},
		"a variable that is a class, allowed":      {`[{match: {name: '/^[${account}]$/'}, actions: [pull]}]`, from("alice", "repository:alice:pull")},
		"a variable with a question mark":          {`[{match: {name: '/^x${account}?$/'}, actions: [pull]}]`, from("alice", "repository:x:pull")},
		"a variable with a question mark, most":    {`[{match: {name: '/^x${account}?$/'}, actions: [pull]}]`, from("alice", "repository:xalic:pull")},
		"a merge key behind":                       {`[{match: {account: alice, <<: {account: bob}}, actions: [pull]}]`, from("bob", "repository:x:pull")},
		"a merge key before":                       {`[{match: {<<: {account: bob}, account: alice}, actions: [pull]}]`, from("bob", "repository:x:pull")},
	} {
		i := importText(t, crowd+"acl: "+c.acl+"\n", options())
		c.ask.labels = crowdLabels[c.ask.account]
		theirs, ours := oracle(i.theirs.acl, c.ask), i.ours(c.ask)
		if i.lost() || !slices.Equal(theirs, ours) {
			t.Errorf("%s: docker_auth grants %v, ours %v\n%s%v", name, theirs, ours, i.result.Policy, i.result.Notes)
		}
	}
}

func TestWhatCannotBeSaidIsLostAndNotCalledNothing(t *testing.T) {
	for name, want := range map[string]string{
		`[${account}]*`:   "a variable between brackets or behind a backslash",
		`\${account}/*`:   "a variable between brackets or behind a backslash",
		`${Account:1}/*`:  "is not read in this form",
		`${account:0001}`: "is not read in this form",
	} {
		i := importText(t, crowd+"acl: [{match: {account: '/^(.+)@corp$/', name: '"+name+"'}, actions: [pull]}]\n", options())
		if !i.lost() || !strings.Contains(fmt.Sprint(i.result.Notes), want) {
			t.Errorf("%s: %v", name, i.result.Notes)
		}
	}
}

// A user without a name who has a password is not everybody.
func TestANamelessUserWithAPasswordLetsNobodyIn(t *testing.T) {
	for user, want := range map[string][]string{"''": {"pull"}, "~": {"pull"}} {
		i := importText(t, crowd+"  "+user+": {}\nacl: [{match: {}, actions: [pull]}]\n", options())
		if ours := i.ours(from("", "repository:x:pull")); !slices.Equal(ours, want) {
			t.Errorf("%s: %v", user, ours)
		}
	}
	i := importText(t, crowd+"  '': {password: "+hash+"}\nacl: [{match: {}, actions: [pull]}, {match: {account: '*'}, actions: [push]}]\n", options())
	if ours := i.ours(from("", "repository:x:pull,push")); len(ours) > 0 {
		t.Errorf("%v\n%s", ours, i.result.Policy)
	}
}

// The safe form grants nothing that the kept form does not, in whatever order entries stand.
func TestTheSafeFormNeverGrantsMore(t *testing.T) {
	for name, c := range map[string]struct {
		acl string
		ask ask
	}{
		"an anchored entry that denies": {`[{match: {name: "/secret/"}, actions: []}, {match: {}, actions: [pull]}]`, from("bob", "repository:team/secret:pull")},
		"an anchored entry for reading": {`[{match: {name: "/prod/"}, actions: [pull]}, {match: {account: bob}, actions: ["*"]}]`, from("bob", "repository:prod/x:push")},
		"an anchored account":           {`[{match: {account: "/intern/"}, actions: []}, {match: {}, actions: [pull]}]`, from("intern2", "repository:x:pull")},
		"a star that is also nobody":    {`[{match: {account: "*", name: c}, actions: []}, {match: {}, actions: [pull]}]`, from("", "repository:c:pull")},
		"the catalog":                   {`[{match: {account: bob}, actions: [pull]}, {match: {type: registry}, actions: ["*"]}]`, from("bob", "registry:catalog:*")},
		"a mistyped key":                {`[{match: {account: bob, tema: x}, actions: []}, {match: {}, actions: [pull]}]`, from("bob", "repository:x:pull")},
		"a service":                     {`[{match: {service: "/registry/"}, actions: []}, {match: {}, actions: [pull]}]`, from("bob", "repository:x:pull")},
	} {
		o := options()
		text := crowd + anonymousToo + "acl: " + c.acl + "\n"
		kept := importText(t, text, o)
		o.Safe = true
		safe := importText(t, text, o)
		if k, s := kept.ours(c.ask), safe.ours(c.ask); len(k) > 0 || len(s) > 0 {
			t.Errorf("%s: kept %v, safe %v\n%s", name, k, s, safe.result.Policy)
		}
	}
}

func TestAddressesAreThoseOfGo(t *testing.T) {
	i := importText(t, crowd+"acl: [{match: {ip: '::ffff:10.0.0.7'}, actions: [pull]}]\n", options())
	a := from("bob", "repository:x:pull")
	a.ip = netip.MustParseAddr("10.0.0.7")
	if theirs, ours := oracle(i.theirs.acl, a), i.ours(a); len(theirs) != 1 || !slices.Equal(theirs, ours) {
		t.Errorf("docker_auth %v, ours %v", theirs, ours)
	}
}

func TestMappingsThatAMergeKeyMixesAreRefused(t *testing.T) {
	text := crowd + "x: &e {match: {account: bob}, actions: [pull]}\nacl: [{<<: *e, match: {name: x}}]\n"
	if _, err := Convert("config.yml", []byte(text), options()); err == nil || !strings.Contains(err.Error(), "config.yml:8: match: given here and by a merge key (<<), which docker_auth mixes") {
		t.Error(err)
	}
}
