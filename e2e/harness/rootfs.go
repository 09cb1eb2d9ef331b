package harness

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A Rootfs is the file system of an image that is made of what this machine has, where nothing can be pulled.
type Rootfs struct {
	t    testing.TB
	out  *tar.Writer
	have map[string]bool
	err  error // the first of docker's: what it said about it is more to the point
}

// ImportImage makes an image for docker of what fill puts into it. changes are lines of a Dockerfile, as in "ENV A=b".
func (d *Dockerd) ImportImage(t testing.TB, name string, changes []string, fill func(*Rootfs)) {
	t.Helper()
	args := []string{"-H", d.Host, "import"}
	for _, change := range changes {
		args = append(args, "--change", change)
	}
	var out bytes.Buffer
	cmd := exec.Command(Program(t, "docker"), append(args, "-", name)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &Rootfs{t: t, out: tar.NewWriter(in), have: map[string]bool{}}
	fill(r)
	err = errors.Join(r.err, r.out.Close(), in.Close(), cmd.Wait())
	if err != nil {
		t.Fatalf("docker import of %s: %v\n%s", name, err, out.Bytes())
	}
}

// File puts a file in.
func (r *Rootfs) File(to string, data []byte, mode int64) {
	r.t.Helper()
	r.put(&tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: mode, Size: int64(len(data))}, bytes.NewReader(data))
}

// Folder puts an empty folder in.
func (r *Rootfs) Folder(to string, mode int64) {
	r.t.Helper()
	r.put(&tar.Header{Typeflag: tar.TypeDir, Name: to + "/", Mode: mode}, nil)
}

// Link puts a symbolic link in.
func (r *Rootfs) Link(to, target string) {
	r.t.Helper()
	r.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: to, Linkname: target, Mode: 0o777}, nil)
}

func (r *Rootfs) put(h *tar.Header, data io.Reader) {
	r.t.Helper()
	h.Name, h.Format = strings.TrimLeft(h.Name, "/"), tar.FormatGNU
	if r.have[path.Clean(h.Name)] || r.err != nil {
		return
	}
	r.have[path.Clean(h.Name)] = true
	if above := path.Dir(path.Clean(h.Name)); above != "." {
		r.Folder(above, 0o755) // docker would make it for root alone
	}
	if r.err = r.out.WriteHeader(h); r.err == nil && data != nil {
		_, r.err = io.Copy(r.out, data)
	}
}

// Tree copies a file or a folder of this machine, without what skip names (by its path below from).
func (r *Rootfs) Tree(from, to string, skip func(name string) bool) {
	r.t.Helper()
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if skip != nil && skip(below) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		at := path.Join(to, filepath.ToSlash(below))
		switch {
		case entry.IsDir():
			r.Folder(at, int64(info.Mode().Perm()))
		case entry.Type() == fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			r.Link(at, target)
		case entry.Type().IsRegular():
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			r.put(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}, file)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// Program copies a program of this machine, and the libraries that it is linked with, to the same places.
func (r *Rootfs) Program(file string) {
	r.t.Helper()
	r.File(file, ReadFile(r.t, file), 0o755)
	out, err := exec.Command("ldd", file).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		r.t.Fatalf("ldd %s: %v\n%s", file, err, out)
	}
	for _, match := range library.FindAllStringSubmatch(string(out), -1) {
		r.File(match[1], ReadFile(r.t, match[1]), 0o755)
	}
}

// Shell puts a shell and the usual small programs in: busybox, as in Alpine.
func (r *Rootfs) Shell() {
	r.t.Helper()
	busybox := Program(r.t, "busybox")
	r.Program(busybox)
	names, err := output(busybox, "", "--list")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range strings.Fields(names) {
		if at := "bin/" + name; "/"+at != busybox {
			r.Link(at, busybox)
		}
	}
	r.Folder("tmp", 0o1777)
	r.File("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
	r.File("etc/group", []byte("root:x:0:\n"), 0o644)
}
