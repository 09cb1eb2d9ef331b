package acl_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/acl"
	"authserver/internal/scope"
	"authserver/internal/users"
)

func TestScopesOfACredential(t *testing.T) {
	for _, good := range []string{
		"repository:team/app:pull", "repository:team/**:pull,push", "repository:**:*", "repository:*:pull", "repository:a*/b:delete", "registry:catalog:*",
		"repository:host:5000/app:pull", "repository:Team/App:pull", "artifact-repository:x:pull", "repository:a:pull,pull",
	} {
		if err := acl.CheckLimit([]string{good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	if err := acl.CheckLimit(nil); err != nil {
		t.Error(err)
	}
	const form = "is no scope; would be right: repository:team/**:pull,push"
	for bad, want := range map[string]string{
		"":                                    `"" ` + form,
		"team/app":                            `"team/app" ` + form,
		"team/app:pull":                       `"team/app:pull" ` + form,
		"repository::pull":                    `empty; would be right: "team/**", or "**" for every name`,
		":a:pull":                             `"" is no type; would be right: repository:team/**:pull,push`,
		"Repository:a:pull":                   `"Repository" is no type`,
		"repository(plugin):a:pull":           `"repository(plugin)" is no type`,
		" repository:a:pull":                  `" repository" is no type`,
		"repository:a:":                       `"" is no action; would be right: pull, push, delete or "*"`,
		"repository:a:pull,":                  `"" is no action`,
		"repository:a:pull push":              `"pull push" is no action`,
		"repository:a:Pull":                   `"Pull" is no action`,
		"repository:a:**":                     `"**" is no action`,
		"repository:a:pull repository:b:pull": `has the character ' '`,
		"repository:/a:pull":                  "has an empty segment",
		"repository:a/:pull":                  "has an empty segment",
		"repository:a**:pull":                 "has ** beside other characters",
		"repository:..:pull":                  "can match no name",
		"repository:^a$:pull":                 "has the character '^'",
		"repository:ä:pull":                   "has the character 'ä'",
		"repository:{user}/**:pull":           "placeholders stand for nothing in the scope of a credential",
		"repository:x-{group}:pull":           "placeholders stand for nothing",
		"repository:{claims.team}/a:pull":     "placeholders stand for nothing",
		"repository:{group:dev-*}/a:pull":     "placeholders stand for nothing",
		"repository:{nobody}/a:pull":          "unknown placeholder {nobody}",
		"repository:{user:pull":               "has a { without }",
	} {
		for _, texts := range [][]string{{bad}, {"repository:a:pull", bad}, {bad, "repository:a:pull"}} {
			if err := acl.CheckLimit(texts); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", texts, err, want)
			}
		}
	}
}

func TestALimitTakesAwayAndSaysSo(t *testing.T) {
	p, err := acl.Parse("policy.yaml", []byte(`
rules:
  - {name: all, subjects: ["user:alice"], repositories: ["**"], resources: ["registry:catalog"], actions: ["*"]}
  - {name: freeze, effect: deny, subjects: [anyone], repositories: ["frozen/**"], actions: [push]}
  - {name: robot, subjects: ["robot:alice"], repositories: ["a"], actions: [pull]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limit       []string
		asked, want string
	}{
		{nil, "repository:a:pull,push", "repository:a:pull,push"},
		{nil, "repository:a:*", "repository:a:*,delete,pull,push"},
		{[]string{}, "repository:a:pull,push", ""},
		{[]string{}, "registry:catalog:*", ""},
		{[]string{"repository:a:pull"}, "repository:a:pull,push", "repository:a:pull"},
		{[]string{"repository:a:pull"}, "repository:a:*", "repository:a:pull"},
		{[]string{"repository:a:*"}, "repository:a:*", "repository:a:*,delete,pull,push"},
		{[]string{"repository:a:*"}, "repository:b:*", ""},
		{[]string{"repository:a:pull", "repository:a:push"}, "repository:a:*", "repository:a:pull,push"},
		{[]string{"repository:a:delete,pull,push"}, "repository:a:*", "repository:a:delete,pull,push"}, // all that there is today is not All
		{[]string{"repository:**:*"}, "repository:frozen/x:*", "repository:frozen/x:delete,pull"},      // it gives nothing back
		{[]string{"repository:frozen/x:push"}, "repository:frozen/x:push", ""},
		{[]string{"repository:team/**:pull"}, "repository:team:pull repository:team/a:pull repository:team/a/b:pull repository:teams/a:pull", "repository:team/a:pull repository:team/a/b:pull"},
		{[]string{"repository:team/**:pull"}, "repository:team/*:pull", "repository:team/*:pull"}, // GitLab: all below
		{[]string{"repository:team/*:pull"}, "repository:team/*:pull", ""},                        // one segment is not all below
		{[]string{"repository:team/a/**:pull"}, "repository:team/*:pull", ""},                     // nor is a part of it
		{[]string{"repository:**:*"}, "registry:catalog:*", ""},                                   // another type
		{[]string{"registry:catalog:*"}, "registry:catalog:*", "registry:catalog:*"},              //
		{[]string{"registry:catalog:pull"}, "registry:catalog:*", ""},                             // less than All of what is asked as All
		{[]string{"repository:**:*"}, "repository::pull", ""},                                     // zot's catalog is no repository
		{[]string{"registry:catalog:*"}, "repository::pull", "repository::pull"},                  //
		{[]string{"registry:catalog:*"}, "repository::*", "repository::pull"},                     //
		{[]string{"registry:catalog:pull"}, "repository::pull", ""},                               //
		{[]string{"repository:a:pull", "what cannot be read"}, "repository:a:pull", ""},           // nothing at all
		{[]string{"repository:{user}:pull"}, "repository:alice:pull", ""},                         //
	} {
		asked, _, err := scope.Parse([]string{c.asked})
		if err != nil {
			t.Fatal(err)
		}
		who := users.Principal{Name: "alice", Kind: users.KindUser, Scopes: c.limit}
		granted, verdicts := p.Decide(who, netip.Addr{}, "s", time.Time{}, asked)
		if granted.String() != c.want {
			t.Errorf("limit %q: asked %s, granted %s, want %s", c.limit, c.asked, granted, c.want)
		}
		for _, v := range verdicts {
			if limited := slices.Contains(v.DeniedBy, acl.LimitName); v.Granted && limited || c.limit == nil && limited || !v.Granted && len(v.AllowedBy) > 0 && len(v.DeniedBy) == 0 {
				t.Errorf("limit %q: asked %s: %+v", c.limit, c.asked, v)
			}
		}
	}
	// It grants nothing by itself.
	who := users.Principal{Name: "alice", Kind: users.KindRobot, Scopes: []string{"repository:**:*", "registry:catalog:*"}}
	asked, _, _ := scope.Parse([]string{"repository:a:pull,push repository:b:* registry:catalog:*"})
	if granted, _ := p.Decide(who, netip.Addr{}, "s", time.Time{}, asked); granted.String() != "repository:a:pull" {
		t.Errorf("granted %s", granted)
	}
}
