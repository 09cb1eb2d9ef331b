package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// printJSON prints data for machines.
func (h *hand) printJSON(v any) error {
	encoder := json.NewEncoder(h.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// count is a number of things in words.
func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "y") && !strings.HasSuffix(what, "ey"):
		what = strings.TrimSuffix(what, "y") + "ies"
	default:
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
