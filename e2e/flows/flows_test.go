// Package flows_test drives real clients against real registries that believe a
// real authserver.
package flows_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"authserver/e2e/harness"
)

// The registry versions that real clients are tried with.
var versions = []string{"2.5.2", "2.8.3", "3.1.2"}

const policy = `
groups:
  admins: [admin]
rules:
  - name: public
    subjects: [anyone]
    repositories: ["public/**"]
    actions: [pull]
  - name: own
    subjects: [authenticated]
    repositories: ["{user}/**"]
    actions: [pull, push, delete]
  - name: bob-reads-alice
    subjects: ["user:bob"]
    repositories: ["alice/**"]
    actions: [pull]
  - name: admins
    subjects: ["group:admins"]
    repositories: ["**"]
    actions: ["*"]
  - name: catalog
    subjects: ["group:admins"]
    resources: ["registry:catalog"]
    actions: ["*"]
`

const (
	alicePassword = "alice in wonderland"
	bobPassword   = "bob: the builder" // a colon: Basic splits at the first one only
	wrongPassword = "wrong"
)

// A stage is an authserver and a registry that believes it.
type stage struct {
	auth     *harness.Authserver
	registry *harness.Registry
}

func setStage(t *testing.T, version string) stage {
	t.Helper()
	auth := harness.StartAuthserver(t, harness.Options{
		Policy: policy,
		Users:  map[string]string{"alice": alicePassword, "bob": bobPassword},
	})
	return stage{auth, harness.StartRegistry(t, version, auth)}
}

// giveUp ends what waits for a change that comes soon.
const giveUp = 30 * time.Second

// becomes asks until the answer has this status: a server sees a moment later what a command has changed, on a busy machine
// a longer one.
func becomes(t *testing.T, what string, status int, ask func() harness.Answer) harness.Answer {
	t.Helper()
	for deadline := time.Now().Add(giveUp); ; time.Sleep(100 * time.Millisecond) {
		answer := ask()
		if answer.Status == status {
			return answer
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still status %d, want %d: %s", what, answer.Status, status, answer.Body)
		}
	}
}

// ref is the full name of an image in the registry.
func (s stage) ref(name string) string { return s.registry.Host + "/" + name }

// seed pushes an image as admin.
func (s stage) seed(t *testing.T, name string) {
	t.Helper()
	c := s.craneAs(t, "admin", s.auth.Password)
	succeeds(t, "seeding "+name)(c.push(s.ref(name)))
}

func (s stage) craneAs(t *testing.T, user, password string) crane {
	t.Helper()
	c := newCrane(t, s.registry.Host).(crane)
	succeeds(t, "crane login")(c.login(user, password))
	return c
}

// succeeds checks a step that has to work.
func succeeds(t *testing.T, step string) func(string, error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v\n%s", step, err, out)
		}
		return out
	}
}

// fails checks a step that has to be refused in the words of want, a regular expression.
func fails(t *testing.T, step, want string) func(string, error) {
	return func(out string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s has succeeded:\n%s", step, out)
		}
		if !regexp.MustCompile(want).MatchString(out) {
			t.Fatalf("%s: want a message like %q, got:\n%s", step, want, out)
		}
		t.Logf("%s:\n%s", step, out) // what the user reads, with go test -v
	}
}

// A tool is a kind of client, and what its users read.
type tool struct {
	name          string
	make          func(*testing.T, string) client
	wrongPassword string
	refusedPush   string
	refusedPull   string
}

// tools are all clients of images, with the daemons that they need.
func tools(t *testing.T) []tool {
	dockerd := harness.StartDockerd(t)
	containerd := harness.StartContainerd(t)
	return []tool{
		{
			"dockerd", func(t *testing.T, host string) client { return newDocker(t, host, dockerd) },
			"unauthorized: ", "denied: requested access to the resource is denied", "(pull access denied|unauthorized)",
		},
		{
			"ctr", func(t *testing.T, host string) client { return newCtr(t, host, containerd) },
			"401 Unauthorized", "insufficient_scope", "insufficient_scope",
		},
		{"podman", newPodman, "invalid username/password", "access to the resource is denied", "unauthorized"},
		{"skopeo", newSkopeo, "invalid username/password", "access to the resource is denied", "unauthorized"},
		{"crane", newCrane, "UNAUTHORIZED", "UNAUTHORIZED", "UNAUTHORIZED"},
		{"oras", newOras, "(?i)unauthorized", "(?i)unauthorized", "(?i)unauthorized"},
		{"regctl", newRegctl, "unauthorized", "unauthorized", "unauthorized"},
	}
}

func TestEveryClientLogsInPushesAndPulls(t *testing.T) {
	clients := tools(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			s.seed(t, "public/seed:1")
			for _, client := range clients {
				t.Run(client.name, func(t *testing.T) {
					c := client.make(t, s.registry.Host)
					public, own := s.ref("public/seed:1"), s.ref("alice/"+client.name+":1")

					// Some clients find out at login, others at the first use. A wrong
					// password must not end as an anonymous pull.
					out, err := c.login("alice", wrongPassword)
					if err == nil {
						out, err = c.pull(public)
					}
					fails(t, "a wrong password", client.wrongPassword)(out, err)

					c.logout()
					succeeds(t, "anonymous pull of a public repository")(c.pull(public))

					succeeds(t, "login as alice")(c.login("alice", alicePassword))
					succeeds(t, "push as the owner")(c.push(own))
					succeeds(t, "pull as the owner")(c.pull(own))
					fails(t, "push to a repository that is public to read", client.refusedPush)(c.push(public))

					succeeds(t, "logout")(c.logout())
					fails(t, "pull after logout", client.refusedPull)(c.pull(own))

					reader := client.make(t, s.registry.Host)
					succeeds(t, "login as bob")(reader.login("bob", bobPassword))
					succeeds(t, "pull as a reader")(reader.pull(own))
					fails(t, "push as a reader", client.refusedPush)(reader.push(own))
					fails(t, "pull of what is granted to others", client.refusedPull)(reader.pull(s.ref("admin/secret:1")))
				})
			}
		})
	}
}

func TestDockerLogsInWithoutADaemon(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			c := docker{newBase(t, "docker", s.registry.Host), "unix:///nonexistent"}
			fails(t, "a wrong password", "unauthorized: ")(c.login("alice", wrongPassword))
			fails(t, "an unknown user", "unauthorized: ")(c.login("nobody", alicePassword))
			out := succeeds(t, "login")(c.login("alice", alicePassword))
			if !strings.Contains(out, "Login Succeeded") {
				t.Errorf("login: %s", out)
			}
			succeeds(t, "logout")(c.logout())
		})
	}
}

func TestSkopeoDeletes(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			// Skopeo asks for "*". Registry 2.5 also demands it, which only a subject
			// with all rights gets; the later ones are content with "delete".
			owner, password := "alice", alicePassword
			if version == "2.5.2" {
				owner, password = "admin", s.auth.Password
			}
			ref := s.ref("alice/app:1")
			s.seed(t, "alice/app:1")

			c := newSkopeo(t, s.registry.Host).(skopeo)
			remove := func() (string, error) { return c.run("", "delete", "--tls-verify=false", "docker://"+ref) }
			succeeds(t, "login as bob")(c.login("bob", bobPassword))
			fails(t, "delete as a reader", "401 Unauthorized")(remove())

			succeeds(t, "login as the owner")(c.login(owner, password))
			succeeds(t, "delete as the owner")(remove())
			fails(t, "pull of what is deleted", "manifest unknown")(c.pull(ref))
		})
	}
}

func TestBlobsAreMountedFromAnotherRepository(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)

			alice := s.craneAs(t, "alice", alicePassword)
			succeeds(t, "push")(alice.push(s.ref("alice/from:1")))
			succeeds(t, "crane copy")(alice.run("", "copy", s.ref("alice/from:1"), s.ref("alice/to:1")))
			s.wantMount(t, "alice/to", "alice/from")

			// Podman remembers where it has seen a layer.
			p := newPodman(t, s.registry.Host).(podman)
			succeeds(t, "login")(p.login("bob", bobPassword))
			succeeds(t, "pull as a reader")(p.pull(s.ref("alice/from:1")))
			succeeds(t, "push to another repository")(p.podman("", "push", "--tls-verify=false", "--format", "v2s2", s.ref("alice/from:1"), s.ref("bob/copy:1")))
			s.wantMount(t, "bob/copy", "alice/from")
		})
	}
}

// wantMount checks that the registry has mounted a blob of from into to, and
// not been sent it.
func (s stage) wantMount(t *testing.T, to, from string) {
	t.Helper()
	from = strings.ReplaceAll(from, "/", "%2F")
	for line := range strings.Lines(s.registry.Log()) {
		if strings.Contains(line, "/v2/"+to+"/blobs/uploads/?") && strings.Contains(line, "from="+from) &&
			strings.Contains(line, "http.response.status=201") {
			return
		}
	}
	t.Errorf("nothing was mounted from %s into %s", from, to)
}

func TestOnlyAdminsListTheCatalog(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			s.seed(t, "alice/app:1")
			host := s.registry.Host

			c, o, r := newCrane(t, host).(crane), newOras(t, host).(oras), newRegctl(t, host).(regctl)
			for _, lister := range []struct {
				client
				list    func() (string, error)
				refused string
			}{
				{c, func() (string, error) { return c.run("", "catalog", host) }, "UNAUTHORIZED"},
				{o, func() (string, error) { return o.run("", "repo", "ls", "--plain-http", host) }, "(?i)unauthorized"},
				{r, func() (string, error) { return r.run("", "repo", "ls", host) }, "unauthorized"},
			} {
				succeeds(t, "login as admin")(lister.login("admin", s.auth.Password))
				if out := succeeds(t, "catalog as admin")(lister.list()); !strings.Contains(out, "alice/app") {
					t.Errorf("catalog does not list alice/app: %s", out)
				}
				succeeds(t, "login as alice")(lister.login("alice", alicePassword))
				fails(t, "catalog as alice", lister.refused)(lister.list())
				succeeds(t, "logout")(lister.logout())
				fails(t, "catalog as nobody", lister.refused)(lister.list())
			}
		})
	}
}

// Artifacts that are no images need OCI manifests, which registry 2.5 does not know.
func TestOrasPushesAnArtifact(t *testing.T) {
	for _, version := range []string{"2.8.3", "3.1.2"} {
		t.Run(version, func(t *testing.T) {
			s := setStage(t, version)
			c := newOras(t, s.registry.Host).(oras)
			succeeds(t, "login")(c.login("alice", alicePassword))
			succeeds(t, "push")(c.run("", "push", "--plain-http", "--disable-path-validation", s.ref("alice/notes:1"), c.image.Layer))
			succeeds(t, "pull")(c.run("", "pull", "--plain-http", "--allow-path-traversal", "-o", t.TempDir(), s.ref("alice/notes:1")))
		})
	}
}
