package issuer_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/audit"
	"authserver/internal/issuer"
	"authserver/internal/scope"
	"authserver/internal/users"
)

var (
	registry = service("registry.local", issuer.VerifierChain)
	zot      = service("zot", issuer.VerifierPinned)
)

// base is what every event about request() says.
func base(outcome string) audit.Event {
	return audit.Event{
		Time: now, Event: "token", RequestID: "r1", Outcome: outcome, Grant: issuer.GrantBasic, Client: "192.0.2.7", Service: "registry.local",
	}
}

func wantEvent(t *testing.T, log *record, want audit.Event) {
	t.Helper()
	if len(log.events) != 1 {
		t.Errorf("%d events, want one", len(log.events))
	}
	if got := log.last(t); !reflect.DeepEqual(got, want) {
		t.Errorf("event\n got %+v\nwant %+v", got, want)
	}
	if text, err := json.Marshal(log.events); err != nil || strings.Contains(string(text), "alicealice") || strings.Contains(string(text), "hunter2") {
		t.Errorf("the record holds a password: %s, %v", text, err)
	}
}

// Who asks: every way in which a request is not answered with a token, and what is recorded of it.
func TestARequestThatIsNotAnsweredSaysWhyAndIsRecorded(t *testing.T) {
	good := &users.Credentials{Username: "alice", Password: "alicealice"}
	wrong := &users.Credentials{Username: "alice", Password: "hunter2"}
	for name, c := range map[string]struct {
		change func(r *issuer.Request, c *issuer.Config)
		is     error
		isNot  error
		event  func(e *audit.Event)
		result issuer.Result
	}{
		"a service that is not listed": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Service = "evil.example.com" },
			is:     issuer.ErrUnknownService, isNot: users.ErrRefused,
			event: func(e *audit.Event) {
				e.Outcome, e.Service, e.Principal, e.Reason = audit.Invalid, "", "alice", `unknown service "evil.example.com"`
			},
			result: issuer.Result{Outcome: audit.Invalid},
		},
		"a service in other letters": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Service = "Registry.local" },
			is:     issuer.ErrUnknownService,
			event: func(e *audit.Event) {
				e.Outcome, e.Service, e.Principal, e.Reason = audit.Invalid, "", "alice", `unknown service "Registry.local"`
			},
			result: issuer.Result{Outcome: audit.Invalid},
		},
		"a service that would disturb a terminal": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Service = "\u009b31m\u202e" + strings.Repeat("x", 1000) },
			is:     issuer.ErrUnknownService,
			event: func(e *audit.Event) {
				e.Outcome, e.Service, e.Principal, e.Reason = audit.Invalid, "", "alice", `unknown service "\u009b31m\u202e`+strings.Repeat("x", 123)+`"`
			},
			result: issuer.Result{Outcome: audit.Invalid},
		},
		"a wrong password": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Credentials = wrong },
			is:     users.ErrRefused, isNot: issuer.ErrBadCredentials,
			event:  func(e *audit.Event) { e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused" },
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"what cannot be credentials": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Credentials, r.BadCredentials = nil, "no colon" },
			is:     issuer.ErrBadCredentials,
			event: func(e *audit.Event) {
				e.Outcome, e.Reason = audit.Refused, "credentials refused: not credentials: no colon"
			},
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"bad credentials beside good ones": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Credentials, r.BadCredentials = good, "two headers" },
			is:     issuer.ErrBadCredentials,
			event: func(e *audit.Event) {
				e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused: not credentials: two headers"
			},
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"a backend that is down": {
			change: func(_ *issuer.Request, c *issuer.Config) { c.Users = people{down: errDown} },
			is:     issuer.ErrUnavailable, isNot: users.ErrRefused,
			event: func(e *audit.Event) {
				e.Outcome, e.Principal, e.Reason = audit.Unavailable, "alice", "cannot say: connection refused"
			},
			result: issuer.Result{Outcome: audit.Unavailable, Service: "registry.local"},
		},
		"the account of somebody else": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Account = "bob" },
			is:     issuer.ErrAccount,
			event: func(e *audit.Event) {
				e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused: account is not who the credentials are"
			},
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"an account that cannot be a name": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Account = "alice\x00" },
			is:     issuer.ErrAccount,
			event: func(e *audit.Event) {
				e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused: account is not who the credentials are"
			},
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"nobody who says to have an account": {
			change: func(r *issuer.Request, _ *issuer.Config) { r.Credentials, r.Account = nil, "alice" },
			is:     issuer.ErrAccount,
			event: func(e *audit.Event) {
				e.Outcome, e.Reason = audit.Refused, "credentials refused: account is not who the credentials are"
			},
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"a backend that knows somebody without a name": {
			change: func(_ *issuer.Request, c *issuer.Config) {
				c.Users = people{known: map[string]users.Principal{"alice": {Kind: users.KindUser}}}
			},
			is:     users.ErrRefused,
			event:  func(e *audit.Event) { e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused" },
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
		"a backend that knows somebody as anonymous": {
			change: func(_ *issuer.Request, c *issuer.Config) {
				c.Users = people{known: map[string]users.Principal{"alice": {Name: "alice", Kind: users.KindAnonymous}}}
			},
			is:     users.ErrRefused,
			event:  func(e *audit.Event) { e.Outcome, e.Principal, e.Reason = audit.Refused, "alice", "credentials refused" },
			result: issuer.Result{Outcome: audit.Refused, Service: "registry.local"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, log := configuration(t, registry, zot)
			config.Policy = decide(func(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
				t.Error("the policy was asked")
				return asked, nil
			})
			r := request(t, "registry.local", "repository:a:push,pull")
			r.Dropped = 2
			c.change(&r, &config)
			result, err := start(t, config).Issue(t.Context(), r)
			if !errors.Is(err, c.is) || c.isNot != nil && errors.Is(err, c.isNot) {
				t.Errorf("error %v, want one that is %q and not %q", err, c.is, c.isNot)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") || strings.Contains(fmt.Sprint(err), "alicealice") {
				t.Errorf("the error holds a password: %v", err)
			}
			if !reflect.DeepEqual(result, c.result) {
				t.Errorf("result %+v, want %+v", result, c.result)
			}
			want := base("")
			want.Asked, want.Dropped = "repository:a:pull,push", 2
			c.event(&want)
			wantEvent(t, log, want)
		})
	}
}

func TestBadCredentialsAreARefusal(t *testing.T) {
	for _, err := range []error{issuer.ErrBadCredentials, issuer.ErrAccount} {
		if !errors.Is(err, users.ErrRefused) {
			t.Errorf("%v is no refusal", err)
		}
	}
}

// What is granted of what is asked, and what is recorded of it.
func TestATokenIsRecordedBeforeItIsHandedOut(t *testing.T) {
	grant := func(scopes ...string) decide {
		return func(users.Principal, netip.Addr, string, time.Time, scope.Set) (scope.Set, []scope.Verdict) {
			set, _, err := scope.Parse(scopes)
			if err != nil {
				t.Error(err)
			}
			return set, []scope.Verdict{
				{Type: "repository", Name: "a", Action: "pull", Granted: true, AllowedBy: []string{"own", "public"}},
				{Type: "repository", Name: "a", Action: "push", AllowedBy: []string{"own"}, DeniedBy: []string{"freeze"}},
				{Type: "repository", Name: "b", Action: "push", DeniedBy: []string{"freeze", "freeze"}},
			}
		}
	}
	for _, c := range []struct{ asked, grants, granted, outcome string }{
		{"repository:a:pull,push", "repository:a:pull,push", "repository:a:pull,push", audit.Granted},
		{"repository:a:pull,push", "repository:a:pull", "repository:a:pull", audit.Partial},
		{"repository:a:pull,push", "", "", audit.Denied},
		{"repository:a:pull repository:b:pull", "repository:b:pull", "repository:b:pull", audit.Partial},
		{"repository:a:*", "repository:a:pull,push", "repository:a:pull,push", audit.Partial},
		{"repository:a:*", "repository:a:*", "repository:a:*", audit.Granted},
		{"repository:a:pull", "repository:a:*", "repository:a:pull", audit.Granted},
		{"", "", "", audit.Granted},
		{"repository:a:", "", "", audit.Granted}, // asks for nothing
	} {
		t.Run(c.asked+" of "+c.grants, func(t *testing.T) {
			config, log := configuration(t, registry)
			config.Policy = grant(c.grants)
			r := request(t, "", c.asked)
			result := issue(t, start(t, config), r)
			if got := result.Granted.String(); got != c.granted || result.Outcome != c.outcome || result.Service != "registry.local" || len(result.Verdicts) != 3 {
				t.Errorf("%+v", result)
			}
			want := base(c.outcome)
			want.Principal, want.Kind, want.Backend = "alice", "user", "htpasswd"
			want.Asked, want.Granted = asked(t, c.asked).String(), c.granted
			want.AllowedBy, want.DeniedBy = []string{"own", "public"}, []string{"freeze"}
			want.TokenID, want.KeyID = part(t, result.Token, 1)["jti"].(string), part(t, result.Token, 0)["kid"].(string)
			wantEvent(t, log, want)
		})
	}
}

func TestNoCredentialsAreTheAnonymousPrincipal(t *testing.T) {
	config, log := configuration(t, registry)
	config.Users = people{down: errDown} // nobody is asked
	var asker users.Principal
	config.Policy = decide(func(who users.Principal, _ netip.Addr, _ string, _ time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
		asker = who
		return asked, nil
	})
	r := request(t, "", "repository:a:pull")
	r.Credentials, r.Grant, r.Client = nil, issuer.GrantAnonymous, netip.Addr{}
	result := issue(t, start(t, config), r)
	if !reflect.DeepEqual(asker, users.Anonymous()) {
		t.Errorf("the policy was asked about %+v", asker)
	}
	want := base(audit.Granted)
	want.Grant, want.Kind, want.Client = "anonymous", "anonymous", ""
	want.Asked, want.Granted = "repository:a:pull", "repository:a:pull"
	want.TokenID, want.KeyID = result.ID, config.Keyring.For("registry.local").ID
	wantEvent(t, log, want)
}

func TestThePolicyIsToldWhoFromWhereForWhatAndWhich(t *testing.T) {
	config, _ := configuration(t, registry, zot)
	var got []any
	config.Policy = decide(func(who users.Principal, from netip.Addr, service string, now time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
		got = []any{who, from, service, asked.String()}
		return nil, nil
	})
	issue(t, start(t, config), request(t, "zot", "repository:a:pull"))
	if want := []any{alice, netip.MustParseAddr("192.0.2.7"), "zot", "repository:a:pull"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestTheAccountMayBeWhoTheCredentialsAreInAnyForm(t *testing.T) {
	config, _ := configuration(t, registry)
	config.Users = people{known: map[string]users.Principal{"ren\u00e9": {Name: "ren\u00e9", Kind: users.KindUser}}}
	i := start(t, config)
	for _, account := range []string{"", "ren\u00e9", "rene\u0301"} {
		r := request(t, "")
		r.Credentials = &users.Credentials{Username: "ren\u00e9", Password: "ren\u00e9ren\u00e9"}
		r.Account = account
		if sub := part(t, issue(t, i, r).Token, 1)["sub"]; sub != "ren\u00e9" {
			t.Errorf("account %+q: sub %q", account, sub)
		}
	}
}

func TestTheSubjectIsWhoTheBackendSaysAndNotWhatWasTyped(t *testing.T) {
	config, log := configuration(t, registry)
	config.Users = people{known: map[string]users.Principal{"ALICE": {Name: "alice@corp", Kind: users.KindUser, Backend: "ldap"}}}
	r := request(t, "")
	r.Credentials = &users.Credentials{Username: "ALICE", Password: "ALICEALICE"}
	sub := part(t, issue(t, start(t, config), r).Token, 1)["sub"]
	if sub != "alice@corp" || log.last(t).Principal != "alice@corp" || log.last(t).Backend != "ldap" {
		t.Errorf("sub %q, recorded %+v", sub, log.last(t))
	}
}

func TestARequestWithoutAServiceMeansTheFirst(t *testing.T) {
	for _, services := range [][]issuer.Service{{registry, zot}, {zot, registry}} {
		config, log := configuration(t, services...)
		result := issue(t, start(t, config), request(t, ""))
		first := services[0].Name
		if aud := part(t, result.Token, 1)["aud"]; aud != first || result.Service != first || log.last(t).Service != first {
			t.Errorf("aud %q, result %q, recorded %q; want %q", aud, result.Service, log.last(t).Service, first)
		}
	}
}

func TestWithoutARecordThereIsNoToken(t *testing.T) {
	config, log := configuration(t, registry)
	i := start(t, config)
	log.err = errors.New("no space left on device")
	result, err := i.Issue(t.Context(), request(t, "", "repository:a:pull"))
	if !errors.Is(err, log.err) || errors.Is(err, users.ErrRefused) {
		t.Errorf("error %v", err)
	}
	if result.Token != "" || result.ID != "" || result.ExpiresIn != 0 || result.Outcome != audit.Failed {
		t.Errorf("result %+v", result)
	}
}

func TestARefusalThatCannotBeRecordedIsStillARefusal(t *testing.T) {
	config, log := configuration(t, registry)
	i := start(t, config)
	log.err = errors.New("no space left on device")
	r := request(t, "")
	r.Credentials.Password = "hunter2"
	result, err := i.Issue(t.Context(), r)
	if !errors.Is(err, users.ErrRefused) || !errors.Is(err, log.err) || result.Outcome != audit.Refused || result.Token != "" {
		t.Errorf("%+v, %v", result, err)
	}
}

// Whatever the policy answers, no token holds what was not asked.
func TestGrantedIsWithinAsked(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	set := func() scope.Set {
		var entries []scope.Access
		for range random.IntN(5) {
			e := scope.Access{Type: pick("repository", "registry"), Name: pick("a", "a/b", ""), Actions: []string{}}
			for range random.IntN(4) {
				e.Actions = append(e.Actions, pick("pull", "push", "delete", "*", "x"))
			}
			entries = append(entries, e)
		}
		return scope.Canonical(entries...)
	}
	var answer scope.Set
	config, log := configuration(t, registry)
	config.Policy = decide(func(users.Principal, netip.Addr, string, time.Time, scope.Set) (scope.Set, []scope.Verdict) {
		return answer, nil
	})
	i := start(t, config)
	tokens := 0
	for range 1000 {
		r := request(t, "")
		r.Asked, answer = set(), set()
		result := issue(t, i, r)
		allowed := map[string][]string{}
		for _, a := range r.Asked {
			allowed[a.Type+":"+a.Name] = a.Actions
		}
		for _, entry := range part(t, result.Token, 1)["access"].([]any) {
			tokens++
			e := entry.(map[string]any)
			resource := fmt.Sprint(e["type"], ":", e["name"])
			for _, action := range e["actions"].([]any) {
				if list := allowed[resource]; !slices.Contains(list, action.(string)) && !slices.Contains(list, "*") {
					t.Fatalf("asked %q, the policy answered %q, the token holds %v", r.Asked, answer, e)
				}
			}
		}
		if log.last(t).Granted != result.Granted.String() || !result.Granted.Within(r.Asked) || !result.Granted.Within(answer) {
			t.Fatalf("asked %q, answered %q, granted %q, recorded %q", r.Asked, answer, result.Granted, log.last(t).Granted)
		}
	}
	if tokens < 100 {
		t.Errorf("only %d entries were granted: the sets hardly meet", tokens)
	}
}

func TestManyRequestsAtOnceGetEachTheirOwn(t *testing.T) {
	config, _ := configuration(t, registry, zot)
	config.Audit = audit.New(discard{})
	i := start(t, config)
	done := make(chan error)
	for n := range 20 {
		go func() {
			name, s := fmt.Sprintf("repository:r%d:pull", n), []string{"registry.local", "zot"}[n%2]
			set, _, _ := scope.Parse([]string{name})
			result, err := i.Issue(t.Context(), issuer.Request{Service: s, Asked: set})
			if err == nil && (result.Granted.String() != name || result.Service != s) {
				err = fmt.Errorf("%s at %s got %+v", name, s, result)
			}
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestAnIssuerNeedsAService(t *testing.T) {
	_, err := issuer.New(issuer.Config{})
	wantError(t, err, "an issuer needs a service")
}

func TestTheRealClockAndRandomnessAreTheDefaults(t *testing.T) {
	k := keys(t.TempDir(), registry)
	k.Now = time.Now
	log := &record{}
	i := start(t, issuer.Config{Services: []issuer.Service{registry}, Keyring: open(t, k), Users: people{}, Policy: decide(all), Audit: log})
	first, second := issue(t, i, issuer.Request{}), issue(t, i, issuer.Request{})
	if first.ID == second.ID || log.last(t).Time.IsZero() {
		t.Errorf("ids %q and %q, time %v", first.ID, second.ID, log.last(t).Time)
	}
}

// An issuer whose tokens its registries would refuse does not start, and says for which service and why.
func TestTheSelfCheckRefusesToStart(t *testing.T) {
	const prefix = `a token for service "registry.local" would be refused by its registry: `
	other := func(change func(s *issuer.Service)) func(c *issuer.Config) {
		return func(c *issuer.Config) { change(&c.Services[0]) }
	}
	at := func(d time.Duration) func(c *issuer.Config) {
		return func(c *issuer.Config) { c.Now = clock(now.Add(d)) }
	}
	for name, c := range map[string]struct {
		change func(c *issuer.Config)
		want   string // beginning
	}{
		"long after the certificates": {at(20 * 365 * day), prefix + "its certificates: x509: certificate has expired or is not yet valid: "},
		"after the leaf":              {at(366 * day), prefix + "its certificates: x509: certificate has expired or is not yet valid: "},
		"before the certificates":     {at(-2 * day), prefix + "its certificates: x509: certificate has expired or is not yet valid: "},
		"no lifetime":                 {other(func(s *issuer.Service) { s.Lifetime = 0 }), prefix + "it is not valid now"},
		"an unknown verifier":         {other(func(s *issuer.Service) { s.Verifier = "trust" }), prefix + `verifier "trust" is not known`},
		"certificates for a JWKS":     {other(func(s *issuer.Service) { s.Verifier = issuer.VerifierJWKS }), prefix + "it carries certificates, which a registry with a JWKS alone refuses"},
		"another algorithm":           {other(func(s *issuer.Service) { s.Algorithm = issuer.RS256 }), prefix + "reading it: "},
		"no randomness":               {func(c *issuer.Config) { c.Random = strings.NewReader("short") }, prefix + "making a token id: unexpected EOF"},
	} {
		config, _ := configuration(t, registry)
		c.change(&config)
		if i, err := issuer.New(config); err == nil || !strings.HasPrefix(err.Error(), c.want) || i != nil {
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.want)
		}
	}
}

func TestTheSelfCheckNamesEveryServiceThatFails(t *testing.T) {
	config, log := configuration(t, registry, zot)
	for n := range config.Services {
		config.Services[n].Lifetime = -time.Hour
	}
	_, err := issuer.New(config)
	wantError(t, err, `a token for service "registry.local" would be refused by its registry: it is not valid now`+"\n"+
		`a token for service "zot" would be refused by its registry: it is not valid now`)
	if len(log.events) != 0 {
		t.Errorf("the self-check was recorded as a decision: %+v", log.events)
	}
}
