package harness

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// certificates is where Debian keeps the authorities that it trusts, on this machine and in the images of Docker Hub.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// MakeGolangImage makes what deploy/Dockerfile is built FROM, where nothing can be pulled: an image of the name of Docker
// Hub's golang with this machine's Go, a module proxy in a folder, and Go's build cache of the last time.
func (d *Dockerd) MakeGolangImage(t testing.TB, name string) {
	t.Helper()
	var env struct{ GOROOT, GOMODCACHE, GOPROXY string }
	text, err := output("go", "", "env", "-json", "GOROOT", "GOMODCACHE", "GOPROXY")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(t.TempDir(), "modules")
	product(t, []string{"GOMODCACHE=" + modules, "GOPROXY=file://" + filepath.Join(env.GOMODCACHE, "cache", "download") + "," + env.GOPROXY}, "mod", "download")
	cache := GolangImageCache(t)
	for _, architecture := range Architectures {
		BuildProduct(t, cache, architecture, filepath.Join(t.TempDir(), "authserver"), "warm")
	}

	d.ImportImage(t, name, []string{
		"ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"ENV GOPATH=/go", "ENV GOTOOLCHAIN=local", "WORKDIR /go", // as Docker Hub's
		"ENV GOPROXY=file:///proxy", "ENV GOSUMDB=off", // go.sum has all sums
	}, func(r *Rootfs) {
		r.Shell()
		r.File(certificates, ReadFile(t, certificates), 0o644)
		r.Tree(env.GOROOT, "usr/local/go", func(name string) bool {
			return name == "test" || name == "api" || name == "doc" || strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "testdata"
		})
		r.Tree(filepath.Join(modules, "cache", "download"), "proxy", nil)
		r.Tree(cache, "root/.cache/go-build", nil)
	})
}

// GolangImageCache is Go's build cache with nothing but what the image is built of.
func GolangImageCache(t testing.TB) string {
	t.Helper()
	return filepath.Join(Root(t), ".cache", "golang-image")
}

// Architectures are those that the image is made for.
var Architectures = []string{"amd64", "arm64"}

// BuildProduct builds authserver as deploy/Dockerfile does when it is told a version alone, with a build cache of its own.
func BuildProduct(t testing.TB, cache, architecture, to, version string) {
	t.Helper()
	product(t, []string{"GOCACHE=" + cache, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + architecture},
		"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version+" -X main.revision=unknown -X main.date=unknown", "-o", to, "./cmd/authserver")
}

// product runs go in the product's module.
func product(t testing.TB, environment []string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(Root(t), "..")
	cmd.Env = append(os.Environ(), append(environment, "GOFLAGS=-modcacherw")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// ThisArchitecture is that of the machine.
const ThisArchitecture = runtime.GOARCH
