package document_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"authserver/internal/document"
)

// messages splits a joined error into its lines.
func messages(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func wantMessages(t *testing.T, err error, want ...string) {
	t.Helper()
	if got := messages(err); !slices.Equal(got, want) {
		t.Errorf("faults:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func parse(t *testing.T, lines ...string) *document.Document {
	t.Helper()
	d, err := document.Parse("f.yaml", []byte(strings.Join(lines, "\n")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestADocumentIsPlainMapsListsAndScalars(t *testing.T) {
	d := parse(t,
		`text: hello`,
		`quoted: "5"`,
		`number: 5`,
		`fraction: 1.5`,
		`yes: true`,
		`date: 2026-01-02`,
		`nested: {list: [a, {b: c}], empty: [], none: {}}`,
	)
	want := map[string]any{
		"text": "hello", "quoted": "5", "number": 5, "fraction": 1.5, "yes": true,
		"date": "2026-01-02", // a date is text
		"nested": map[string]any{
			"list": []any{"a", map[string]any{"b": "c"}}, "empty": []any{}, "none": map[string]any{},
		},
	}
	if !reflect.DeepEqual(d.Root, want) {
		t.Errorf("got  %#v\nwant %#v", d.Root, want)
	}
}

func TestTextThatIsNoDocumentIsRefusedWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":       {"", []string{"f.yaml: the file is empty"}},
		"only comments": {"# nothing\n\n# here\n", []string{"f.yaml: the file is empty"}},
		"a second document": {"a: 1\n---\nb: 2\n",
			[]string{`f.yaml:2: a second YAML document; only one is read, remove the line "---"`}},
		"a broken second document": {"a: 1\n---\nb: @x\n", []string{"f.yaml:3: not YAML: found character that cannot start any token"}},
		"a tab":                    {"a: 1\n\tb: 2\n", []string{"f.yaml:2: not YAML: found a tab character that violates indentation"}},
		"two colons":               {"a: 1\nb: c: d\n", []string{"f.yaml:2: not YAML: mapping values are not allowed in this context"}},
		"not text":                 {"a: \xff\xfe\n", []string{"f.yaml: not YAML: invalid leading UTF-8 octet"}},
		"a list":                   {"- a\n- b\n", []string{"f.yaml:1: the file must be a mapping of keys to values"}},
		"a word":                   {"\nword\n", []string{"f.yaml:2: the file must be a mapping of keys to values"}},
		"a key twice":              {"a: 1\nb: 2\na: 3\n", []string{"f.yaml:3: a: given twice, first on line 1; remove one"}},
		"a nested key twice":       {"o:\n  a: 1\n  a: 2\n", []string{"f.yaml:3: o.a: given twice, first on line 2; remove one"}},
		"a key twice in a list":    {"l:\n  - a: 1\n    a: 2\n", []string{"f.yaml:3: l[0].a: given twice, first on line 2; remove one"}},
		"a key three times": {"a: 1\na: 2\na: 3\n", []string{
			"f.yaml:2: a: given twice, first on line 1; remove one", "f.yaml:3: a: given twice, first on line 1; remove one"}},
		"a key without a value":  {"a: 1\nb:\n", []string{"f.yaml:2: b: has no value; give one or remove the key"}},
		"a key whose value is ~": {"b: ~\n", []string{"f.yaml:1: b: has no value; give one or remove the key"}},
		"an item without a value": {"l:\n  - a\n  -\n", []string{
			"f.yaml:3: l[1]: has no value; give one or remove the key"}},
		"anchor and alias": {"a: &x 1\nb: *x\n", []string{
			"f.yaml:1: a: anchors and aliases are not read; write the value out",
			"f.yaml:2: b: anchors and aliases are not read; write the value out"}},
		"a merged mapping": {"a: {b: 1}\n<<: {c: 2}\n", []string{"f.yaml:2: a key must be a plain word"}},
		"a list as a key":  {"a: 1\n? [b, c]\n: 2\n", []string{"f.yaml:2: a key must be a plain word"}},
		"a value of a wrong tag": {"a: !!int word\n", []string{
			"f.yaml:1: a: tags are not read; remove !!int"}},
		"everything at once": {"a: 1\na: 2\nb:\nc: &x 1\n", []string{
			"f.yaml:2: a: given twice, first on line 1; remove one",
			"f.yaml:3: b: has no value; give one or remove the key",
			"f.yaml:4: c: anchors and aliases are not read; write the value out"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := document.Parse("f.yaml", []byte(c.text))
			if (d == nil) == (err == nil) {
				t.Fatalf("document %v, error %v", d, err)
			}
			if err == nil { // a document that can be read, and must not be used
				err = d.Decode(&struct{ unused int }{})
				if d.Faults() == nil {
					t.Error("no faults in the structure")
				}
				err = errors.Join(slices.DeleteFunc(list(err), func(e error) bool { return strings.Contains(e.Error(), "unknown key") })...)
			}
			wantMessages(t, err, c.want...)
		})
	}
}

func TestAFileLargerThanTheBoundIsRefused(t *testing.T) {
	_, err := document.Parse("f.yaml", make([]byte, document.MaxSize+1))
	wantMessages(t, err, "f.yaml: larger than 67108864 bytes")
}

func TestReadNamesTheFileOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(file, []byte("a: 1\na: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := document.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	wantMessages(t, d.Faults(), file+":2: a: given twice, first on line 1; remove one")

	missing := filepath.Join(dir, "missing.yaml")
	_, err = document.Read(missing)
	wantMessages(t, err, missing+": cannot be read: no such file or directory")

	_, err = document.Read(dir)
	if got, want := fmt.Sprint(err), dir+": cannot be read: "; !strings.HasPrefix(got, want) {
		t.Errorf("reading a folder: %q, want it to begin with %q", got, want)
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.Error("a folder was reported as missing")
	}
}

func TestReadParsesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte("a: {b: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := document.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Where("a.b"), file+":1"; d.File != file || got != want {
		t.Errorf("file %q, a.b at %q, want %q", d.File, got, want)
	}
}

func TestWhereIsTheLineOfTheKeyOrOfTheNearestOneAbove(t *testing.T) {
	d := parse(t,
		`# a comment`,      // 1
		`server:`,          // 2
		`  listen: "x"`,    // 3
		`  tls:`,           // 4
		`    cert_file: c`, // 5
		`services:`,        // 6
		`  - name: a`,      // 7
		`    issuer: b`,    // 8
		`  - name: c`,      // 9
		`list: [x,`,        // 10
		`  y]`,             // 11
	)
	for path, want := range map[string]string{
		"":                         "f.yaml:2",
		"server":                   "f.yaml:2",
		"server.listen":            "f.yaml:3",
		"server.tls.cert_file":     "f.yaml:5",
		"server.tls.key_file":      "f.yaml:4", // absent
		"server.absent.below":      "f.yaml:2",
		"services[0]":              "f.yaml:7",
		"services[0].issuer":       "f.yaml:8",
		"services[1].name":         "f.yaml:9",
		"services[1].issuer":       "f.yaml:9", // absent
		"services[7].name":         "f.yaml:6",
		"list[0]":                  "f.yaml:10",
		"list[1]":                  "f.yaml:11",
		"absent":                   "f.yaml",
		"absent.deeper[3].deepest": "f.yaml",
	} {
		if got := d.Where(path); got != want {
			t.Errorf("Where(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestAFaultReadsPlaceKeyProblem(t *testing.T) {
	d := parse(t, `a:`, `  b: 1`)
	if got, want := d.Fault("a.b", "%d is not %s", 1, "right").Error(), "f.yaml:2: a.b: 1 is not right"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&document.Fault{Where: "f.yaml", Problem: "bad"}).Error(), "f.yaml: bad"; got != want {
		t.Errorf("without a key: %q, want %q", got, want)
	}
}

func TestJoinedFaultsCanBeToldApart(t *testing.T) {
	if err := document.JoinFaults(nil); err != nil {
		t.Errorf("no faults are the error %v", err)
	}
	err := document.JoinFaults([]*document.Fault{{Where: "a", Problem: "x"}, {Where: "b", Key: "k", Problem: "y"}})
	wantMessages(t, err, "a: x", "b: k: y")
	var fault *document.Fault
	if !errors.As(err, &fault) || fault.Problem != "x" {
		t.Errorf("errors.As gives %v", fault)
	}
}

func TestJoinIsADottedPath(t *testing.T) {
	got := map[string]string{"b": document.Join("", "b"), "a.b": document.Join("a", "b"), "a[0].b": document.Join("a[0]", "b")}
	for want := range maps.Keys(got) {
		if got[want] != want {
			t.Errorf("got %q, want %q", got[want], want)
		}
	}
}

// list takes a joined error apart.
func list(err error) []error {
	var errs []error
	for _, f := range document.Faults(err) {
		errs = append(errs, f)
	}
	return errs
}

func TestFaultsOfStructureAndOfContentAreReportedTogether(t *testing.T) {
	d, err := document.Parse("f.yaml", []byte("a: 1\na: 2\nb: x\nc: {d: 1, e: y}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var into struct {
		A int `yaml:"a"`
		B int `yaml:"b"`
		C struct {
			D string `yaml:"d"`
		} `yaml:"c"`
	}
	wantMessages(t, d.Decode(&into),
		"f.yaml:2: a: given twice, first on line 1; remove one",
		"f.yaml:3: b: text where a whole number belongs",
		"f.yaml:4: c.d: a whole number where text belongs; put it in quotes",
		"f.yaml:4: c.e: unknown key; known here: d")
}

// An error of another kind must not get lost among faults: it would let through what is wrong.
func TestMergeKeepsWhatIsNoFault(t *testing.T) {
	fault := func(key string) error { return &document.Fault{Where: "f:1", Key: key, Problem: "bad"} }
	odd, other := errors.New("odd"), errors.New("other")
	for name, c := range map[string]struct {
		reading error
		judging []error
		want    string
	}{
		"nothing":                 {nil, nil, "<nil>"},
		"only an odd one":         {odd, nil, "odd"},
		"only an odd judgement":   {nil, []error{nil, odd}, "odd"},
		"beside faults":           {errors.Join(odd, fault("b")), []error{fault("a"), other}, "f:1: a: bad\nf:1: b: bad\nodd\nother"},
		"a consequence is no new": {fault("a"), []error{fault("a.b"), fault("a[0]"), fault("ab")}, "f:1: a: bad\nf:1: ab: bad"},
	} {
		if got := fmt.Sprint(document.Merge(c.reading, c.judging...)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
