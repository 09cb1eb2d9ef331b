package tracing

import (
	"fmt"
	"os"
	"strings"
)

// ReadHeaders reads a file of "Name: value" lines, which are secrets; empty lines and those that begin with # are none. An
// error names the line, and not what stands in it.
func ReadHeaders(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}):
			return nil, fmt.Errorf("%s:%d: no header; would be right: Authorization: Bearer …", file, i+1)
		case value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return nil, fmt.Errorf("%s:%d: %s has no value, or one that no header can have", file, i+1, name)
		}
		headers[name] = value
	}
	return headers, nil
}
