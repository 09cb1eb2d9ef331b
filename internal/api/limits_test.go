package api_test

import (
	"net/http"
	"testing"
)

// What was meant as a limit and is not understood as one makes no token, least of all one without limits.
func TestALimitThatIsNoneMakesNoToken(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{
		`{"name": "x", "scopes": null}`,
		`{"name": "x", "networks": null}`,
		`{"name": "x", "Scopes": ["repository:a:pull"]}`,
		`{"name": "x", "scopes": ["repository:a:pull"], "Scopes": null}`,
		`{"name": "x", "scopes": ["repository:a:pull"], "Networks": []}`,
	} {
		w.wants(http.StatusUnprocessableEntity, user("alice"), http.MethodPost, "/api/v1/users/alice/tokens", body)
	}
}
