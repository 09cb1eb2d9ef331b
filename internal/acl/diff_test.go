package acl_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"authserver/internal/acl"
)

func TestDiff(t *testing.T) {
	old := policy(t, `
groups: {dev: [alice]}
rules:
  - {name: dev, subjects: ["group:dev"], repositories: ["dev/**"], actions: [pull, push]}
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull]}
  - {name: groups, subjects: [authenticated], repositories: ["g-{group}/*"], actions: [pull]}
  - {name: public, subjects: [anyone], repositories: ["public/**"], actions: [pull]}
`)
	now := policy(t, `
groups: {dev: [alice]}
rules:
  - {name: dev, subjects: ["group:dev"], repositories: ["dev/**"], actions: [pull]}
  - {name: own, subjects: [authenticated], repositories: ["{user}/**"], actions: [pull, delete]}
  - {name: groups, subjects: ["user:alice"], repositories: ["g-{group}/*"], actions: [pull]}
  - {name: public, subjects: [authenticated], repositories: ["public/**"], actions: [pull]}
  - {name: catalog, subjects: ["robot:ci"], resources: ["registry:catalog"], actions: ["*"]}
`)
	world := acl.NewWorld([]string{"extra/repo"}, old, now)
	var got []string
	for _, c := range acl.Diff(old, now, world, netip.Addr{}, "", time.Now()) {
		got = append(got, fmt.Sprintf("%s %s +%v -%v", c.Principal, c.Resource, c.Gains, c.Loses))
	}
	want := []string{
		"alice repository:alice/x +[delete] -[]",
		"alice repository:dev/x +[] -[push]",
		"anonymous repository:public/x +[] -[pull]",
		"any robot repository:some-robot/x +[delete] -[]",
		"anybody else repository:somebody-else/x +[delete] -[]",
		"group:dev repository:dev/x +[] -[push]",
		"group:dev repository:g-dev/x +[] -[pull]",
		"group:dev repository:somebody-else/x +[delete] -[]",
		"robot:ci registry:catalog +[*] -[]",
		"robot:ci repository:ci/x +[delete] -[]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if changes := acl.Diff(now, now, world, netip.Addr{}, "", time.Now()); len(changes) != 0 {
		t.Errorf("a policy differs from itself: %v", changes)
	}
	if world.Size() < 50 {
		t.Errorf("only %d decisions", world.Size())
	}
}
