package contract_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"authserver/e2e/harness"
)

// The document of the API is an OpenAPI document to somebody else's reading of the standard, and what is asked and answered
// is what it says.
func TestTheAPIIsAsItsDocumentSays(t *testing.T) {
	a := harness.StartAuthserver(t, harness.Options{})
	get := func(path string) []byte {
		t.Helper()
		response, err := http.Get(a.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d, %v", path, response.StatusCode, err)
		}
		return body
	}
	document, err := libopenapi.NewDocument(get("/api/v1/openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, faults := validator.NewValidator(document)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if ok, faults := v.ValidateDocument(); !ok {
		for _, f := range faults {
			t.Error(f)
		}
	}

	// do sends a request as the administrator, and holds it and its answer against the document.
	do := func(method, path, body, ifMatch string, want int) (fields map[string]any, etag string) {
		t.Helper()
		make := func() *http.Request {
			r, err := http.NewRequest(method, a.URL+"/api/v1"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.SetBasicAuth("admin", a.Password)
			if body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			if ifMatch != "" {
				r.Header.Set("If-Match", ifMatch)
			}
			return r
		}
		response, err := http.DefaultClient.Do(make())
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(response.Body)
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil || response.StatusCode != want {
			t.Fatalf("%s %s: %d, want %d, %v: %s", method, path, response.StatusCode, want, err, answer)
		}
		response.Body = io.NopCloser(bytes.NewReader(answer))
		r := make()
		if want < 400 {
			if ok, faults := v.ValidateHttpRequest(r); !ok {
				t.Errorf("%s %s: %v", method, path, faults)
			}
		}
		if ok, faults := v.ValidateHttpResponse(make(), response); !ok {
			t.Errorf("%s %s: %v: %s", method, path, faults, answer)
		}
		if len(answer) > 0 {
			if err := json.Unmarshal(answer, &fields); err != nil {
				t.Fatal(err)
			}
		}
		return fields, response.Header.Get("ETag")
	}
	do("GET", "/whoami", "", "", 200)
	do("POST", "/users", `{"name": "alice", "password": "alice-secret"}`, "", 201)
	do("POST", "/users", `{"name": "ci", "kind": "robot"}`, "", 201)
	do("POST", "/users", `{"name": "ci", "kind": "robot"}`, "", 409)
	do("POST", "/users", `{"name": "Ci"}`, "", 422)
	do("GET", "/users?limit=1", "", "", 200)
	do("PUT", "/users/alice/password", `{"password": "another"}`, "", 204)
	_, etag := do("GET", "/users/alice", "", "", 200)
	do("PATCH", "/users/alice", `{"disabled": true}`, "", 428)
	do("PATCH", "/users/alice", `{"disabled": true}`, etag, 200)
	do("PATCH", "/users/alice", `{"disabled": false}`, etag, 412)
	made, _ := do("POST", "/users/ci/tokens", `{"name": "pipeline", "scopes": ["repository:team/**:pull,push"], "networks": ["10.0.0.0/8"], "lifetime": "365d"}`, "", 201)
	do("POST", "/users/admin/tokens", `{"name": "for ever", "lifetime": "never"}`, "", 201)
	do("GET", "/users/ci/tokens", "", "", 200)
	do("GET", "/users/admin/tokens", "", "", 200)
	do("DELETE", "/users/ci/tokens/"+fmt.Sprint(made["id"]), "", "", 204)
	do("GET", "/users/alice/logins", "", "", 200)
	do("DELETE", "/users/alice/logins/none", "", "", 404)
	do("PUT", "/groups/dev", "", "", 204)
	do("PUT", "/groups/dev/members/alice", "", "", 204)
	do("GET", "/groups", "", "", 200)
	do("GET", "/groups/dev/members", "", "", 200)
	do("DELETE", "/groups/dev/members/alice", "", "", 204)
	do("DELETE", "/groups/dev", "", "", 204)
	do("DELETE", "/users/alice", "", "*", 204)
}
