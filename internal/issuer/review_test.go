package issuer_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// review has the last word.
type review func(r issuer.Review) (scope.Set, error)

func (f review) Review(_ context.Context, r issuer.Review) (scope.Set, error) { return f(r) }

// policy grants pull and push on a, and says why.
func policy(_ users.Principal, _ netip.Addr, _ string, _ time.Time, _ scope.Set) (scope.Set, []scope.Verdict) {
	return scope.Canonical(scope.Access{Type: "repository", Name: "a", Actions: []string{"pull", "push"}}), []scope.Verdict{
		{Type: "repository", Name: "a", Action: "delete", DeniedBy: []string{"keep"}},
		{Type: "repository", Name: "a", Action: "pull", Granted: true, AllowedBy: []string{"own"}},
		{Type: "repository", Name: "a", Action: "push", Granted: true, AllowedBy: []string{"own"}},
	}
}

func TestTheReviewerTakesAwayAndNeverAdds(t *testing.T) {
	for _, c := range []struct{ says, granted, outcome string }{
		{"repository:a:pull,push", "repository:a:pull,push", audit.Partial},
		{"repository:a:*", "repository:a:pull,push", audit.Partial},
		{"repository:a:pull,delete repository:b:pull registry:catalog:*", "repository:a:pull", audit.Partial},
		{"repository:b:pull", "", audit.Denied},
		{"", "", audit.Denied},
	} {
		t.Run(c.says, func(t *testing.T) {
			config, log := configuration(t, registry)
			config.Policy = decide(policy)
			var got issuer.Review
			config.Reviewer = review(func(r issuer.Review) (scope.Set, error) {
				got = r
				return asked(t, c.says), nil
			})
			result := issue(t, start(t, config), request(t, "", "repository:a:pull,push,delete"))
			if result.Granted.String() != c.granted || result.Outcome != c.outcome {
				t.Errorf("granted %q, outcome %s", result.Granted, result.Outcome)
			}
			want := issuer.Review{
				ID: "r1", Time: now, Who: alice, From: netip.MustParseAddr("192.0.2.7"), Service: "registry.local",
				Asked: asked(t, "repository:a:delete,pull,push"), Granted: asked(t, "repository:a:pull,push"),
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("asked %+v\nwant  %+v", got, want)
			}
			denied := []string{"keep"}
			for _, v := range result.Verdicts[1:] {
				left := scope.Access{Actions: result.Granted.Find("repository", "a")}
				if v.Granted != left.Has(v.Action) || v.Granted != (len(v.DeniedBy) == 0) {
					t.Errorf("%+v, granted %s", v, result.Granted)
				}
				if !v.Granted && len(denied) == 1 {
					denied = append(denied, issuer.ReviewerName)
				}
			}
			if event := log.last(t); !reflect.DeepEqual(event.DeniedBy, denied) || event.Granted != c.granted {
				t.Errorf("recorded %+v, want denied by %v", event, denied)
			}
		})
	}
}

func TestAReviewerThatCannotSayMeansNoToken(t *testing.T) {
	config, log := configuration(t, registry)
	config.Policy = decide(policy)
	down := errors.New("no answer in 2s")
	config.Reviewer = review(func(r issuer.Review) (scope.Set, error) { return r.Granted, down })
	result, err := start(t, config).Issue(t.Context(), request(t, "", "repository:a:pull"))
	if !errors.Is(err, issuer.ErrUndecided) || !errors.Is(err, down) || errors.Is(err, users.ErrRefused) {
		t.Errorf("error %v", err)
	}
	if want := (issuer.Result{Service: "registry.local", Outcome: audit.Unavailable}); !reflect.DeepEqual(result, want) {
		t.Errorf("result %+v", result)
	}
	want := base(audit.Unavailable)
	want.Principal, want.Kind, want.Backend, want.Asked = "alice", "user", "htpasswd", "repository:a:pull"
	want.Reason = "cannot say what is granted: no answer in 2s"
	wantEvent(t, log, want)
}

func TestTheReviewerIsAskedOnlyWhenThereIsSomethingToTakeAway(t *testing.T) {
	for _, c := range []struct {
		scope  string
		policy decide
	}{
		{"", policy},
		{"repository:b:pull", policy},
		{"repository:a:pull", func(users.Principal, netip.Addr, string, time.Time, scope.Set) (scope.Set, []scope.Verdict) {
			return nil, nil
		}},
	} {
		config, _ := configuration(t, registry)
		config.Policy = c.policy
		config.Reviewer = review(func(issuer.Review) (scope.Set, error) { return nil, errors.New("asked") })
		issue(t, start(t, config), request(t, "", c.scope))
	}
}
