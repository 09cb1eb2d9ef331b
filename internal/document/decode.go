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
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer {
		return fmt.Errorf("decoding %T: it is no pointer", into)
	}
	d := decoding{where: where, structs: map[reflect.Type]fields{}}
	d.fill(append(make([]byte, 0, 256), path...), value, target.Elem())
	return JoinFaults(d.faults)
}

// decoding is one call of Decode.
type decoding struct {
	where   func(path string) string
	structs map[reflect.Type]fields
	faults  []*Fault
}

// fields are those of a struct, by key.
type fields struct {
	names  []string
	number map[string]int
}

func (d *decoding) fields(t reflect.Type) fields {
	f, ok := d.structs[t]
	if !ok {
		f.number = map[string]int{}
		for i := range t.NumField() {
			if name := t.Field(i).Tag.Get("yaml"); name != "" && name != "-" {
				f.names = append(f.names, name)
				f.number[name] = i
			}
		}
		d.structs[t] = f
	}
	return f
}

func (d *decoding) fault(path []byte, problem string) {
	key := string(path)
	d.faults = append(d.faults, &Fault{Where: d.where(key), Key: key, Problem: problem})
}

// fill sets into from a value, and tells whether it could, unknown keys aside. path has room, as in Document.value.
func (d *decoding) fill(path []byte, value any, into reflect.Value) bool {
	switch {
	case value == nil: // without a value: a fault of the document
		return true
	case into.Kind() == reflect.Pointer:
		target := reflect.New(into.Type().Elem())
		whole := d.fill(path, value, target.Elem())
		if whole {
			into.Set(target)
		}
		return whole
	}
	value, err := convert(value, into.Type())
	if err != nil {
		d.fault(path, err.Error())
		return false
	}
	switch into.Kind() {
	case reflect.Struct:
		return d.fillStruct(path, value.(map[string]any), into)
	case reflect.Map:
		return d.fillMap(path, value.(map[string]any), into)
	case reflect.Slice:
		if list, ok := value.([]any); ok { // and not what Text was made of
			return d.fillList(path, list, into)
		}
	}
	into.Set(reflect.ValueOf(value))
	return true
}

func (d *decoding) fillStruct(path []byte, values map[string]any, into reflect.Value) bool {
	known, whole := d.fields(into.Type()), true
	for key, value := range values {
		below := appendKey(path, key)
		if i, ok := known.number[key]; ok {
			whole = d.fill(below, value, into.Field(i)) && whole
		} else {
			d.fault(below, "unknown key; known here: "+strings.Join(known.names, ", "))
		}
	}
	return whole
}

// fillMap leaves out what cannot be read.
func (d *decoding) fillMap(path []byte, values map[string]any, into reflect.Value) bool {
	m, whole := reflect.MakeMapWithSize(into.Type(), len(values)), true
	for key, value := range values {
		target := reflect.New(into.Type().Elem()).Elem()
		if d.fill(appendKey(path, key), value, target) {
			m.SetMapIndex(reflect.ValueOf(key), target)
		} else {
			whole = false
		}
	}
	into.Set(m)
	return whole
}

func (d *decoding) fillList(path []byte, values []any, into reflect.Value) bool {
	list, whole := reflect.MakeSlice(into.Type(), len(values), len(values)), true
	for i, value := range values {
		whole = d.fill(appendIndex(path, i), value, list.Index(i)) && whole
	}
	into.Set(list)
	return whole
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

// convert returns a value that fits its target: it reads durations and Text, and refuses what is of another type.
func convert(value any, want reflect.Type) (any, error) {
	mismatch := func() (any, error) { return nil, &typeError{describe(reflect.TypeOf(value)), describe(want)} }
	if text, ok := value.(Text); ok {
		switch {
		case want == reflect.TypeFor[Duration]():
			value = string(text)
		case want.Kind() == reflect.String:
			return string(text), nil
		case want.Kind() == reflect.Bool:
			b, err := strconv.ParseBool(string(text))
			if err != nil {
				return mismatch()
			}
			return b, nil
		case want.Kind() == reflect.Int:
			n, err := strconv.Atoi(string(text))
			if err != nil {
				return mismatch()
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
			return mismatch()
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
		return mismatch()
	}
	fits := false
	switch want.Kind() {
	case reflect.Struct, reflect.Map:
		_, fits = value.(map[string]any)
	case reflect.Slice:
		_, fits = value.([]any)
	default:
		fits = reflect.TypeOf(value).AssignableTo(want)
	}
	if !fits {
		return mismatch()
	}
	return value, nil
}
