package webhook

import (
	"encoding/json"
	"testing"

	"authserver/internal/scope"
)

// Whatever is answered: a set or an error, never both; never more than the policy grants; and nothing that is not a scope.
// An answer that is read as a list says what its own text says.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"result": true}`, `{"result": false}`, `{}`, `{"result": null}`, `{"result": "true"}`, `{"result": 1}`, `{"Result": true}`, `{"result": true, "result": false}`,
		`{"decision_id": "1", "result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}}`,
		`{"result": {"access": []}}`, `{"result": {"access": null}}`, `{"result": {"access": [null]}}`, `{"result": {"Access": []}}`, `{"result": {"access": {}}}`,
		`{"result": {"access": [{"type": "registry", "name": "catalog", "actions": ["*", "pull,push", " repository:x:push", ""]}]}}`,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"], "Actions": ["push"]}]}}`,
		`{"result": {"access": [{"type": "repository", "name": "team/app", "actions": ["*", "pull", "pull"]}, {"type": "repository", "name": "team/app"}]}}`,
		`[]`, `true`, ``, `{"result": true} x`, "{\"result\": {\"access\": [{\"type\": \"\\ud800\", \"name\": \"\xff\", \"actions\": [\"pull\"]}]}}",
	} {
		f.Add([]byte(seed), "repository:team/app:pull,push registry:catalog:*")
		f.Add([]byte(seed), "repository:team/app:*")
	}
	f.Fuzz(func(t *testing.T, text []byte, policy string) {
		granted, _, err := scope.Parse([]string{policy})
		if err != nil {
			return
		}
		answer, err := read(text, granted)
		if (answer == nil) == (err == nil) {
			t.Fatalf("%q: %q and %v", text, answer, err)
		}
		if err != nil {
			return
		}
		left := granted.Intersect(answer)
		if !left.Within(granted) || !left.Within(answer) {
			t.Fatalf("%q: granted %q, left %q", text, granted, left)
		}
		if again, dropped, err := scope.Parse([]string{left.String()}); err != nil || len(dropped) > 0 || again.String() != left.String() {
			t.Fatalf("%q: left %q, which is read as %q, dropped %q, %v", text, left, again, dropped, err)
		}
		var whole map[string]any
		if err := json.Unmarshal(text, &whole); err != nil {
			t.Fatalf("%q was read: %v", text, err)
		}
		switch result := whole["result"].(type) {
		case bool:
			if want := map[bool]string{true: granted.String()}[result]; answer.String() != want {
				t.Fatalf("%q: %q", text, answer)
			}
		case map[string]any:
			list, ok := result["access"].([]any)
			if !ok {
				t.Fatalf("%q was read as %q", text, answer)
			}
			var entries []scope.Access
			for _, item := range list {
				entry, _ := item.(map[string]any)
				typ, _ := entry["type"].(string)
				name, _ := entry["name"].(string)
				actions, _ := entry["actions"].([]any)
				for _, action := range actions {
					if word, ok := action.(string); ok {
						entries = append(entries, scope.Access{Type: typ, Name: name, Actions: []string{word}})
					}
				}
			}
			if want := granted.Intersect(scope.Canonical(entries...)); left.String() != want.String() {
				t.Fatalf("%q: granted %q, left %q, its text says %q", text, granted, left, want)
			}
		default:
			t.Fatalf("%q was read as %q", text, answer)
		}
	})
}
