package doctor

import (
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// scalar is text as it stands in YAML: plain where that reads back as the same.
func scalar(text string) string {
	var read struct{ K any }
	if err := yaml.Unmarshal([]byte("k: "+text), &read); err == nil && read.K == text {
		return text
	}
	return strconv.Quote(text)
}

// types are the keys of auth.
func types(document *yaml.Node) []string {
	if len(document.Content) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(fields(fields(document.Content[0])["auth"].value)))
}

// text is that of a scalar; null is none.
func text(node *yaml.Node) string {
	if node = resolved(node); node == nil || node.ShortTag() == "!!null" {
		return ""
	}
	return node.Value
}

// A field is a key of a mapping, and its value.
type field struct {
	key, value *yaml.Node
	// It stands before << ; and that has it too, with another value. YAML says that it counts, and for distribution what is merged does.
	early, twice bool
}

// fields are those of a mapping and of what it merges (<<), which gives way to what the mapping says itself.
func fields(node *yaml.Node) map[string]field {
	found, seen := map[string]field{}, map[*yaml.Node]bool{} // an anchor may stand within itself
	var collect func(*yaml.Node)
	collect = func(node *yaml.Node) {
		if node = resolved(node); node == nil || seen[node] {
			return
		}
		seen[node] = true
		if node.Kind == yaml.SequenceNode && len(seen) > 1 { // of what is merged
			for _, item := range node.Content {
				collect(item)
			}
		}
		if node.Kind != yaml.MappingNode {
			return
		}
		own := map[string]field{} // the last of two wins
		for i := 0; i+1 < len(node.Content); i += 2 {
			own[node.Content[i].Value] = field{key: node.Content[i], value: node.Content[i+1]}
		}
		merge := own["<<"]
		if merge.key != nil && merge.key.ShortTag() != "!!merge" {
			merge = field{}
		} else {
			delete(own, "<<")
		}
		for name, f := range own {
			first, ok := found[name]
			if !ok {
				f.early = merge.key != nil && before(f.key, merge.key)
				found[name] = f
			} else if first.early && text(first.value) != text(f.value) {
				first.twice = true
				found[name] = first
			}
		}
		collect(merge.value)
	}
	collect(node)
	return found
}

// mostFields bounds what all mappings of a file have, with what they merge: a small file can merge without end.
const mostFields = 100_000

// manyFields tells whether there are more than that.
func manyFields(documents []yaml.Node) bool {
	counted, total := map[*yaml.Node]int{}, 0
	var count func(*yaml.Node) int
	count = func(node *yaml.Node) int {
		if node = resolved(node); node == nil {
			return 0
		}
		if n, ok := counted[node]; ok {
			return n
		}
		counted[node] = 0 // it may stand within itself
		n := 0
		switch node.Kind {
		case yaml.SequenceNode:
			for _, item := range node.Content {
				n += count(item)
			}
		case yaml.MappingNode:
			n = len(node.Content) / 2
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == "<<" {
					n += count(node.Content[i+1])
				}
			}
		}
		counted[node] = min(n, mostFields+1)
		return counted[node]
	}
	var walk func(*yaml.Node)
	walk = func(node *yaml.Node) {
		if node.Kind == yaml.MappingNode {
			total += count(node)
		}
		for _, below := range node.Content {
			walk(below)
		}
	}
	for i := range documents {
		walk(&documents[i])
	}
	return total > mostFields
}

func before(a, b *yaml.Node) bool {
	return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
}

// resolved is what an alias stands for.
func resolved(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}
