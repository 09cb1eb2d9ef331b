package issuer

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"authserver/internal/audit"
	"authserver/internal/scope"
	"authserver/internal/users"
)

// everybody is an authenticator, a policy and a record that have no doubts.
type everybody struct{}

func (everybody) Authenticate(context.Context, users.Credentials) (users.Principal, error) {
	return users.Principal{Name: "admin", Kind: users.KindUser}, nil
}

func (everybody) Decide(_ users.Principal, _ netip.Addr, _ string, _ time.Time, asked scope.Set) (scope.Set, []scope.Verdict) {
	return asked, nil
}

func (everybody) Record(audit.Event) error { return nil }

// Whatever is asked about: only what was signed here, as it was signed, for a service of ours, in its time, is active. What is
// said of it then is what was signed.
func FuzzIntrospect(f *testing.F) {
	services := []Service{
		{Name: "chain", Issuer: "auth", Verifier: VerifierChain, Algorithm: ES256, Lifetime: 5 * time.Minute},
		{Name: "pinned", Issuer: "https://pulp.example.com/token/", Verifier: VerifierPinned, Algorithm: RS256, Lifetime: 5 * time.Minute},
		{Name: "jwks", Issuer: "auth", Verifier: VerifierJWKS, Algorithm: EdDSA, Lifetime: 5 * time.Minute},
	}
	at := fuzzTime
	open := func() *Keyring {
		ring, err := OpenKeyring(KeyConfig{DataDir: f.TempDir(), Name: "auth", Services: services, RotateEvery: time.Hour, Now: func() time.Time { return fuzzTime }})
		if err != nil {
			f.Fatal(err)
		}
		return ring
	}
	ring, foreign := open(), open()
	i, err := New(Config{Services: services, Keyring: ring, Users: everybody{}, Policy: everybody{}, Audit: everybody{}, Now: func() time.Time { return at }})
	if err != nil {
		f.Fatal(err)
	}
	stranger := map[string]crypto.Signer{}
	for _, s := range services {
		if stranger[s.Name], err = readPrivateKey(foreign.For(s.Name).Source); err != nil {
			f.Fatal(err)
		}
	}
	var own, others []string
	for _, s := range services {
		granted := scope.Canonical(scope.Access{Type: "repository", Name: "alice/img", Actions: []string{"pull", "push"}}, scope.Access{Type: "registry", Name: "catalog", Actions: []string{"*"}})
		for _, r := range []*Keyring{ring, foreign} {
			token, _, err := mint(s, r.For(s.Name), "alice", granted, fuzzTime, i.random)
			if err != nil {
				f.Fatal(err)
			}
			if r == ring {
				own = append(own, token)
			} else {
				others = append(others, token)
			}
		}
	}
	for n := range uint8(3) {
		f.Add(own[n], n, uint8(0), uint(0), byte('x'), int64(0))
		f.Add("", n, uint8(1), uint(len(own[n])-1), byte('A'), int64(0))
		f.Add("", n, uint8(1), uint(len(own[n])-1), byte('\n'), int64(299))
		f.Add(fmt.Sprintf(`{"alg":%q,"kid":%q}`, services[n].Algorithm, ring.For(services[n].Name).ID), n, uint8(2), uint(0), byte(0), int64(0))
		f.Add(fmt.Sprintf(`{"iss":%q,"sub":"admin","aud":%q,"exp":%d,"nbf":0,"iat":0,"access":[]}`, services[n].Issuer, services[n].Name, fuzzTime.Unix()+300), n, uint8(3), uint(0), byte(0), int64(0))
		f.Add(fmt.Sprintf(`{"alg":"none","kid":%q}`, ring.For(services[n].Name).ID), n, uint8(2), uint(0), byte(0), int64(300))
		f.Add(fmt.Sprintf(`{"iss":%q,"sub":"admin","aud":%q,"exp":%d,"access":[]}`, services[n].Issuer, services[n].Name, fuzzTime.Unix()+300), n, uint8(4), uint(0), byte(0), int64(0))
		f.Add(strings.SplitN(own[n], ".", 2)[0], n, uint8(5), uint(0), byte(0), int64(-31))
	}
	f.Add(`{"alg":"HS256","typ":"JWT"}`, uint8(0), uint8(2), uint(0), byte(0), int64(0))
	f.Add("..", uint8(0), uint8(0), uint(0), byte(0), int64(0))
	f.Add(`{"payload":"e30","protected":"e30","signature":""}`, uint8(0), uint8(0), uint(0), byte(0), int64(0))
	f.Fuzz(func(t *testing.T, text string, n, how uint8, where uint, b byte, after int64) {
		n %= 3
		at = fuzzTime.Add(time.Duration(after%1000) * time.Second)
		parts := strings.Split(own[n], ".")
		token := text
		switch encoded := base64.RawURLEncoding.EncodeToString([]byte(text)); how % 6 {
		case 1: // one byte is another, or text stands in between
			k := int(where % uint(len(own[n])))
			token = own[n][:k] + string([]byte{b}) + text + own[n][k+1:]
		case 2: // a header of the asker's choice
			token = encoded + "." + parts[1] + "." + parts[2]
		case 3: // claims of the asker's choice
			token = parts[0] + "." + encoded + "." + parts[2]
		case 4: // signed by somebody else, with our kid and our certificates
			options := &jose.SignerOptions{}
			var x5c []string
			for _, c := range ring.For(services[n].Name).Chain {
				x5c = append(x5c, base64.StdEncoding.EncodeToString(c.Raw))
			}
			if x5c != nil {
				options = options.WithHeader("x5c", x5c)
			}
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(services[n].Algorithm), Key: jose.JSONWebKey{Key: stranger[services[n].Name], KeyID: ring.For(services[n].Name).ID}}, options)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := signer.Sign([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if token, err = signed.CompactSerialize(); err != nil {
				t.Fatal(err)
			}
		case 5: // parts of others
			k := int(where) % 3
			parts[k] = strings.Split(append(own, others...)[b%6], ".")[k]
			token = strings.Join(parts, ".") + text
		}
		answer, err := i.Introspect(t.Context(), Request{Credentials: &users.Credentials{Username: "admin", Password: "x"}}, token)
		if err != nil {
			t.Fatal(err)
		}
		good := -1
		for k := range own {
			if token == own[k] {
				good = k
			}
		}
		inTime := !at.Before(fuzzTime.Add(-skew)) && at.Before(fuzzTime.Add(5*time.Minute))
		if !answer.Active {
			if good >= 0 && inTime {
				t.Fatalf("%s is not active", own[good])
			}
			if !reflect.DeepEqual(answer, Introspection{}) {
				t.Fatalf("of what is not active: %+v", answer)
			}
			return
		}
		// Base64 has more than one way to write the same bytes; what was signed is the same.
		var said, signed claims
		signedBy := -1
		for k := range own {
			payload, err := base64.RawURLEncoding.DecodeString(strings.Split(own[k], ".")[1])
			if err == nil {
				err = json.Unmarshal(payload, &signed)
			}
			if err != nil {
				t.Fatal(err)
			}
			if signed.ID == answer.ID {
				signedBy = k
				break
			}
		}
		said = claims{answer.Issuer, answer.Subject, answer.Audience, answer.Expiry, answer.NotBefore, answer.IssuedAt, answer.ID, answer.Access}
		if signedBy < 0 || !inTime || !reflect.DeepEqual(said, signed) || answer.Username != signed.Subject || answer.Scope == nil || *answer.Scope != signed.Access.String() || answer.Audience != services[signedBy].Name {
			t.Fatalf("%q is active %v after: %+v", token, at.Sub(fuzzTime), answer)
		}
	})
}
