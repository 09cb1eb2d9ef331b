// Package release_test makes a release of the sources and tries it: as files, as packages, and as a service of a systemd that
// is really booted.
package release_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"authserver/e2e/harness"
)

// platform is what CI makes; "make release-check" makes all.
const platform = "linux/amd64"

// shared is the release that all tests use. It is made once, and removed when they have ended.
var shared struct {
	once     sync.Once
	dir, src string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// released is the folder of the release, and the sources that it was made of.
func released(t *testing.T) (dir, src string) {
	t.Helper()
	shared.once.Do(func() {
		var err error
		if shared.dir, err = os.MkdirTemp("", "release"); err != nil {
			t.Fatal(err)
		}
		shared.src = clone(t, filepath.Join(shared.dir, "src"))
		release(t, shared.src, filepath.Join(shared.dir, "dist"), nil)
	})
	return filepath.Join(shared.dir, "dist"), shared.src
}

// clone is a clone of this repository as it is now, changes that are not committed included (new files have to be added).
func clone(t *testing.T, dir string) string {
	t.Helper()
	root := filepath.Join(harness.Root(t), "..")
	us := []string{"GIT_AUTHOR_NAME=e2e", "GIT_AUTHOR_EMAIL=e2e@localhost", "GIT_COMMITTER_NAME=e2e", "GIT_COMMITTER_EMAIL=e2e@localhost",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	commit := strings.TrimSpace(harness.MustRun(t, us, "", "git", "-C", root, "stash", "create"))
	if commit == "" {
		commit = strings.TrimSpace(harness.MustRun(t, us, "", "git", "-C", root, "rev-parse", "HEAD"))
	}
	harness.MustRun(t, us, "", "git", "clone", "--quiet", "--shared", "--no-checkout", root, dir)
	harness.MustRun(t, us, "", "git", "-C", dir, "checkout", "--quiet", "--detach", commit)
	return dir
}

// release makes the release of the sources in src.
func release(t *testing.T, src, dist string, environment []string) {
	t.Helper()
	var out bytes.Buffer
	// A umask is a process's own, and a test has none to spare.
	cmd := exec.Command("sh", "-c", `umask "${UMASK:-022}" && exec deploy/release/release.sh -platforms "$0" "$1"`, platform, dist)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("release.sh: %v\n%s", err, out.Bytes())
	}
}

// one is the only file that matches.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s in %s: %q, %v", pattern, dir, files, err)
	}
	return files[0]
}

func TestTwoBuildsOfARevisionAreEqual(t *testing.T) {
	dist, _ := released(t)
	other := t.TempDir()
	src := clone(t, filepath.Join(other, "elsewhere", "authserver"))
	// Somebody else, who keeps files private, lives elsewhere and writes another language, builds for the newest processors, has
	// settings of his own for Go and git, and works on what makes the release.
	home := t.TempDir()
	environment := []string{"UMASK=077", "TZ=Pacific/Auckland", "LC_ALL=C.UTF-8", "HOME=" + home, "GOENV=" + filepath.Join(home, "env"), "GOFLAGS=", "GOAMD64=v3", "GOFIPS140=latest"}
	settings := "GOFLAGS=-tags=theirs\n"
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GONOSUMDB", "GOSUMDB", "GOTOOLCHAIN"} { // they would be below HOME
		settings += name + "=" + strings.TrimSpace(harness.MustRun(t, nil, "", "go", "env", name)) + "\n"
		environment = append(environment, name+"=") // go reads them in its settings, then
	}
	for file, text := range map[string]string{
		filepath.Join(home, "env"):                             settings,
		filepath.Join(home, ".gitconfig"):                      "[core]\n\tabbrev = 20\n[safe]\n\tdirectory = *\n",
		filepath.Join(src, "deploy", "release", "licences.sh"): "#!/bin/sh\necho mine\n",
		filepath.Join(src, "deploy", "release", "tools.mod"):   "module mine\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	release(t, src, filepath.Join(other, "dist"), environment)
	sums := string(harness.ReadFile(t, filepath.Join(dist, "SHA256SUMS")))
	if again := string(harness.ReadFile(t, filepath.Join(other, "dist", "SHA256SUMS"))); again != sums {
		t.Errorf("first:\n%ssecond:\n%s", sums, again)
	}
	if n := strings.Count(sums, "\n"); n != 4 {
		t.Errorf("%d files, want archive, bill of materials, deb and rpm:\n%s", n, sums)
	}
	t.Logf("twice the same:\n%s", sums)

	// Another revision is another release.
	harness.MustRun(t, nil, "", "git", "-C", src, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost", "commit", "--quiet", "--allow-empty", "-m", "another")
	harness.MustRun(t, nil, "", "git", "-C", src, "tag", "v1.2.3-rc.1")
	release(t, src, filepath.Join(other, "dist"), nil)
	one(t, filepath.Join(other, "dist"), "authserver-1.2.3-rc.1-linux-amd64.tar.gz")
	if v := harness.MustRun(t, nil, "", "dpkg-deb", "--field", one(t, filepath.Join(other, "dist"), "authserver_*_amd64.deb"), "Version"); v != "1.2.3~rc.1\n" {
		t.Errorf("the Debian package is of version %s", v)
	}
	if v := harness.MustRun(t, nil, "", "rpm", "-qp", "--queryformat", "%{VERSION}-%{RELEASE}", one(t, filepath.Join(other, "dist"), "*.rpm")); v != "1.2.3~rc.1-1" {
		t.Errorf("the RPM is of version %s", v)
	}
	if again := string(harness.ReadFile(t, filepath.Join(other, "dist", "SHA256SUMS"))); strings.Count(again, "\n") != 4 || strings.Contains(again, strings.Fields(sums)[0]) {
		t.Errorf("the release of another revision:\n%s", again)
	}
}

// Versions grow with the commits, for dpkg and rpm too: a pre-release and what comes after it are older than the release.
func TestVersionsGrow(t *testing.T) {
	script := filepath.Join(harness.Root(t), "..", "deploy", "release", "version.sh")
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		harness.MustRun(t, nil, "", "git", append([]string{"-C", dir, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost", "-c", "init.defaultBranch=main"}, args...)...)
	}
	git("init", "--quiet")
	git("config", "core.abbrev", "40")
	last := ""
	for _, c := range []struct{ tag, version string }{
		{"", `0\.0\.0\+20\d{6}\.g[0-9a-f]{12}`},
		{"v1.2.3-beta", `1\.2\.3-beta`},
		{"", `1\.2\.3-beta\+1\.g[0-9a-f]{12}`},
		{"v1.2.3-rc.1", `1\.2\.3-rc\.1`},
		{"", `1\.2\.3-rc\.1\+1\.g[0-9a-f]{12}`},
		{"v1.2.3-rc.2", `1\.2\.3-rc\.2`},
		{"v1.2.3", `1\.2\.3`},
		{"", `1\.2\.3\+1\.g[0-9a-f]{12}`},
		{"", `1\.2\.3\+2\.g[0-9a-f]{12}`},
		{"v1.2.4", `1\.2\.4`},
	} {
		git("commit", "--quiet", "--allow-empty", "-m", "another")
		if c.tag != "" {
			git("tag", c.tag)
		}
		cmd := exec.Command(script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		versions := strings.Fields(string(out))
		if err != nil || len(versions) != 2 || !regexp.MustCompile("^"+c.version+"$").MatchString(versions[0]) || versions[1] != strings.ReplaceAll(versions[0], "-", "~") {
			t.Fatalf("tag %q: %v: %s", c.tag, err, out)
		}
		if now := versions[1]; last != "" {
			if out, err := harness.Run(t, nil, "", "dpkg", "--compare-versions", last, "lt", now); err != nil {
				t.Errorf("for dpkg %s is not before %s: %s", last, now, out)
			}
			if out := harness.MustRun(t, nil, "", "rpm", "--eval", `%{lua:print(rpm.vercmp("`+last+`", "`+now+`"))}`); strings.TrimSpace(out) != "-1" {
				t.Errorf("for rpm %s is not before %s: %s", last, now, out)
			}
		}
		last = versions[1]
	}
}

// The other platforms of a release are not made here. That one of them is no Linux, and no amd64, is where they break.
func TestItCompilesForMacOS(t *testing.T) {
	_, src := released(t)
	cmd := exec.Command("go", "build", "-trimpath", "-o", os.DevNull, "./cmd/authserver")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=darwin", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Where packages cannot be listed, nothing is fuzzed, and that is no success.
func TestNothingFuzzedIsNoSuccess(t *testing.T) {
	if out, err := harness.Run(t, []string{"GO=/nonexistent"}, "", "bash", filepath.Join(harness.Root(t), "..", ".ci", "fuzz")); err == nil {
		t.Errorf("without Go it passes: %s", out)
	}
}

// The commands that the page shows to who makes a release, and to who takes one.
func TestRelease(t *testing.T) {
	dist, src := released(t)
	for _, step := range harness.Documented(t, "docs/release.md", "check") {
		cmd := exec.Command("sh", "-ec", step.Command)
		cmd.Dir = dist
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("$ %s\n%s%v", step.Command, out, err)
		}
	}
	dir := t.TempDir()
	harness.MustRun(t, nil, "", "tar", "-xzf", one(t, dist, "*.tar.gz"), "-C", dir, "--strip-components=1")
	for _, file := range []string{"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/systemd.md", "deploy/systemd/authserver.service", "deploy/helm/authserver/Chart.yaml", "deploy/observability/grafana/authserver.json", "completions/authserver.zsh", "man/authserver-serve.1.gz"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
	// It knows what it was made of.
	revision := strings.TrimSpace(harness.MustRun(t, nil, "", "git", "-C", src, "rev-parse", "HEAD"))
	version := harness.MustRun(t, nil, "", filepath.Join(dir, "authserver"), "version")
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(one(t, dist, "*.deb")), "authserver_"), "_amd64.deb")
	if !strings.HasPrefix(version, "authserver "+name+" (revision "+revision+" of 20") || !strings.HasSuffix(version, ", linux/amd64)\n") {
		t.Errorf("version: %s, want %s of %s", version, name, revision)
	}
	t.Log(version)
	if out, err := harness.Run(t, nil, "", "file", filepath.Join(dir, "authserver")); err == nil && !strings.Contains(out, "statically linked") {
		t.Error(out)
	}
	// The manual is set without a warning.
	pages, err := filepath.Glob(filepath.Join(dir, "man", "*.1.gz"))
	if err != nil || len(pages) < 30 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		if out := harness.MustRun(t, nil, "", "sh", "-c", `zcat "$0" | groff -k -man -ww -z -Tutf8 2>&1`, page); out != "" {
			t.Errorf("%s: %s", filepath.Base(page), out)
		}
	}
	if out := harness.MustRun(t, nil, "", "bash", "-n", filepath.Join(dir, "completions", "authserver.bash")); out != "" {
		t.Error(out)
	}
}

// The bill of materials is what CycloneDX's own schema says, and lists every module that is linked in.
func TestBillOfMaterials(t *testing.T) {
	dist, src := released(t)
	cmd := exec.Command("go", "list", "-modfile=deploy/release/tools.mod", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go")
	cmd.Dir = src
	schemas, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	for name, file := range map[string]string{"bom-1.5": "bom-1.5.schema.json", "spdx": "spdx.schema.json", "jsf-0.82": "jsf-0.82.schemax.json"} {
		file, err := os.Open(filepath.Join(strings.TrimSpace(string(schemas)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		schema, err := jsonschema.UnmarshalJSON(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource("http://cyclonedx.org/schema/"+name+".schema.json", schema); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.5.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	text := harness.ReadFile(t, one(t, dist, "*.cdx.json"))
	bom, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(bom); err != nil {
		t.Error(err)
	}
	bom.(map[string]any)["specVersion"] = 1.5
	if schema.Validate(bom) == nil {
		t.Error("a number for a version is valid, too")
	}
	var listed struct {
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &listed); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, c := range listed.Components {
		versions[c.Name] = c.Version
	}
	linked := linked(t)
	for module, version := range linked {
		if versions[module] != version {
			t.Errorf("%s is %q, and %s is linked in", module, versions[module], version)
		}
	}
	if len(versions) != len(linked)+1 || versions["std"] == "" { // Go's own packages are one of them
		t.Errorf("%d components, %d modules are linked in", len(versions), len(linked))
	}
}

// linked are the versions of the modules in the program.
func linked(t *testing.T) map[string]string {
	t.Helper()
	modules := map[string]string{}
	for line := range strings.SplitSeq(harness.MustRun(t, nil, "", "go", "version", "-m", harness.Program(t, "authserver")), "\n") {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[0] == "dep" {
			modules[fields[1]] = fields[2]
		}
	}
	if len(modules) < 30 {
		t.Fatalf("only %v", modules)
	}
	return modules
}

// What is linked in may be passed on only with its licence; a module without one stops the release.
func TestAModuleWithoutALicenceStopsTheRelease(t *testing.T) {
	dist, src := released(t)
	licences := string(harness.MustRun(t, nil, "", "tar", "-xzOf", one(t, dist, "*.tar.gz"), "--wildcards", "*/THIRD_PARTY_LICENSES"))
	for module, version := range linked(t) {
		if !strings.Contains(licences, module+" "+version+": ") {
			t.Errorf("no licence of %s %s", module, version)
		}
	}
	if !strings.Contains(licences, "Go, its runtime and standard library") {
		t.Error("no licence of Go")
	}
	dir := t.TempDir()
	for file, text := range map[string]string{
		"go.mod":           "module product\n\ngo 1.26.0\n\nrequire example.com/kept v0.0.0\n\nreplace example.com/kept => ./kept\n",
		"main.go":          "package main\n\nimport _ \"example.com/kept/inner\"\n\nfunc main() {}\n",
		"kept/go.mod":      "module example.com/kept\n\ngo 1.26.0\n",
		"kept/inner/in.go": "package inner\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(src, "deploy", "release", "licences.sh")
	run := func() (string, error) {
		cmd := exec.Command(script, ".")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err == nil || !strings.Contains(out, "licences: example.com/kept v0.0.0 has no licence") {
		t.Errorf("%v: %s", err, out[max(0, len(out)-300):])
	}
	for file, text := range map[string]string{"kept/LICENSE": "Do as you like.\n", "kept/inner/NOTICE": "By somebody else.\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run(); err != nil || !strings.Contains(out, "Do as you like.") || !strings.Contains(out, "v0.0.0: inner/NOTICE") {
		t.Errorf("%v: %s", err, out[max(0, len(out)-300):])
	}
}
