package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func TestAFileThatExistsKeepsItsMode(t *testing.T) {
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
	if got, m := read(t, name), mode(t, name); got != "new" || m != 0o646 {
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
	if mode(t, link)&fs.ModeSymlink == 0 || read(t, target) != "new" || mode(t, target) != 0o640 {
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

func TestTheLockIsHeldByOne(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	count := 0 // the race detector sees to it that the lock orders this
	inside := make(chan struct{}, 1)
	for range 20 {
		wg.Go(func() {
			unlock, err := durable.Lock(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			select {
			case inside <- struct{}{}:
			default:
				t.Error("two hold the lock")
			}
			count++
			<-inside
		})
	}
	wg.Wait()
	if count != 20 {
		t.Errorf("%d of 20 had the lock", count)
	}
}

func TestAFolderThatIsNotThereCannotBeLocked(t *testing.T) {
	if _, err := durable.Lock(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
