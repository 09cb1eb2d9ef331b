// Package deploy_test holds what deploy/ ships against the programs that read it: Kubernetes' types and Pod Security
// checks, kustomize, compose's own loader, real registries, and dockerd.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"authserver/e2e/harness"
)

// shipped is the path of a file in deploy/.
func shipped(t testing.TB, elem ...string) string {
	t.Helper()
	return filepath.Join(append([]string{harness.Root(t), "..", "deploy"}, elem...)...)
}

func write(t testing.TB, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// stdout runs a command that has to succeed and returns what it wrote to standard output alone.
func stdout(t testing.TB, environment []string, program string, args ...string) string {
	t.Helper()
	var out, errors bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, out.Bytes(), errors.Bytes())
	}
	return out.String()
}

// A folder is authserver.yaml, policy.yaml and users.htpasswd, side by side.
type folder struct {
	dir      string
	password string // of admin
}

// usersFile makes a users file as README.md of deploy/kubernetes says, and returns it with the password of admin.
func usersFile(t testing.TB) (data []byte, password string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "users")
	var made struct {
		Password string `json:"password"`
	}
	out := stdout(t, nil, harness.Program(t, "authserver"), "init", dir, "-o", "json")
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Password == "" {
		t.Fatalf("authserver init: %v\n%s", err, out)
	}
	return harness.ReadFile(t, filepath.Join(dir, "users.htpasswd")), made.Password
}

// newFolder is a folder with a generated users file.
func newFolder(t testing.TB, config, policy []byte) folder {
	t.Helper()
	users, password := usersFile(t)
	f := folder{dir: t.TempDir(), password: password}
	write(t, f.config(), config, 0o644)
	write(t, filepath.Join(f.dir, "policy.yaml"), policy, 0o644)
	write(t, filepath.Join(f.dir, "users.htpasswd"), users, 0o600)
	return f
}

func (f folder) config() string { return filepath.Join(f.dir, "authserver.yaml") }

// check is "authserver config check", which writes nothing.
func (f folder) check(t testing.TB) {
	t.Helper()
	out := stdout(t, nil, harness.Program(t, "authserver"), "config", "check", "--config", f.config())
	t.Log(strings.TrimSpace(out))
}

// effective is the part of "config show" that deployments depend on.
type effective struct {
	Server struct {
		Listen         string `json:"listen"`
		OpsListen      string `json:"ops_listen"`
		PublicURL      string `json:"public_url"`
		MaxConnections int64  `json:"max_connections"`
	} `json:"server"`
	Issuer struct {
		Name    string `json:"name"`
		DataDir string `json:"data_dir"`
	} `json:"issuer"`
	Services []struct {
		Name      string `json:"name"`
		Verifier  string `json:"verifier"`
		Algorithm string `json:"algorithm"`
		Issuer    string `json:"issuer"`
	} `json:"services"`
	Database struct {
		URL string `json:"url"`
	} `json:"database"`
	ACL struct {
		Files []string `json:"files"`
	} `json:"acl"`
}

func (f folder) show(t testing.TB) effective {
	t.Helper()
	var e effective
	out := stdout(t, nil, harness.Program(t, "authserver"), "config", "show", "-o", "json", "--config", f.config())
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("config show: %v\n%s", err, out)
	}
	return e
}

func (e effective) realm() string { return e.Server.PublicURL + "/token" }

// status is the status of a GET.
func status(url string) (int, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// A password, a hash or a private key in any of the shipped files would be everybody's.
func TestNothingShippedIsASecret(t *testing.T) {
	secret := regexp.MustCompile(`\$2[aby]\$|\$apr1\$|\{SHA\}|PRIVATE KEY|(?i:password|passwd|secret)[ \t]*[:=][ \t]*["']?[^ \t\n"'|]`)
	named := regexp.MustCompile(`existingSecret: [a-z-]+|-password:/|no default password: `) // a name is none, of a Secret or a volume, nor is a sentence
	files := 0
	err := filepath.WalkDir(shipped(t), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		for i, line := range strings.Split(string(harness.ReadFile(t, path)), "\n") {
			if secret.MatchString(named.ReplaceAllString(line, "")) {
				t.Errorf("%s:%d looks like a secret", path, i+1)
			}
		}
		return nil
	})
	if err != nil || files < 15 {
		t.Fatalf("%d files seen: %v", files, err)
	}
}

func toYAML(t testing.TB, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
