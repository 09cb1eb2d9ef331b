// Package document reads YAML strictly, and says where in a file each fault stands.
//
// A document is one mapping; an empty file, a second document, a key given twice, a key without a value, an anchor, an
// unknown key, a value of another type and a duration without a unit are all faults. All of them are reported, not the first.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault is one thing that is wrong. As an error it reads "where: key: problem".
type Fault struct {
	Where   string // "file:line", or what else the value came from
	Key     string // as in server.tls.cert_file or rules[3].actions; may be empty
	Problem string // what is wrong; what would be right
}

func (f *Fault) Error() string {
	if f.Key == "" {
		return f.Where + ": " + f.Problem
	}
	return f.Where + ": " + f.Key + ": " + f.Problem
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// Document is a parsed file: plain maps, lists and scalars, and the line of every key path.
type Document struct {
	File   string
	Root   map[string]any // not to be used on its own when there are Faults
	Items  []any          // of a document that is a list
	lines  map[uint64]int // by hash: the key paths of a large document would take up more than the document
	faults []*Fault
}

// seed makes the hash of a key path one that nobody can aim at.
var seed = maphash.MakeSeed()

// Faults are what is wrong with the structure of the document. Decode returns them too.
func (d *Document) Faults() error { return JoinFaults(d.faults) }

// MaxSize bounds a file, in bytes: room for a hundred thousand policy rules.
const MaxSize = 64 << 20

// Read parses a file.
func Read(file string) (*Document, error) { return readWith(file, Parse) }

// ReadList parses a file that is a list.
func ReadList(file string) (*Document, error) { return readWith(file, ParseList) }

func readWith(file string, parse func(file string, data []byte) (*Document, error)) (*Document, error) {
	f, err := os.Open(file)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, &Fault{Where: file, Problem: "cannot be read: " + err.Error()}
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, &Fault{Where: file, Problem: "cannot be read: " + err.Error()}
	}
	return parse(file, data)
}

// Parse parses data; file only names it in faults. An error means that nothing could be read. Faults in the structure (a
// key given twice, an anchor) are kept, so that they are reported together with those that decoding finds.
func Parse(file string, data []byte) (*Document, error) {
	d, root, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	var ok bool
	if d.Root, ok = root.(map[string]any); !ok {
		return nil, d.instead("a mapping of keys to values")
	}
	return d, nil
}

// ParseList is Parse for a document that is a list.
func ParseList(file string, data []byte) (*Document, error) {
	d, root, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	var ok bool
	if d.Items, ok = root.([]any); !ok {
		return nil, d.instead("a list")
	}
	return d, nil
}

// instead is the error of a document that is something else.
func (d *Document) instead(wanted string) error {
	if len(d.faults) > 0 {
		return d.Faults()
	}
	return &Fault{Where: d.Where(""), Problem: "the file must be " + wanted}
}

func parse(file string, data []byte) (*Document, any, error) {
	if len(data) > MaxSize {
		return nil, nil, &Fault{Where: file, Problem: fmt.Sprintf("larger than %d bytes", MaxSize)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var node, second yaml.Node
	switch err := decoder.Decode(&node); {
	case errors.Is(err, io.EOF) || err == nil && len(node.Content) == 0:
		return nil, nil, &Fault{Where: file, Problem: "the file is empty"}
	case err != nil:
		return nil, nil, syntaxFault(file, err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, nil, &Fault{Where: at(file, second.Line), Problem: "a second YAML document; only one is read, remove the line \"---\""}
	} else if !errors.Is(err, io.EOF) {
		return nil, nil, syntaxFault(file, err)
	}
	d := &Document{File: file, lines: map[uint64]int{}}
	root := d.value(make([]byte, 0, 256), node.Content[0].Line, node.Content[0])
	return d, root, nil
}

// syntaxFault turns "yaml: line 3: did not …" into a fault at that line.
func syntaxFault(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, problem, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				return &Fault{Where: at(file, line), Problem: "not YAML: " + problem}
			}
		}
	}
	return &Fault{Where: file, Problem: "not YAML: " + text}
}

func at(file string, line int) string { return file + ":" + strconv.Itoa(line) }

// value turns a node into plain Go values and notes its line: for a value in a mapping, its key's. It lets go of the nodes
// below, which take up several times as much as the values. path has room for the paths below, which are written into it
// one after another.
func (d *Document) value(path []byte, line int, n *yaml.Node) any {
	d.lines[maphash.Bytes(seed, path)] = line
	fault := func(n *yaml.Node, key []byte, problem string) {
		d.faults = append(d.faults, &Fault{Where: at(d.File, n.Line), Key: string(key), Problem: problem})
	}
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		fault(n, path, "anchors and aliases are not read; write the value out")
		return nil
	}
	if n.Style&yaml.TaggedStyle != 0 {
		fault(n, path, "tags are not read; remove "+n.Tag)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, val := n.Content[i], n.Content[i+1]
			n.Content[i], n.Content[i+1] = nil, nil
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				fault(key, path, "a key must be a plain word")
				continue
			}
			child := appendKey(path, key.Value)
			if _, twice := m[key.Value]; twice {
				fault(key, child, fmt.Sprintf("given twice, first on line %d; remove one", d.lines[maphash.Bytes(seed, child)]))
				continue
			}
			m[key.Value] = d.value(child, key.Line, val)
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			n.Content[i] = nil
			list[i] = d.value(appendIndex(path, i), item.Line, item)
		}
		return list
	}
	if n.Tag == "!!str" {
		return n.Value
	}
	var v any
	switch err := n.Decode(&v); {
	case n.Tag == "!!timestamp": // a date is text to us
		return n.Value
	case n.Tag == "!!int" && !decimal.MatchString(n.Value): // 010 is 8 to YAML 1.1 and 10 to 1.2
		fault(n, path, fmt.Sprintf("%q is not a plain decimal number; write it without leading zeros, signs, underscores or a base", n.Value))
	case err != nil:
		fault(n, path, "not a value: "+strings.TrimPrefix(err.Error(), "yaml: "))
	case v == nil:
		fault(n, path, "has no value; give one or remove the key")
	}
	return v
}

// Join appends a key to a path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// appendKey is Join without a string of its own.
func appendKey(path []byte, key string) []byte {
	if len(path) > 0 {
		path = append(path, '.')
	}
	return append(path, key...)
}

// appendIndex appends an item's number to a path.
func appendIndex(path []byte, i int) []byte {
	return append(strconv.AppendInt(append(path, '['), int64(i), 10), ']')
}

// Has tells whether a key path is in the file.
func (d *Document) Has(path string) bool {
	_, ok := d.lines[maphash.String(seed, path)]
	return ok
}

// Where is "file:line" of a key path, or of the nearest key above it that is in the file.
func (d *Document) Where(path string) string {
	for {
		if line, ok := d.lines[maphash.String(seed, path)]; ok {
			return at(d.File, line)
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return d.File
		}
		path = path[:cut]
	}
}

// Fault returns a fault at a key path.
func (d *Document) Fault(path, format string, args ...any) *Fault {
	return &Fault{Where: d.Where(path), Key: path, Problem: fmt.Sprintf(format, args...)}
}

// Decode fills a pointer to a struct with `yaml` tags, or to a list of them, from the whole document.
func (d *Document) Decode(into any) error {
	if d.Items != nil {
		return errors.Join(d.Faults(), Decode("", d.Items, into, d.Where))
	}
	return errors.Join(d.Faults(), Decode("", d.Root, into, d.Where))
}
