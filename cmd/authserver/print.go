package main

import "encoding/json"

// printJSON prints data for machines.
func (h *hand) printJSON(v any) error {
	encoder := json.NewEncoder(h.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
