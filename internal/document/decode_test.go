package document_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"authserver/internal/document"
)

type target struct {
	Text     string            `yaml:"text"`
	Number   int               `yaml:"number"`
	Yes      bool              `yaml:"yes"`
	Wait     document.Duration `yaml:"wait"`
	List     []string          `yaml:"list"`
	Inner    inner             `yaml:"inner"`
	Inners   []inner           `yaml:"inners"`
	Optional *inner            `yaml:"optional"`
	Maybe    *int              `yaml:"maybe"`
	Free     map[string]any    `yaml:"free"`
}

type inner struct {
	Name string            `yaml:"name"`
	Wait document.Duration `yaml:"wait"`
}

func place(path string) string { return "at " + path }

func decode(value map[string]any) (target, error) {
	var into target
	err := document.Decode("", value, &into, place)
	return into, err
}

func TestEveryTypeIsTakenAsItIsWritten(t *testing.T) {
	d := parse(t,
		`text: hello`, `number: 5`, `yes: true`, `wait: 1h30m`, `list: [a, b]`,
		`inner: {name: x, wait: 90s}`, `inners: [{name: y}, {wait: 5m}]`, `optional: {name: z}`, `maybe: 7`, `free: {any: [1, two]}`,
	)
	var got target
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	seven := 7
	want := target{
		Text: "hello", Number: 5, Yes: true, Wait: document.Duration(90 * time.Minute), List: []string{"a", "b"},
		Inner:    inner{"x", document.Duration(90 * time.Second)},
		Inners:   []inner{{Name: "y"}, {Wait: document.Duration(5 * time.Minute)}},
		Optional: &inner{Name: "z"}, Maybe: &seven, Free: map[string]any{"any": []any{1, "two"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAbsentKeysKeepTheirDefaults(t *testing.T) {
	into := target{Text: "default", Number: 3, Inner: inner{Name: "kept", Wait: 1}, List: []string{"kept"}}
	err := document.Decode("", map[string]any{"number": 4, "inner": map[string]any{"wait": "2s"}}, &into, place)
	if err != nil {
		t.Fatal(err)
	}
	if into.Text != "default" || into.Number != 4 || into.Inner.Name != "kept" || time.Duration(into.Inner.Wait) != 2*time.Second ||
		len(into.List) != 1 {
		t.Errorf("got %+v", into)
	}
}

func TestAListReplacesItsDefault(t *testing.T) {
	into := target{List: []string{"a", "b", "c"}}
	if err := document.Decode("", map[string]any{"list": []any{"x"}}, &into, place); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(into.List, []string{"x"}) {
		t.Errorf("got %q", into.List)
	}
}

// The written type by the wanted type: what is not on the diagonal is refused in words of YAML.
func TestNothingIsConverted(t *testing.T) {
	written := map[string]any{
		"text":                     "word",
		"a whole number":           5,
		"a number with a fraction": 1.5,
		"true or false":            true,
		"a list":                   []any{"a"},
		"a mapping":                map[string]any{"name": "a"},
	}
	wanted := map[string]string{
		"text": "text", "number": "a whole number", "yes": "true or false", "list": "a list", "inner": "a mapping",
		"inners": "a list", "free": "a mapping", "wait": "a duration such as 5m", "optional": "a mapping", "maybe": "a whole number",
	}
	for key, want := range wanted {
		for got, value := range written {
			if got == want || key == "inners" && got == "a list" {
				continue
			}
			problem := got + " where " + want + " belongs"
			switch {
			case want == "text" && got != "a list" && got != "a mapping":
				problem += "; put it in quotes"
			case key == "wait" && got == "text":
				problem = `"word" is no duration; would be right: 90s, 5m or 720h`
			case key == "wait" && got == "a whole number":
				problem = "a number without a unit; would be right: 5s, 5m or 5h"
			}
			_, err := decode(map[string]any{key: value})
			if want := fmt.Sprintf("at %s: %s: %s", key, key, problem); fmt.Sprint(err) != want {
				t.Errorf("%s for %s:\n got %v\nwant %s", got, key, err, want)
			}
		}
	}
}

func TestItemsOfAListAreCheckedOneByOne(t *testing.T) {
	_, err := decode(map[string]any{"list": []any{"a", 5, "c", true}, "inners": []any{"word", map[string]any{"name": 1}}})
	wantMessages(t, err,
		"at inners[0]: inners[0]: text where a mapping belongs",
		"at inners[1].name: inners[1].name: a whole number where text belongs; put it in quotes",
		"at list[1]: list[1]: a whole number where text belongs; put it in quotes",
		"at list[3]: list[3]: true or false where text belongs; put it in quotes",
	)
}

func TestDurationsNeedAUnit(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "-1s": -time.Second} {
		got, err := decode(map[string]any{"wait": text})
		if err != nil || time.Duration(got.Wait) != want {
			t.Errorf("%q: %v, %v", text, time.Duration(got.Wait), err)
		}
	}
	for _, text := range []string{"", "5", "5 m", "5d", "m", "five"} {
		_, err := decode(map[string]any{"wait": text})
		wantMessages(t, err, fmt.Sprintf("at wait: wait: %q is no duration; would be right: 90s, 5m or 720h", text))
	}
}

func TestADurationThatIsOneAlreadyIsKept(t *testing.T) {
	got, err := decode(map[string]any{"wait": document.Duration(time.Minute)})
	if err != nil || time.Duration(got.Wait) != time.Minute {
		t.Errorf("%v, %v", time.Duration(got.Wait), err)
	}
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", 720 * time.Hour: "720h", 90 * time.Second: "1m30s", time.Hour + 30*time.Minute: "1h30m",
		time.Hour + 10*time.Minute: "1h10m", 10 * time.Minute: "10m", 10 * time.Second: "10s", 0: "0s", 20 * time.Hour: "20h",
		time.Hour + 5*time.Second: "1h0m5s", 250 * time.Millisecond: "250ms", -time.Hour: "-1h",
	} {
		text, err := document.Duration(d).MarshalText()
		if err != nil || string(text) != want {
			t.Errorf("%v is written %q, want %q (%v)", d, text, want, err)
		}
		back, err := decode(map[string]any{"wait": string(text)})
		if err != nil || time.Duration(back.Wait) != d {
			t.Errorf("%q is read back as %v (%v)", text, time.Duration(back.Wait), err)
		}
	}
}

func TestTextBecomesWhatItsKeyWants(t *testing.T) {
	got, err := decode(map[string]any{
		"text": document.Text("5"), "number": document.Text("-12"), "yes": document.Text("true"), "wait": document.Text("5m"),
		"list": document.Text("a, b ,,c"), "maybe": document.Text("7"), "inner": map[string]any{"name": document.Text("x,y")},
	})
	if err != nil {
		t.Fatal(err)
	}
	seven := 7
	want := target{Text: "5", Number: -12, Yes: true, Wait: document.Duration(5 * time.Minute), List: []string{"a", "b", "c"},
		Maybe: &seven, Inner: inner{Name: "x,y"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEmptyTextIsAnEmptyListAndAnEmptyWord(t *testing.T) {
	into := target{Text: "default", List: []string{"default"}}
	err := document.Decode("", map[string]any{"text": document.Text(""), "list": document.Text("")}, &into, place)
	if err != nil || into.Text != "" || into.List == nil || len(into.List) != 0 {
		t.Errorf("%+v, %v", into, err)
	}
}

func TestTextThatDoesNotReadAsItsKeyWantsIsRefused(t *testing.T) {
	for key, want := range map[string]string{
		"number": "text where a whole number belongs",
		"maybe":  "text where a whole number belongs",
		"yes":    "text where true or false belongs",
		"wait":   `"perhaps" is no duration; would be right: 90s, 5m or 720h`,
		"inner":  "text where a mapping belongs",
		"inners": "text where a list belongs",
		"free":   "text where a mapping belongs",
	} {
		_, err := decode(map[string]any{key: document.Text("perhaps")})
		wantMessages(t, err, "at "+key+": "+key+": "+want)
	}
	for _, text := range []string{"5", ""} { // no unit, and nothing
		_, err := decode(map[string]any{"wait": document.Text(text)})
		wantMessages(t, err, fmt.Sprintf("at wait: wait: %q is no duration; would be right: 90s, 5m or 720h", text))
	}
}

func TestUnknownKeysAreListedWithTheKnownOnesOfTheirPlace(t *testing.T) {
	top := "; known here: text, number, yes, wait, list, inner, inners, optional, maybe, free"
	_, err := decode(map[string]any{
		"tex": "x", "Text": "x", // keys are compared byte by byte
		"inner":    map[string]any{"nam": "x", "deep": map[string]any{"er": 1}},
		"inners":   []any{map[string]any{}, map[string]any{"nam": "x"}},
		"optional": map[string]any{"nam": "x"},
	})
	wantMessages(t, err,
		"at Text: Text: unknown key"+top,
		"at inner.deep: inner.deep: unknown key; known here: name, wait",
		"at inner.nam: inner.nam: unknown key; known here: name, wait",
		"at inners[1].nam: inners[1].nam: unknown key; known here: name, wait",
		"at optional.nam: optional.nam: unknown key; known here: name, wait",
		"at tex: tex: unknown key"+top,
	)
}

func TestKeysInAFreeMappingAreAllKnown(t *testing.T) {
	got, err := decode(map[string]any{"free": map[string]any{"x": 1, "y": map[string]any{"z": "w"}}})
	if err != nil || len(got.Free) != 2 {
		t.Errorf("%v, %v", got.Free, err)
	}
}

func TestFaultsBelowAPathCarryIt(t *testing.T) {
	var into inner
	err := document.Decode("users[2]", map[string]any{"nam": "x"}, &into, place)
	wantMessages(t, err, "at users[2].nam: users[2].nam: unknown key; known here: name, wait")
	err = document.Decode("users[2]", map[string]any{"name": 5, "wait": 5}, &into, place)
	wantMessages(t, err,
		"at users[2].name: users[2].name: a whole number where text belongs; put it in quotes",
		"at users[2].wait: users[2].wait: a number without a unit; would be right: 5s, 5m or 5h",
	)
}

func TestAWholeValueOfAWrongTypeIsAFaultAtItsPath(t *testing.T) {
	var into inner
	err := document.Decode("users[2]", "word", &into, place)
	wantMessages(t, err, "at users[2]: users[2]: text where a mapping belongs")
	var list []string
	err = document.Decode("list", []any{"a", 5}, &list, place)
	wantMessages(t, err, "at list[1]: list[1]: a whole number where text belongs; put it in quotes")
}

func TestFaultsAreSortedByFileThenByLineAsANumber(t *testing.T) {
	var lines []string
	for i := range 12 {
		lines = append(lines, fmt.Sprintf("unknown%d: x", i))
	}
	d := parse(t, lines...)
	err := d.Decode(&inner{})
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("f.yaml:%d: unknown%d: unknown key; known here: name, wait", i+1, i))
	}
	wantMessages(t, err, want...)

	where := map[string]string{"a": "z.yaml:1", "b": "f.yaml:10", "c": "f.yaml:9", "d": "environment B", "e": "environment A"}
	err = document.Decode("", map[string]any{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, &inner{}, func(p string) string { return where[p] })
	var got []string
	for _, m := range messages(err) {
		got = append(got, strings.SplitAfterN(m, ": ", 2)[0])
	}
	if order := strings.Join(got, ""); order != "environment A: environment B: f.yaml:9: f.yaml:10: z.yaml:1: " {
		t.Errorf("order: %s", order)
	}
}

func TestDecodingIntoWhatIsNoPointerIsAnError(t *testing.T) {
	if err := document.Decode("", map[string]any{}, inner{}, place); err == nil || !strings.HasPrefix(err.Error(), "decoding document_test.inner: ") {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: what is read has its places, and is what other words for the same are read as.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a: 5m\nb: -3\nc: 0.5\nd: true\ne: \"1\"\nf: |\n  x\n  y\n", "\"a.b\": {\"c[0]\": [[1], {}]}\n\"\": x\n", "a: 010\nb: 1_000\nc: 0x1\nd: ~\ne: .inf\n", "a: \"\\0\\u2028\\xff\"\n", "<<: {a: 1}\na: 2\n", "%YAML 1.1\n---\na: yes\n", "a: 1\n", "a: {b: [c, {d: e}]}\n", "a: &x 1\nb: *x\n", "a: 1\n---\nb: 2\n", "? [a]\n: b\n", "a: 2026-01-02\n", "- a\n", "a: !!binary aGk=\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := document.Parse("f.yaml", data)
		if (d == nil) == (err == nil) {
			t.Fatalf("document %v, error %v", d, err)
		}
		if err != nil {
			for _, m := range messages(err)[:1] {
				if !strings.HasPrefix(m, "f.yaml:") {
					t.Fatalf("a fault without its file: %q", m)
				}
			}
			return
		}
		var into target
		_ = d.Decode(&into) // no panic
		if d.Faults() != nil {
			for _, m := range messages(d.Faults())[:1] { // a key may hold a line break
				if rest, ok := strings.CutPrefix(m, "f.yaml:"); !ok || rest[0] < '1' || rest[0] > '9' {
					t.Fatalf("a fault without its line: %q", m)
				}
			}
			return
		}
		text, err := yaml.Marshal(d.Root)
		if err != nil {
			t.Fatal(err)
		}
		again, err := document.Parse("f.yaml", text)
		if err != nil || again.Faults() != nil || fmt.Sprint(again.Root) != fmt.Sprint(d.Root) {
			t.Fatalf("%v, in other words %+v, %v\n%s", d.Root, again, err, text)
		}
	})
}

// A fault below a mapping with keys of the writer's own stands at its key, whatever the key is.
func TestFaultsInMapsHaveTheirLines(t *testing.T) {
	d := parse(t, `groups:`, `  ok: [a]`, `  web: word`, `  a.b: [1]`, `  "c[0]": {}`)
	var into struct {
		Groups map[string][]string `yaml:"groups"`
	}
	err := d.Decode(&into)
	for _, want := range []string{":3: groups.web: ", ":4: groups.a.b[0]: ", ":5: groups.c[0]: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
