package document

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
)

// Duration is a time.Duration that is written with a unit, as in 5m.
type Duration time.Duration

// MarshalText writes d as it is read, without trailing zero units: 5m, not 5m0s.
func (d Duration) MarshalText() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// Text is a value that came without a type (from the environment or a flag). It is read as what its key wants: a list
// is separated by commas.
type Text string

// Decode fills into, a pointer to a struct with `yaml` tags, from plain maps. path is where the value stands and where
// tells the place of a path. Nothing is converted but Text and durations. What is absent keeps the value that into has.
func Decode(path string, value, into any, where func(path string) string) error {
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: into, TagName: "yaml", DecodeHook: hook,
		MatchName: func(key, field string) bool { return key == field },
	})
	if err != nil {
		return fmt.Errorf("decoding %T: %w", into, err)
	}
	var faults []*Fault
	add := func(below, problem string) {
		key := path
		if below != "" && !strings.HasPrefix(below, "[") {
			key = Join(path, below)
		} else {
			key += below
		}
		faults = append(faults, &Fault{Where: where(key), Key: key, Problem: problem})
	}
	if err := decoder.Decode(value); err != nil {
		named := leaves(err)
		for _, e := range named {
			add(e.Name(), problem(e.Unwrap()))
		}
		if len(named) == 0 { // of a form that is new to us: refused all the same
			add("", err.Error())
		}
	}
	unknownKeys("", value, reflect.TypeOf(into), add)
	return JoinFaults(faults)
}

// JoinFaults is errors.Join for faults, in the order of files and lines.
func JoinFaults(faults []*Fault) error {
	slices.SortStableFunc(faults, func(a, b *Fault) int { return cmp.Or(compareWhere(a.Where, b.Where), cmp.Compare(a.Key, b.Key)) })
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// Merge joins faults of reading with those that were found afterwards in what could be read, in the order of files and
// lines. What stands where nothing could be read is not judged a second time. Errors that are no faults stay, at the end.
func Merge(reading error, judging ...error) error {
	all, rest := split(reading)
	read := slices.Clone(all)
	judged, more := split(errors.Join(judging...))
	for _, f := range judged {
		if !slices.ContainsFunc(read, func(r *Fault) bool {
			return f.Key == r.Key || r.Key != "" && strings.HasPrefix(f.Key, r.Key+".") || r.Key != "" && strings.HasPrefix(f.Key, r.Key+"[")
		}) {
			all = append(all, f)
		}
	}
	return errors.Join(append([]error{JoinFaults(all)}, append(rest, more...)...)...)
}

// split takes a joined error apart, into faults and what else there is.
func split(err error) (faults []*Fault, rest []error) {
	if err == nil {
		return nil, nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			f, r := split(e)
			faults, rest = append(faults, f...), append(rest, r...)
		}
		return faults, rest
	}
	var f *Fault
	if errors.As(err, &f) {
		return []*Fault{f}, nil
	}
	return nil, []error{err}
}

// compareWhere sorts by file, then by line as a number.
func compareWhere(a, b string) int {
	split := func(s string) (string, int) {
		if i := strings.LastIndexByte(s, ':'); i >= 0 {
			if n, err := strconv.Atoi(s[i+1:]); err == nil {
				return s[:i], n
			}
		}
		return s, 0
	}
	fileA, lineA := split(a)
	fileB, lineB := split(b)
	return cmp.Or(cmp.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

// leaves returns the innermost named errors of a decoding.
func leaves(err error) []*mapstructure.DecodeError {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*mapstructure.DecodeError
		for _, e := range many.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	if one, ok := err.(*mapstructure.DecodeError); ok {
		if inner := leaves(one.Unwrap()); len(inner) > 0 {
			return inner
		}
		return []*mapstructure.DecodeError{one}
	}
	return leaves(errors.Unwrap(err))
}

// typeError is a value of another type than its key wants.
type typeError struct{ got, want string }

func (e *typeError) Error() string {
	switch {
	case e.got == e.want:
		return e.got + ", but too large a one"
	case e.want == "text" && e.got != "a list" && e.got != "a mapping":
		return e.got + " where text belongs; put it in quotes"
	}
	return e.got + " where " + e.want + " belongs"
}

// problem words a decoding error for a reader of YAML, who knows no Go types.
func problem(err error) string {
	var unconvertible *mapstructure.UnconvertibleTypeError
	if errors.As(err, &unconvertible) {
		return (&typeError{describe(reflect.TypeOf(unconvertible.Value)), describe(unconvertible.Expected.Type())}).Error()
	}
	return err.Error()
}

func describe(t reflect.Type) string {
	if t == nil {
		return "nothing"
	}
	switch {
	case t == reflect.TypeFor[Duration]():
		return "a duration such as 5m"
	case t == reflect.TypeFor[Text]():
		return "text"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number with a fraction"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping"
	case reflect.String:
		return "text"
	case reflect.Pointer:
		return describe(t.Elem())
	}
	return "another kind of value"
}

// hook runs before each value is decoded: it reads durations and Text, and refuses what mapstructure would convert.
func hook(from, to reflect.Value) (any, error) {
	value, want := from.Interface(), to.Type()
	for want.Kind() == reflect.Pointer {
		want = want.Elem()
	}
	mismatch := &typeError{describe(from.Type()), describe(want)}
	if text, ok := value.(Text); ok {
		switch {
		case want == reflect.TypeFor[Duration]() || want.Kind() == reflect.String:
			value = string(text)
		case want.Kind() == reflect.Bool:
			b, err := strconv.ParseBool(string(text))
			if err != nil {
				return nil, mismatch
			}
			return b, nil
		case want.Kind() == reflect.Int:
			n, err := strconv.Atoi(string(text))
			if err != nil {
				return nil, mismatch
			}
			return n, nil
		case want == reflect.TypeFor[[]string]():
			list := []string{}
			for item := range strings.SplitSeq(string(text), ",") {
				if item = strings.TrimSpace(item); item != "" {
					list = append(list, item)
				}
			}
			return list, nil
		default:
			return nil, mismatch
		}
	}
	if want == reflect.TypeFor[Duration]() {
		switch v := value.(type) {
		case string:
			d, err := time.ParseDuration(v)
			if err != nil {
				return nil, fmt.Errorf("%q is no duration; would be right: 90s, 5m or 720h", v)
			}
			return Duration(d), nil
		case Duration:
			return v, nil
		case int:
			return nil, fmt.Errorf("a number without a unit; would be right: %ds, %dm or %dh", v, v, v)
		}
		return nil, mismatch
	}
	kind := reflect.TypeOf(value).Kind()
	switch want.Kind() {
	case reflect.Struct, reflect.Map:
		if kind != reflect.Map && kind != reflect.Struct {
			return nil, mismatch
		}
	case reflect.Slice:
		if kind != reflect.Slice {
			return nil, mismatch
		}
	case reflect.Int, reflect.String, reflect.Bool:
		if kind != want.Kind() {
			return nil, mismatch
		}
	}
	return value, nil
}

// unknownKeys finds what a value holds and its type does not. It does not lean on the decoding, which stops looking
// where a value is of another type.
func unknownKeys(path string, value any, t reflect.Type, add func(path, problem string)) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := value.(type) {
	case []any:
		if t.Kind() == reflect.Slice {
			for i, item := range v {
				unknownKeys(fmt.Sprintf("%s[%d]", path, i), item, t.Elem(), add)
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return
		}
		known := map[string]reflect.Type{}
		var names []string
		for field := range t.Fields() {
			if name := field.Tag.Get("yaml"); name != "" && name != "-" {
				known[name] = field.Type
				names = append(names, name)
			}
		}
		for key, below := range v {
			if fieldType, ok := known[key]; ok {
				unknownKeys(Join(path, key), below, fieldType, add)
			} else {
				add(Join(path, key), "unknown key; known here: "+strings.Join(names, ", "))
			}
		}
	}
}
