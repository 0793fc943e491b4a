// Package atomicfile writes small files so that a reader, or a machine that
// loses power, finds either the old content or the new, never a part.
//
// It does not keep the owner, the mode or the extended attributes of the file
// that it replaces, and makes no difference between file systems: on one that
// keeps nothing across a reboot, such as tmpfs, the syncing costs nothing.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// Write puts data into the file name below root, with mode perm whatever the
// umask. Missing parents are made with mode 0755. When it returns without an
// error, the content is on stable storage.
func Write(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	if err := write(root, name, data, perm); err != nil {
		return fmt.Errorf("writing /%s: %w", name, err)
	}
	return nil
}

func write(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	dir := path.Dir(name)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Who takes every file of a directory, as the kubelet does its manifests,
	// passes over names with a leading dot: a leftover is nothing to them.
	tmp := path.Join(dir, "."+path.Base(name)+".new")
	if err := fill(root, tmp, data, perm); err != nil {
		return errors.Join(err, removed(root, tmp))
	}
	if err := root.Rename(tmp, name); err != nil {
		return errors.Join(err, removed(root, tmp))
	}
	return Sync(root, dir)
}

func fill(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	// A leftover of a writer that died may have any mode: begin anew.
	if err := removed(root, name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
}

// removed makes sure that there is no file with a name.
func removed(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove removes the file name below root, if it is there, and makes that
// durable.
func Remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = Sync(root, path.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("removing /%s: %w", name, err)
	}
	return nil
}

// Sync makes the entries of a directory below root durable.
func Sync(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
