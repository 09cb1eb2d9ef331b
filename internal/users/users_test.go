package users_test

import (
	"errors"
	"strings"
	"testing"

	"authserver/internal/users"
)

func TestNamesAreCanonical(t *testing.T) {
	for given, want := range map[string]string{
		"alice":                        "alice",
		"Alice":                        "Alice", // case is kept
		"o'brien@example.com":          "o'brien@example.com",
		"two words":                    "two words",
		"*":                            "*",
		"a/b":                          "a/b",
		"#alice":                       "#alice",
		"ren\u00e9":                    "ren\u00e9",
		"rene\u0301":                   "ren\u00e9", // NFD
		"\u1112\u1161\u11ab":           "\ud55c",
		"\u212b":                       "\u00c5",   // ångström sign
		"\ufb01":                       "\ufb01",   // a ligature stays what it is: NFC, not NFKC
		"a\u00a0b":                     "a\u00a0b", // only at the ends is a blank refused
		strings.Repeat("a", 255):       strings.Repeat("a", 255),
		strings.Repeat("e\u0301", 127): strings.Repeat("\u00e9", 127), // 381 bytes, 254 in NFC
	} {
		got, err := users.ParseName(given)
		if err != nil || got != want {
			t.Errorf("ParseName(%+q) = %+q, %v; want %+q", given, got, err, want)
		}
		if again, err := users.ParseName(got); err != nil || again != got {
			t.Errorf("the canonical form %+q is not its own: %+q, %v", got, again, err)
		}
	}
}

func TestNamesThatCannotBeAreRefusedWithTheRule(t *testing.T) {
	const control = "a user name cannot hold control or format characters"
	const blank = "a user name cannot begin or end with a blank"
	const long = "a user name has at most 255 bytes"
	for given, want := range map[string]string{
		"":                             "a user name cannot be empty",
		"a:b":                          "a user name cannot hold a colon",
		":":                            "a user name cannot hold a colon",
		"a\nb":                         control,
		"a\x00":                        control,
		"a\tb":                         control,
		"\x7f":                         control,
		"a\u0085b":                     control,
		"a\u200bb":                     control, // zero width space
		"a\u202eb":                     control, // right-to-left override
		"\ufeffalice":                  control, // byte order mark
		"a\u2028b":                     control, // line separator
		"a\u2029b":                     control,
		" alice":                       blank,
		"alice ":                       blank,
		" ":                            blank,
		"alice\u00a0":                  blank,
		"\u3000alice":                  blank,
		"a\xff":                        "a user name must be UTF-8",
		"\xed\xa0\x80":                 "a user name must be UTF-8",
		strings.Repeat("a", 256):       long,
		strings.Repeat("\u00e9", 128):  long,
		strings.Repeat("e\u0301", 500): long,
		strings.Repeat("\xff", 1000):   long,
	} {
		got, err := users.ParseName(given)
		if err == nil || err.Error() != want || got != "" {
			t.Errorf("ParseName(%+q) = %+q, %v; want %s", given, got, err, want)
		}
	}
}

func TestAnonymousHasNoNameAndIsNoUser(t *testing.T) {
	a := users.Anonymous()
	if a.Name != "" || a.Kind != users.KindAnonymous || len(a.Groups) != 0 || a.Backend != "" {
		t.Errorf("%+v", a)
	}
}

func TestAnUnknownUserIsARefusal(t *testing.T) {
	if !errors.Is(users.ErrUnknown, users.ErrRefused) {
		t.Error("ErrUnknown is not ErrRefused")
	}
	if errors.Is(users.ErrRefused, users.ErrUnknown) {
		t.Error("every refusal is ErrUnknown")
	}
}
