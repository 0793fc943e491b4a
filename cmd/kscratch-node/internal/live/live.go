// Package live runs a node from a medium that it cannot write to: an image in
// memory, which came over the network with the initrd, or a CD.
//
// The medium holds the same partitions as a disk does. [Attach] shows them to
// the kernel through a loop device, and from there on udev, veritysetup and the
// root hash do what they do on a disk. [Definitions] and [State.Find] say where
// the state partition is made: not beside the root, as on a disk, but on
// another one that is blank, or in memory.
//
// A disk is blank if the first and the last MiB of it are zeros. That is more
// than not having a partition table: what is anybody's is never overwritten.
package live

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Definitions are the directories of systemd-repart's definitions: of a disk
// with the root on it, and of one for the state alone.
const (
	Definitions      = "/usr/lib/repart.d"
	StateDefinitions = "/usr/lib/kscratch/repart.live.d"
)

// Where things are, below the root.
const (
	block     = "sys/class/block"
	statePart = "dev/disk/by-partlabel/kscratch-state"
)

// Argument is the kernel argument that says where the state is: a path below
// /dev of a blank disk, or Memory. Without it the first blank disk is taken.
const (
	Argument = "kscratch.state"
	Memory   = "memory"
)

// Least size in bytes of a disk for the state, and how much at its ends must be
// zeros.
const (
	minState = 2 << 30
	blankEnd = 1 << 20
)

// Mounted reports whether the file system mounted at a path lies on a loop
// device, behind dm-verity or not. Dir is the root directory.
func Mounted(dir, path string) (bool, error) {
	dev, err := deviceOf(dir, path)
	if err != nil {
		return false, fmt.Errorf("finding what is mounted at %s: %w", path, err)
	}
	names, err := below(os.DirFS(dir), "sys/dev/block/"+dev, 0)
	if err != nil {
		return false, fmt.Errorf("finding the disk of %s: %w", path, err)
	}
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "loop") }), nil
}

// deviceOf returns major:minor of what is mounted at a path, proc(5).
func deviceOf(dir, path string) (string, error) {
	b, err := os.ReadFile(dir + "/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	found := ""
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			found = f[2] // a later mount hides an earlier one
		}
	}
	if found == "" {
		return "", fs.ErrNotExist
	}
	return found, nil
}

// maxDepth bounds how many block devices lie above each other.
const maxDepth = 8

// below returns the names of the block devices under one in sysfs.
func below(sys fs.FS, dev string, depth int) ([]string, error) {
	slaves, err := fs.ReadDir(sys, dev+"/slaves")
	if errors.Is(err, fs.ErrNotExist) || depth == maxDepth {
		return nil, nil // a partition has none
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range slaves {
		more, err := below(sys, block+"/"+s.Name(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(append(out, s.Name()), more...)
	}
	return out, nil
}

// State looks for a place for the state partition. Dir and Wait are required.
type State struct {
	Dir  string                       // the root directory
	Want string                       // value of [Argument]; empty means the first blank disk
	Wait func(context.Context) bool   // waits a moment; false once it was long enough
	Open func(string) (Device, error) // opens a path below Dir; nil means as it is
}

// Device is a block device for reading.
type Device interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error) // bytes
}

// Place is where the state is.
type Place struct {
	Disk  string // device to be partitioned, below /dev; empty if there is a state partition
	InRAM bool   // there is no disk: the state is in memory
}

// Find returns the place for the state: a state partition that is there, on
// whatever disk; else a blank disk; else memory. Of several blank disks, the
// first by name counts. A disk may come late, and its partitions later still: it
// looks for as long as it may before it takes what would make another state
// partition. It is an error if Want says otherwise than a partition that is there.
func (s State) Find(ctx context.Context) (Place, error) {
	for {
		more := s.Wait(ctx)
		if part, err := filepath.EvalSymlinks(s.Dir + "/" + statePart); err == nil {
			return Place{}, s.fits(filepath.Base(part))
		}
		disk, err := s.blank()
		switch {
		case err != nil:
			return Place{}, err
		case ctx.Err() != nil:
			return Place{}, ctx.Err()
		case more:
		case s.Want == Memory || s.Want == "" && disk == "":
			return Place{InRAM: true}, nil
		case disk == "":
			return Place{}, fmt.Errorf("finding a disk for the state: kernel argument %s=%.80q names no blank disk of %d GiB and more", Argument, s.Want, minState>>30)
		default:
			return Place{Disk: "/dev/" + disk}, nil
		}
	}
}

// fits is an error if the state partition that is there is not on the disk that
// is wanted: there must not be a second one.
func (s State) fits(part string) error {
	number, ok := strings.CutPrefix(part, path.Base(s.Want))
	if s.Want == "" || ok && strings.Trim(strings.TrimPrefix(number, "p"), "0123456789") == "" {
		return nil
	}
	return fmt.Errorf("finding a disk for the state: kernel argument %s=%.80q, but /dev/%s is a state partition; leave the argument out to use that, or take its disk away", Argument, s.Want, part)
}

// blank returns the name of the first disk that may be taken; "" if there is
// none.
func (s State) blank() (string, error) {
	entries, err := os.ReadDir(s.Dir + "/" + block)
	if err != nil {
		return "", fmt.Errorf("listing disks: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	// vda before vdb, nvme2n1 before nvme10n1.
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	for _, n := range names {
		if s.Want != "" && path.Clean(s.Want) != "/dev/"+n {
			continue
		}
		if s.isDisk(n) && s.isBlank(n) {
			return n, nil
		}
	}
	return "", nil
}

// virtual are the prefixes of block devices that are no disks.
var virtual = []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"}

// isDisk reports whether a block device is a whole disk that is fixed and can
// be written to. One that vanishes meanwhile is none.
func (s State) isDisk(name string) bool {
	if slices.ContainsFunc(virtual, func(v string) bool { return strings.HasPrefix(name, v) }) {
		return false
	}
	at := s.Dir + "/" + block + "/" + name + "/"
	if _, err := os.Stat(at + "partition"); err == nil {
		return false
	}
	return number(at+"ro") == 0 && number(at+"removable") == 0 && number(at+"size")*512 >= minState
}

// number reads an attribute of sysfs; -1 if there is none.
func number(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// isBlank reports whether both ends of a disk are zeros. One that cannot be
// read is not blank.
func (s State) isBlank(name string) bool {
	open := s.Open
	if open == nil {
		open = openDevice
	}
	d, err := open(s.Dir + "/dev/" + name)
	if err != nil {
		return false
	}
	defer d.Close()
	size, err := d.Size()
	if err != nil || size < minState {
		return false
	}
	b := make([]byte, blankEnd)
	for _, off := range []int64{0, size - blankEnd} {
		if n, err := d.ReadAt(b, off); n < len(b) && err != nil || !bytes.Equal(b, make([]byte, blankEnd)) {
			return false
		}
	}
	return true
}

// Patience returns a Wait that waits for step between looks and says that it
// was long enough after so many of them.
func Patience(step time.Duration, looks int) func(context.Context) bool {
	return func(ctx context.Context) bool {
		select {
		case <-ctx.Done():
		case <-time.After(step):
		}
		looks--
		return looks > 0
	}
}
