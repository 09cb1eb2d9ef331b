package document_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"authserver/internal/document"
)

func TestNumbersThatReadersOfYAMLDifferInAreRefused(t *testing.T) {
	for _, number := range []string{"010", "0x10", "0o17", "0b1", "1_000", "+5", "-010"} {
		wantMessages(t, parse(t, "a: "+number).Faults(), fmt.Sprintf("f.yaml:1: a: %q is not a plain decimal number; write it without leading zeros, signs, underscores or a base", number))
	}
	for number, want := range map[string]int{"0": 0, "10": 10, "-5": -5} {
		if got := parse(t, "a: "+number).Root["a"]; got != want {
			t.Errorf("%s is read as %v", number, got)
		}
	}
	if got := parse(t, `a: "010"`).Root["a"]; got != "010" { // quoted, it is text
		t.Errorf("text is read as %v", got)
	}
}

func TestTagsAreNotRead(t *testing.T) {
	wantMessages(t, parse(t, "a: !!str 5", "b: !mine {c: 1}", "d: [!!int \"1\"]").Faults(),
		"f.yaml:1: a: tags are not read; remove !!str",
		"f.yaml:2: b: tags are not read; remove !mine",
		"f.yaml:3: d[0]: tags are not read; remove !!int",
	)
}

func TestADocumentHasTheKeysThatWereWritten(t *testing.T) {
	d := parse(t, `a: {b: 0}`, `l: [{c: ""}]`)
	for path, want := range map[string]bool{"a": true, "a.b": true, "l[0]": true, "l[0].c": true, "b": false, "a.c": false, "l[1]": false, "l[0].d": false} {
		if d.Has(path) != want {
			t.Errorf("Has(%q) = %v", path, !want)
		}
	}
}

func TestFaultsAreFoundHoweverDeepTheyAreJoined(t *testing.T) {
	fault := func(key string) *document.Fault { return &document.Fault{Where: "f", Key: key, Problem: "bad"} }
	err := errors.Join(fault("a"), fmt.Errorf("beside: %w", fault("b")), errors.New("no fault"),
		errors.Join(document.JoinFaults([]*document.Fault{fault("c"), fault("d")}), nil))
	var keys []string
	for _, f := range document.Faults(err) {
		keys = append(keys, f.Key)
	}
	if !slices.Equal(keys, []string{"a", "b", "c", "d"}) {
		t.Errorf("found %q", keys)
	}
	if found := document.Faults(nil); len(found) != 0 {
		t.Errorf("no error holds %v", found)
	}
}
