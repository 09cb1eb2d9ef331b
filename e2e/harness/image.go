package harness

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// An Image is a small image made on the spot, in three forms. Its manifest is
// Docker's schema 2, which registries of every age take.
type Image struct {
	Layer   string // a tar
	Archive string // as written by "docker save"; loads as its tag
	Layout  string // an OCI layout; the tag is "1"
	Digest  string // of the manifest in Layout
}

// MakeImage makes an image with one file. Images of different content share nothing.
func MakeImage(t testing.TB, content string) Image {
	t.Helper()
	return makeImage(t, "localhost/made:1", map[string]any{"Cmd": []string{"/hello"}}, file{name: "hello.txt", data: []byte(content)})
}

// MakeProgram makes an image of one static program (of Program), which it runs as the user 65532, and of empty folders that
// belong to that user.
func MakeProgram(t testing.TB, tag, program string, folders ...string) Image {
	t.Helper()
	path := "usr/local/bin/" + program
	files := []file{{name: path, data: ReadFile(t, Program(t, program)), mode: 0o755}}
	for _, folder := range folders {
		files = append(files, file{name: folder + "/", mode: 0o700, owner: 65532})
	}
	return makeImage(t, tag, map[string]any{"Entrypoint": []string{"/" + path}, "User": "65532:65532"}, files...)
}

func makeImage(t testing.TB, tag string, settings map[string]any, files ...file) Image {
	t.Helper()
	dir := t.TempDir()
	image := Image{
		Layer:   filepath.Join(dir, "layer.tar"),
		Archive: filepath.Join(dir, "image.tar"),
		Layout:  filepath.Join(dir, "layout"),
	}
	layer := tarball(t, files...)
	config := mustJSON(t, map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"config":       settings,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
		"history":      []any{map[string]any{"created": "2020-01-01T00:00:00Z", "created_by": "harness"}},
		"created":      "2020-01-01T00:00:00Z",
	})
	manifest := mustJSON(t, map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.docker.distribution.manifest.v2+json",
		"config":        descriptor("application/vnd.docker.container.image.v1+json", config),
		"layers":        []any{descriptor("application/vnd.docker.image.rootfs.diff.tar", layer)},
	})
	image.Digest = digest(manifest)

	write(t, image.Layer, "%s", layer)

	write(t, image.Archive, "%s", tarball(t,
		file{name: digest(config)[7:] + ".json", data: config},
		file{name: "layer.tar", data: layer},
		file{name: "manifest.json", data: mustJSON(t, []any{map[string]any{
			"Config": digest(config)[7:] + ".json", "RepoTags": []string{tag}, "Layers": []string{"layer.tar"},
		}})}))

	blobs := filepath.Join(image.Layout, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, blob := range [][]byte{layer, config, manifest} {
		write(t, filepath.Join(blobs, digest(blob)[7:]), "%s", blob)
	}
	entry := descriptor("application/vnd.docker.distribution.manifest.v2+json", manifest)
	entry["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "1"}
	write(t, filepath.Join(image.Layout, "index.json"), "%s", mustJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{entry}}))
	write(t, filepath.Join(image.Layout, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	return image
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func descriptor(mediaType string, data []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type file struct {
	name  string // ends in "/" for a folder
	data  []byte
	mode  int64 // 0o644 when it is 0
	owner int   // user and group
}

func tarball(t testing.TB, files ...file) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: cmp.Or(f.mode, 0o644), Uid: f.owner, Gid: f.owner, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}
