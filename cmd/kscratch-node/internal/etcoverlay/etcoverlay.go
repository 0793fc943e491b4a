// Package etcoverlay gives each version of the image its own writable /etc.
//
// The root file system is read-only; /etc is an overlayfs over the image's
// /etc whose upper directory belongs to one image id (a name made of the root
// hash and the digest of the embedded configuration):
//
//	/var/lib/kscratch/etc/<id>/upper          what Ignition and operators wrote
//	/var/lib/kscratch/etc/<id>/work           overlayfs's own
//	/var/lib/kscratch/etc/<id>/sequence       when the image was last booted: a counter, since clocks lie
//	/var/lib/kscratch/etc/<id>/ignition-done  Ignition has finished; says which image this is
//
// So a new image starts from its own clean /etc, and a rollback finds the /etc
// that the old image had. A boot that finds no ignition-done is the first one
// of its image, or the one before lost power half-way: in both cases it begins
// with an empty upper directory. In the initrd the order is [Start], Ignition
// (if [FirstBootPath] is there), presets, [Done]; in the running system,
// [Prune].
//
// See https://docs.kernel.org/filesystems/overlayfs.html. Features that split a
// file between the layers or tie the upper directory to one lower file system
// (metacopy, index) are off, so that an upper directory can be read by itself.
// redirect_dir stays at the kernel's default, off for Debian's: naming it
// takes privileges that the test has not. Changes that an operator made under an older image are not
// carried over; they belong into an Ignition config.
package etcoverlay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
)

// Paths below the root of the running system, which in the initrd is the
// initrd's.
const (
	ImageIDPath   = "etc/kscratch/image-id"   // in the initrd, written by the builder
	FirstBootPath = "run/kscratch/first-boot" // there if Ignition is to run
	currentPath   = "run/kscratch/image-id"   // id of the running image
)

// statePath, below the root of the system to be, holds a directory for each
// image id.
const statePath = "var/lib/kscratch/etc"

// Keep is how many images' /etc [Prune] leaves: the running one, the one to
// roll back to and one more.
const Keep = 3

// Options say where everything is.
type Options struct {
	Root    string       // of the running system: "/"
	Sysroot string       // of the system to be: "/sysroot" in the initrd
	Image   string       // image id; empty: read from [ImageIDPath]
	Random  io.Reader    // source of a machine id
	Log     *slog.Logger // nil: nowhere
}

// etc is the two roots, open, and the image id.
type etc struct {
	root, sysroot *os.Root
	dir           string // of the system to be
	image         string
	random        io.Reader
	log           *slog.Logger
}

// with opens what o names and calls f.
func with(o Options, f func(*etc) error) (err error) {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	sysroot, err := os.OpenRoot(o.Sysroot)
	if err != nil {
		return fmt.Errorf("opening system root: %w", err)
	}
	defer func() { err = errors.Join(err, sysroot.Close()) }()
	e := &etc{root: root, sysroot: sysroot, dir: o.Sysroot, image: o.Image, random: o.Random, log: o.Log}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	return f(e)
}

// Start mounts the overlay at /etc of the system to be, gives it the machine's
// id, and makes [FirstBootPath] if Ignition has not yet completed for this
// image.
func Start(o Options) error {
	return with(o, func(e *etc) error {
		if err := e.identify(ImageIDPath); err != nil {
			return err
		}
		if err := e.mountOnce(); err != nil {
			return err
		}
		return e.machineID()
	})
}

// Done records that Ignition has completed for this image, after all that it
// wrote has reached stable storage.
func Done(o Options) error {
	return with(o, func(e *etc) error {
		if err := e.identify(ImageIDPath); err != nil {
			return err
		}
		if err := e.syncState(); err != nil {
			return err
		}
		if err := atomicfile.Write(e.sysroot, e.path("ignition-done"), e.release(), 0o644); err != nil {
			return err
		}
		e.log.Info("first boot of this image is complete", "image", e.image)
		return atomicfile.Remove(e.root, FirstBootPath)
	})
}

// identify finds the image id.
func (e *etc) identify(file string) error {
	if e.image == "" {
		b, err := e.root.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading image id: %w", err)
		}
		e.image = strings.TrimSpace(string(b))
	}
	if !validID(e.image) {
		return fmt.Errorf("image id %.80q: want 1 to 200 letters, digits, dots, hyphens and underscores, not beginning with a dot", e.image)
	}
	return nil
}

// validID keeps an id from being anything but a file name, and one that needs
// no escaping in overlayfs's options.
func validID(id string) bool {
	for _, c := range []byte(id) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", rune(c)) {
			return false
		}
	}
	return id != "" && len(id) <= 200 && id[0] != '.'
}

func (e *etc) path(elem ...string) string {
	return path.Join(statePath, e.image, path.Join(elem...))
}

// mountOnce prepares and mounts the overlay, unless it is mounted: then its
// upper directory is in use and must not be touched.
func (e *etc) mountOnce() error {
	at := filepath.Join(e.dir, "etc")
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return fmt.Errorf("examining %s: %w", at, err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		e.log.Info("overlay is mounted already", "at", at)
		return nil
	}
	if err := e.prepare(); err != nil {
		return err
	}
	if err := unix.Mount("overlay", at, "overlay", unix.MS_NODEV|unix.MS_NOSUID, e.mountData()); err != nil {
		return fmt.Errorf("mounting overlay at %s%s: %w", at, hint(err), err)
	}
	return nil
}

// hint explains what mount(2) cannot.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return " (the kernel has no overlayfs: is the module overlay in the initrd?)"
	case errors.Is(err, unix.EINVAL):
		return " (the kernel log says which option or file system it refuses)"
	}
	return ""
}

func (e *etc) mountData() string {
	upper := filepath.Join(e.dir, e.path("upper"))
	work := filepath.Join(e.dir, e.path("work"))
	return "lowerdir=" + filepath.Join(e.dir, "etc") + ",upperdir=" + upper + ",workdir=" + work +
		",metacopy=off,index=off"
}

// prepare makes the directories of this image, empty if Ignition has not
// completed in them, and says whether it has to.
func (e *etc) prepare() error {
	first, err := e.isFirst()
	if err != nil {
		return err
	}
	if first {
		e.log.Info("first boot of this image", "image", e.image)
		if err := e.clear(e.image); err != nil {
			return err
		}
	}
	for _, d := range []string{"upper", "work"} {
		if err := e.makeDir(e.path(d)); err != nil {
			return err
		}
	}
	if err := e.countBoot(); err != nil {
		return err
	}
	if err := atomicfile.Write(e.root, currentPath, []byte(e.image+"\n"), 0o644); err != nil {
		return err
	}
	if !first {
		return atomicfile.Remove(e.root, FirstBootPath)
	}
	return atomicfile.Write(e.root, FirstBootPath, []byte(e.image+"\n"), 0o644)
}

func (e *etc) isFirst() (bool, error) {
	_, err := e.sysroot.Stat(e.path("ignition-done"))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err != nil, nil
	}
	return false, fmt.Errorf("looking for the end of an earlier first boot: %w", err)
}

// makeDir makes a directory that all may read: the upper directory's mode is
// that of the merged /etc.
func (e *etc) makeDir(name string) error {
	if err := e.sysroot.MkdirAll(name, 0o755); err != nil {
		return fmt.Errorf("making /%s: %w", name, err)
	}
	if err := e.sysroot.Chmod(name, 0o755); err != nil {
		return fmt.Errorf("making /%s: %w", name, err)
	}
	return nil
}

// clear removes what an image has stored. The stamp goes first: without it,
// whatever is left after a loss of power is discarded by the next boot of that
// image, and never taken for a whole /etc.
func (e *etc) clear(id string) error {
	dir := path.Join(statePath, id)
	if err := atomicfile.Remove(e.sysroot, path.Join(dir, "ignition-done")); err != nil {
		return err
	}
	if err := e.sysroot.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing /%s: %w", dir, err)
	}
	return nil
}

// countBoot makes this image the one booted last.
func (e *etc) countBoot() error {
	images, err := e.images()
	if err != nil {
		return err
	}
	if last := images[0]; last.id == e.image && last.sequence > 0 {
		return nil
	}
	next := strconv.FormatUint(images[0].sequence+1, 10) + "\n"
	return atomicfile.Write(e.sysroot, e.path("sequence"), []byte(next), 0o644)
}

// image is an image id that has a directory.
type image struct {
	id       string
	sequence uint64 // higher is later; 0: unknown
}

// images lists every image with a directory, the one booted last first.
func (e *etc) images() ([]image, error) {
	entries, err := fs.ReadDir(e.sysroot.FS(), statePath)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var out []image
	for _, d := range entries {
		if validID(d.Name()) {
			out = append(out, image{d.Name(), e.sequence(d.Name())})
		}
	}
	slices.SortStableFunc(out, func(a, b image) int {
		switch {
		case a.sequence > b.sequence:
			return -1
		case a.sequence < b.sequence:
			return 1
		}
		return 0
	})
	return out, nil
}

// sequence returns the counter of an image; 0 if it has none or a broken one,
// which makes it the oldest.
func (e *etc) sequence(id string) uint64 {
	b, err := e.sysroot.ReadFile(path.Join(statePath, id, "sequence"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// syncState writes back the whole file system that holds the upper directory,
// since Ignition does not sync what it writes.
func (e *etc) syncState() error {
	d, err := e.sysroot.Open(e.path("upper"))
	if err != nil {
		return fmt.Errorf("syncing /etc: %w", err)
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return fmt.Errorf("syncing /etc: %w", err)
	}
	return nil
}

// release returns the lines of os-release that say to people which image an
// id stands for.
func (e *etc) release() []byte {
	b, err := e.sysroot.ReadFile("usr/lib/os-release")
	if err != nil {
		return nil
	}
	var out []byte
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "IMAGE_ID=") || strings.HasPrefix(line, "IMAGE_VERSION=") {
			out = append(out, strings.TrimSpace(line)+"\n"...)
		}
	}
	return out
}

// Prune removes what images other than the running one and the ones booted
// last have stored, so that [Keep] remain. It runs in the real root, with
// Sysroot the same as Root, and returns the ids of the images whose /etc it
// removed.
func Prune(o Options) (removed []string, err error) {
	err = with(o, func(e *etc) error {
		if err := e.identify(currentPath); err != nil {
			return err
		}
		images, err := e.images()
		if err != nil {
			return err
		}
		images = slices.DeleteFunc(images, func(i image) bool { return i.id == e.image })
		for _, i := range images[min(len(images), Keep-1):] {
			if err := e.clear(i.id); err != nil {
				return err
			}
			e.log.Info("removed /etc of an old image", "image", i.id)
			removed = append(removed, i.id)
		}
		return nil
	})
	return removed, err
}
