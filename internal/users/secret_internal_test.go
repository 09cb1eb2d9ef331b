package users

import (
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

var (
	secretForm = regexp.MustCompile(`^as[ar]t_[0-9A-Za-z]{49}$`)
	hexForm    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func TestASecretHasItsFormAndIsNeverTwice(t *testing.T) {
	seen := map[string]bool{}
	var used [secretDigits]map[byte]bool
	for range 1500 {
		for _, prefix := range []string{accessPrefix, refreshPrefix} {
			token, hash, shown := newSecret(prefix)
			if !secretForm.MatchString(token) || !strings.HasPrefix(token, prefix) || !wellFormed(prefix, token) {
				t.Fatalf("token %q", token)
			}
			if !hexForm.MatchString(hash) || hash != secretHash(token) || strings.Contains(hash, token[len(prefix):]) {
				t.Fatalf("hash %q", hash)
			}
			if shown != token[:11] {
				t.Fatalf("shown %q of %q", shown, token)
			}
			for _, text := range []string{token, hash, token[:len(prefix)+8], token[len(prefix)+secretDigits-8 : len(prefix)+secretDigits]} { // random from the first to the last digit
				if seen[text] {
					t.Fatalf("%q twice", text)
				}
				seen[text] = true
			}
			for i := range secretDigits {
				if used[i] == nil {
					used[i] = map[byte]bool{}
				}
				used[i][token[len(prefix)+i]] = true
			}
		}
	}
	for i := range used {
		if i > 0 && len(used[i]) != 62 { // the first is what is left of 256 bits
			t.Errorf("digit %d has %d values", i, len(used[i]))
		}
	}
}

// 256 bits fit, and no fewer digits would do.
func TestSecretsHave256Bits(t *testing.T) {
	all := new(big.Int).Lsh(big.NewInt(1), 256)
	if room := new(big.Int).Exp(big.NewInt(62), big.NewInt(secretDigits), nil); room.Cmp(all) < 0 {
		t.Error("256 bits do not fit")
	}
	if less := new(big.Int).Exp(big.NewInt(62), big.NewInt(secretDigits-1), nil); less.Cmp(all) >= 0 {
		t.Error("a digit too many")
	}
	for _, n := range []*big.Int{big.NewInt(0), big.NewInt(61), big.NewInt(62), new(big.Int).Sub(all, big.NewInt(1))} {
		text := base62(n, secretDigits)
		if back, ok := new(big.Int).SetString(text, 62); len(text) != secretDigits || !ok || back.Cmp(n) != 0 {
			t.Errorf("%s is %q", n, text)
		}
	}
	if sum := base62(big.NewInt(1<<32-1), sumDigits); len(sum) != sumDigits {
		t.Errorf("a checksum of %d digits", len(sum))
	}
}

// A typing error is told from a token without asking the database.
func TestEveryChangeOfOneCharacterShows(t *testing.T) {
	for _, prefix := range []string{accessPrefix, refreshPrefix} {
		token, _, _ := newSecret(prefix)
		for i := range token {
			for b := range 256 {
				if byte(b) != token[i] && wellFormed(prefix, token[:i]+string([]byte{byte(b)})+token[i+1:]) {
					t.Errorf("%q with %q at %d is well-formed", token, byte(b), i)
				}
			}
			if i > 0 && token[i] != token[i-1] && wellFormed(prefix, token[:i-1]+token[i:i+1]+token[i-1:i]+token[i+1:]) {
				t.Errorf("%q with two characters swapped at %d is well-formed", token, i)
			}
			if wellFormed(prefix, token[:i]) || wellFormed(prefix, token[:i]+token[i+1:]) || wellFormed(prefix, token[:i]+"0"+token[i:]) {
				t.Errorf("%q with one character less or more at %d is well-formed", token, i)
			}
		}
	}
}

func TestOneKindOfTokenIsNotTheOther(t *testing.T) {
	access, _, _ := newSecret(accessPrefix)
	refresh, _, _ := newSecret(refreshPrefix)
	for _, s := range []string{
		"", accessPrefix, refreshPrefix, access + "0", " " + access, access + "\n", strings.ToUpper(access), "ASAT_" + access[5:], "asat-" + access[5:], access + access,
		accessPrefix + refresh[5:], refreshPrefix + access[5:], accessPrefix + strings.Repeat("0", 49), refreshPrefix + strings.Repeat("0", 49), accessPrefix + refresh,
	} {
		if wellFormed(accessPrefix, s) || wellFormed(refreshPrefix, s) {
			t.Errorf("%q is well-formed", s)
		}
	}
	if wellFormed(refreshPrefix, access) || wellFormed(accessPrefix, refresh) {
		t.Error("an access token is a refresh token, or the reverse")
	}
	if !IsAccessToken(access) || !IsAccessToken("asat_") || IsAccessToken(refresh) || IsAccessToken("asat") || IsAccessToken("") || IsAccessToken("x"+access) {
		t.Error("what an access token looks like")
	}
	if !IsRefreshToken(refresh) || IsRefreshToken(access) || IsRefreshToken("") || IsRefreshToken("ASRT_") {
		t.Error("what a refresh token looks like")
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if !regexp.MustCompile(`^[a-z0-9]{10}$`).MatchString(id) || seen[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}

func TestAMarkTellsNothingButTheChange(t *testing.T) {
	const hash = "$2a$04$uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"
	if mark("") != "" || len(mark(hash)) != 32 || mark(hash) == mark(hash+"x") || strings.HasPrefix(secretHash(hash), mark(hash)) {
		t.Errorf("%q", mark(hash))
	}
}

// What passes has the form, passes as one kind only, and nothing beside it passes.
func FuzzSecret(f *testing.F) {
	for _, prefix := range []string{accessPrefix, refreshPrefix} {
		token, _, _ := newSecret(prefix)
		f.Add(token, uint(7), byte('x'))
		f.Add(token[:20], uint(0), byte(0))
	}
	f.Add("", uint(0), byte(0))
	f.Add(accessPrefix+strings.Repeat("\xff", 49), uint(53), byte('0'))
	f.Fuzz(func(t *testing.T, s string, at uint, b byte) {
		for _, prefix := range []string{accessPrefix, refreshPrefix} {
			// The fuzzer does not find a checksum: it is given what it lacks.
			whole := s
			if len(s) > secretDigits {
				whole = s[:secretDigits]
			}
			whole = prefix + whole
			whole += checksum(whole)
			if wellFormed(prefix, whole) != (len(whole) == len(prefix)+secretDigits+sumDigits) {
				t.Fatalf("%q: well-formed is %t", whole, wellFormed(prefix, whole))
			}
			for _, text := range []string{s, whole} {
				if !wellFormed(prefix, text) {
					continue
				}
				if len(text) != 54 || !strings.HasPrefix(text, prefix) || IsAccessToken(text) == IsRefreshToken(text) || wellFormed(accessPrefix, text) == wellFormed(refreshPrefix, text) {
					t.Fatalf("%q is well-formed", text)
				}
				i := int(at % uint(len(text)))
				if text[i] != b && wellFormed(prefix, text[:i]+string([]byte{b})+text[i+1:]) {
					t.Fatalf("%q with %q at %d is well-formed too", text, b, i)
				}
			}
		}
	})
}

func TestRandomTextIsNoToken(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		text := []byte(accessPrefix)
		for range secretDigits + sumDigits {
			text = append(text, digits[r.IntN(len(digits))])
		}
		if wellFormed(accessPrefix, string(text)) {
			t.Fatalf("%s", text)
		}
	}
}
