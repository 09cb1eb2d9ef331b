package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"authserver/internal/durable"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mode(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// alone fails when anything but the named files is in a folder.
func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names) {
		t.Errorf("the folder holds %v, want %q", entries, names)
	}
}

func TestANewFileGetsTheModeWhateverTheUmask(t *testing.T) {
	dir := t.TempDir()
	for _, perm := range []fs.FileMode{0o600, 0o666, 0o640} {
		name := filepath.Join(dir, fmt.Sprintf("%o", perm))
		if err := durable.WriteFile(name, []byte("new"), perm); err != nil {
			t.Fatal(err)
		}
		if got, m := read(t, name), mode(t, name); got != "new" || m != perm {
			t.Errorf("%q with mode %v, want %v", got, m, perm)
		}
	}
	alone(t, dir, "600", "666", "640")
}

func TestAFileThatExistsGetsTheMode(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("a longer old content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o646); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, m := read(t, name), mode(t, name); got != "new" || m != 0o600 {
		t.Errorf("%q with mode %v", got, m)
	}
	alone(t, filepath.Dir(name), "f")
}

func TestAFileIsReplacedAndNotWrittenInto(t *testing.T) {
	dir := t.TempDir()
	name, other := filepath.Join(dir, "f"), filepath.Join(dir, "other")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(name, other); err != nil { // whoever holds the old file
		t.Fatal(err)
	}
	if err := durable.WriteFile(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, old := read(t, name), read(t, other); got != "new" || old != "old" {
		t.Errorf("%q, the old file reads %q", got, old)
	}
}

func TestALinkIsFollowed(t *testing.T) {
	target, link := filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "link")
	if err := os.WriteFile(target, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mode(t, link)&fs.ModeSymlink == 0 || read(t, target) != "new" || mode(t, target) != 0o600 {
		t.Errorf("link %v, target %q with mode %v", mode(t, link), read(t, target), mode(t, target))
	}
	alone(t, filepath.Dir(link), "link")
}

func TestAnOwnerIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 12345, 54321); err != nil {
		t.Skip(err)
	}
	if err := durable.WriteFile(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", info.Sys()); !strings.Contains(got, "Uid:12345") || !strings.Contains(got, "Gid:54321") {
		t.Errorf("owner: %s", got)
	}
}

func TestWhatCannotBeWrittenLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "missing", "f")
	if err := durable.WriteFile(name, nil, 0o600); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "writing "+name+": ") {
		t.Errorf("in a missing folder: %v", err)
	}
	folder := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(folder, nil, 0o600); err == nil || !strings.HasPrefix(err.Error(), "writing "+folder+": ") {
		t.Errorf("over a folder: %v", err)
	}
	alone(t, dir, "folder")
}

func TestTheLockIsHeldByOneUntilItIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	unlock, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	for _, how := range []int{syscall.LOCK_EX, syscall.LOCK_SH} {
		if err := syscall.Flock(int(other.Fd()), how|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("while it is held: %v", err)
		}
	}
	unlock()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
}

func TestWhoWaitsForTheLockGetsIt(t *testing.T) {
	dir := t.TempDir()
	unlock, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			unlock, err := durable.Lock(dir)
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		})
	}
	unlock()
	wg.Wait()
}

func TestAFolderThatIsNotThereCannotBeLocked(t *testing.T) {
	if _, err := durable.Lock(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWhatRootMakesBelongsToTheFoldersOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const service = 65532
	dir := t.TempDir()
	if err := os.Chown(dir, service, service); err != nil {
		t.Fatal(err)
	}
	file, folder := filepath.Join(dir, "f"), filepath.Join(dir, "d")
	for range 2 { // a new one, and one that is there
		if err := durable.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := durable.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{file, folder} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != service || stat.Gid != service {
				t.Errorf("%s belongs to %d:%d", name, stat.Uid, stat.Gid)
			}
		}
	}
	if err := durable.Mkdir(filepath.Join(dir, "none", "d"), 0o700); err == nil {
		t.Error("a folder without a parent")
	}
}

// The owner of a folder may be quick: what root makes there is a link to somebody else's a moment later.
func TestNothingElseIsGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	theirs, ours := t.TempDir(), t.TempDir()
	if err := os.Chown(theirs, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(theirs, "d")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			if os.Remove(folder) == nil {
				_ = os.Symlink(ours, folder)
			}
		}
	}()
	for swapping := true; swapping; {
		select {
		case <-done:
			swapping = false
		default:
			_ = durable.Mkdir(folder, 0o700)
		}
	}
	info, err := os.Stat(ours)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 {
		t.Errorf("root's folder belongs to %d", stat.Uid)
	}
}

// Whoever has put a file or a link there does not get the secret.
func TestASecretIsOnesOwn(t *testing.T) {
	const other = 65532
	dir, theirs := t.TempDir(), t.TempDir()
	name, target := filepath.Join(dir, "secret"), filepath.Join(theirs, "target")
	for what, plant := range map[string]func() error{
		"a file": func() error { return os.WriteFile(name, nil, 0o644) },
		"a link": func() error { return os.Symlink(target, name) },
	} {
		if err := errors.Join(os.RemoveAll(name), os.WriteFile(target, []byte("theirs"), 0o644), plant()); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := errors.Join(os.Lchown(name, other, other), os.Chown(target, other, other)); err != nil {
				t.Fatal(err)
			}
		}
		if err := durable.WriteSecret(name, []byte("new")); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if stat := info.Sys().(*syscall.Stat_t); int(stat.Uid) != os.Geteuid() || info.Mode() != 0o600 || read(t, name) != "new" || read(t, target) != "theirs" {
			t.Errorf("%s: it belongs to %d, %v; what was there is %q", what, stat.Uid, info.Mode(), read(t, target))
		}
		alone(t, dir, "secret")
	}
}

func TestWhatIsNoFileIsNotReplaced(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(pipe, []byte("x"), 0o644); err == nil {
		t.Error("a pipe was replaced by a file")
	}
	if err := durable.WriteSecret(pipe, []byte("x")); err == nil {
		t.Error("a pipe was replaced by a secret")
	}
	if mode(t, pipe).Type() != fs.ModeNamedPipe {
		t.Errorf("it is %v", mode(t, pipe))
	}
}
