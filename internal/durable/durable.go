// Package durable replaces files so that a reader or a crash sees the old content or the new one, never half.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile writes data beside name, syncs it, renames it over name and syncs the folder. A file that exists keeps its
// mode and its owner (root may edit a file that the service reads under another uid); a new one gets perm.
func WriteFile(name string, data []byte, perm fs.FileMode) (err error) {
	// A link is followed, so that what it points to is replaced, and not the link.
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	owner := &syscall.Stat_t{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if info, err := os.Stat(name); err == nil {
		perm = info.Mode().Perm()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			owner = stat
		}
	}
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
			err = fmt.Errorf("writing %s: %w", name, err)
		}
	}()
	if owner.Uid != uint32(os.Geteuid()) || owner.Gid != uint32(os.Getegid()) {
		if err = tmp.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if err = tmp.Chmod(perm); err != nil {
		return err
	}
	if _, err = tmp.Write(data); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock takes an exclusive advisory lock on a folder, held until the returned function is called or the process ends.
func Lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return func() { _ = d.Close() }, nil
}
