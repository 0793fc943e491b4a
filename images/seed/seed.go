// Package seed makes the docker of a node know the images that are baked into
// its read-only root.
//
// [Install] runs before dockerd at every boot. It copies the small metadata of
// a baked image store (as package images lays it out) into docker's data root
// and makes the directory of each layer there with a link to the baked files:
//
//	overlay2/<cache ID>/diff → <baked>/overlay2/<cache ID>/diff
//
// so that nothing is unpacked or loaded. A diff that is a symbolic link is
// also how Install knows its own work again, as docker never makes one.
//
// Afterwards docker has exactly the baked images of the running root, besides
// what it pulled, loaded or built itself:
//
//   - a baked image, layer or name that is missing, torn or different is put
//     right, whoever deleted it: `docker rmi`, the kubelet's garbage collector,
//     a power failure. (Removing a baked image removes the link, not what it
//     leads to.) A baked name leads to the baked image even if docker had given
//     it to another one.
//   - a layer that docker has under the same chain ID from a pull or a load is
//     docker's and stays.
//   - what an earlier root had baked and this one has not is removed, unless a
//     container is made of it. Images that docker built or pulled on top of it
//     cannot work any more and are removed, too, so that they can be pulled
//     again; their layers wait for their containers to be removed.
//
// Every change is prepared in <data root>/kscratch/tmp, synced, and renamed
// into place; each state in between is one that the next run puts right.
//
// dockerd must not be running, as it reads this metadata only when it starts.
// Only the overlay2 storage driver without user-namespace remapping is
// supported. The package uses nothing but the standard library and
// golang.org/x/sys, because it goes into a small program on the node.
//
// The files and docker's use of them are described in package images.
package seed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Install makes the docker data root at dataRoot, which is made if missing,
// know the image store in the directory baked. It says in log what it changed;
// log may be nil. On an error part of the work may be done; docker can start
// all the same with what is there.
func Install(baked, dataRoot string, log *slog.Logger) (err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	want, err := readBaked(baked)
	if err != nil {
		return fmt.Errorf("reading baked images in %s: %w", baked, err)
	}
	r, err := openRoot(dataRoot, log)
	if err != nil {
		return fmt.Errorf("opening docker's data root %s: %w", dataRoot, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := install(r, want); err != nil {
		return fmt.Errorf("installing baked images into %s: %w", dataRoot, err)
	}
	return nil
}

// install is the recipe. Whatever is referred to is put before what refers to
// it and removed after it.
func install(r *root, want *baked) error {
	had, err := r.readRecord()
	if err != nil {
		return err
	}
	// Noted before it is done, so that a run that ends halfway leaves nothing
	// that the next one would not know.
	if err := r.writeRecord(had.and(want.ids())); err != nil {
		return err
	}
	if err := r.forgetRemovals(want); err != nil {
		return err
	}
	if err := r.putLayers(want); err != nil {
		return err
	}
	if err := r.putImages(want); err != nil {
		return err
	}
	old, err := r.findStale(had, want)
	if err != nil {
		return err
	}
	if err := r.putNames(want, old.images); err != nil {
		return err
	}
	if err := r.removeStale(old); err != nil {
		return err
	}
	if err := r.removeOrphans(want); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	return r.writeRecord(want.ids().and(old.kept))
}

// openRoot opens the data root and takes the lock that keeps a second Install
// out.
func openRoot(dir string, log *slog.Logger) (*root, error) {
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, err
	}
	fsys, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r := &root{Root: fsys, log: log}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *root) prepare() (err error) {
	for _, d := range dirs {
		if err := r.MkdirAll(d.path, d.perm); err != nil {
			return err
		}
	}
	if r.lock, err = r.OpenFile(own+"/lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("locking, as another Install may be under way: %w", err)
	}
	if err := r.RemoveAll(tmp); err != nil {
		return err
	}
	return r.Mkdir(tmp, 0o700)
}
