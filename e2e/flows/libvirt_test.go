package flows_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// libvirt is the token client of libvirt-sandbox's virt-sandbox-image, in its
// manner: it splits the challenge at every comma and equals sign, sends all
// that is left of it without any URL encoding, has no credentials, and reads
// nothing but "token" from the answer.
type libvirt struct {
	t     *testing.T
	host  string
	token string
}

// get fetches a path of the registry, and once more with a token when it is asked for one.
func (c *libvirt) get(path string) (int, http.Header, string) {
	c.t.Helper()
	status, header, body := c.do("http://"+c.host+path, c.token)
	if status != http.StatusUnauthorized {
		return status, header, body
	}
	c.authorize(header.Get("WWW-Authenticate"))
	return c.do("http://"+c.host+path, c.token)
}

func (c *libvirt) authorize(challenge string) {
	c.t.Helper()
	rest, ok := strings.CutPrefix(challenge, "Bearer ")
	if !ok {
		c.t.Fatalf("challenge %q is not Bearer", challenge)
	}
	var realm string
	var query []string
	for attribute := range strings.SplitSeq(rest, ",") {
		parts := strings.Split(attribute, "=")
		if len(parts) < 2 {
			c.t.Fatalf("the client stumbles over %q", attribute)
		}
		name, value := parts[0], strings.Trim(parts[1], `"`)
		switch name {
		case "realm":
			realm = value
		case "error":
		default:
			query = append(query, name+"="+value)
		}
	}
	status, _, body := c.do(realm+"?"+strings.Join(query, "&"), "")
	if status != http.StatusOK {
		c.t.Fatalf("token endpoint: status %d, want 200: %s", status, body)
	}
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		c.t.Fatal(err)
	}
	token, ok := answer["token"].(string)
	if !ok || token == "" {
		c.t.Fatalf("no token in %s", body)
	}
	c.token = token
}

func (c *libvirt) do(raw, token string) (int, http.Header, string) {
	c.t.Helper()
	address, err := url.Parse(raw)
	if err != nil {
		c.t.Fatal(err)
	}
	if address.RawQuery != "" {
		_, address.RawQuery, _ = strings.Cut(raw, "?") // to the byte
	}
	request := &http.Request{Method: "GET", URL: address, Header: http.Header{"Accept": {"application/json"}}}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

func TestLibvirtSandboxPullsAnonymously(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			s.seed(t, "public/seed:1")
			s.seed(t, "alice/app:1")

			// Its test for version 2 of the protocol: a token without any scope.
			c := &libvirt{t: t, host: s.registry.Host}
			status, header, body := c.get("/v2/")
			if status != http.StatusOK || !json.Valid([]byte(body)) {
				t.Fatalf("/v2/ with an anonymous token: status %d: %s", status, body)
			}
			if got := header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
				t.Errorf("API version %q", got)
			}

			if status, _, body := c.get("/v2/public/seed/manifests/1"); status != http.StatusOK {
				t.Errorf("public repository: status %d: %s", status, body)
			}
			if status, _, _ := c.get("/v2/alice/app/manifests/1"); status != http.StatusUnauthorized {
				t.Errorf("private repository: status %d, want 401", status)
			}
		})
	}
}
