// Package durable replaces files so that a reader or a crash sees the old content or the new one, never half.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// WriteFile writes data beside name, syncs it, renames it over name and syncs the folder. The file has mode perm. It keeps
// its owner, and a new one gets its folder's: root may edit what the service reads under another uid.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	// A link is followed, so that what it points to is replaced, and not the link.
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	owner := filepath.Dir(name)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() { // as /dev/stdout, which would be gone
			return fmt.Errorf("writing %s: it is no file", name)
		}
		owner = name
	}
	return replace(name, data, perm, owner)
}

// WriteSecret is WriteFile for a new secret. It belongs to whoever runs this: somebody who has put a file or a link of their
// own there must not get it.
func WriteSecret(name string, data []byte) error {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("writing %s: it is no file", name)
	}
	return replace(name, data, 0o600, "")
}

// replace puts a new file in the place of name, with the owner of like, or our own.
func replace(name string, data []byte, perm fs.FileMode, like string) (err error) {
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
	if like != "" {
		if err = giveTo(tmp, like); err != nil {
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

// Mkdir makes a folder with mode perm and its parent's owner. It is no error when it is there.
func Mkdir(name string, perm fs.FileMode) error {
	if err := os.Mkdir(name, perm); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	d, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(giveTo(d, filepath.Dir(name)), d.Close())
}

// Create makes an empty file with mode perm and its folder's owner, for somebody else to fill. It is no error when it is there.
func Create(name string, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(giveTo(f, filepath.Dir(name)), f.Close())
}

// giveTo makes f belong to the owner of like. Only root can, and only root needs to. By name it would be a link, and
// somebody else's file, if whoever may write the folder is quick.
func giveTo(f *os.File, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 && stat.Gid == 0 {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// How long Lock waits: whoever can open a folder can lock it, and must not keep us for ever.
const (
	lockTimeout = 10 * time.Second
	lockRetry   = 20 * time.Millisecond
)

// Lock takes an exclusive advisory lock on a folder, held until the returned function is called or the process ends.
func Lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(lockRetry) {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil
		}
		held := errors.Is(err, syscall.EWOULDBLOCK)
		if (held || errors.Is(err, syscall.EINTR)) && time.Now().Before(deadline) {
			continue
		}
		_ = d.Close()
		if held {
			return nil, fmt.Errorf("locking %s: another process holds it; gave up after %s", dir, lockTimeout)
		}
		return nil, fmt.Errorf("locking %s: %w; it must be on a file system with flock, which NFS has not for folders", dir, err)
	}
}
