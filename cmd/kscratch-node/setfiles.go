package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// setfiles stands in for the SELinux program of that name in the initrd.
// Debian builds Ignition with relabelling, and Ignition then fails without a
// setfiles, although there is nothing to label: kscratch's nodes have no
// SELinux policy. Should the kernel run with SELinux after all, an unlabelled
// file would be refused much later and for no visible reason, so that is an
// error here.
func setfiles(root string) error {
	dir := filepath.Join(root, "sys/fs/selinux")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("setfiles: SELinux is on (%s), which kscratch does not support: remove security=selinux from the kernel command line", dir)
	}
	return nil
}
