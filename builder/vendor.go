package builder

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// The files of a vendor directory beside the inputs.
const (
	vendorSums = "SHA256SUMS" // in the form of sha256sum(1); written last
	vendorLock = "kscratch.lock"

	// While a call is at work: what earlier ones have put there, and what it
	// will. The next one removes of it what its lock has not.
	vendorOld = ".SHA256SUMS.old"
)

// vendorTops are the directories that inputs are in.
var vendorTops = []string{"debian", "debian-security", "programs", "images"}

// Vendored counts what a call of [Vendor] did.
type Vendored struct {
	Files   int   // inputs in the directory
	Bytes   int64 // of them
	Written int   // of which were not there before
	Removed int   // inputs of an earlier lock
}

// Vendor puts every input of a lock, of all roles, into a directory:
//
//	SHA256SUMS             digest and path of each input
//	kscratch.lock          the lock that they are for
//	debian/pool/…          packages, at their paths in the archive
//	debian-security/pool/…
//	programs/NAME-VERSION  the server tarball and programs, built ones as they are
//	images/HEX             archives; manifests, configurations and layers from registries
//
// Each file has a temporary name until it is whole and has the digest that the
// lock pins, and SHA256SUMS comes last, so that a directory with that file is
// complete. What is there already is checked and kept: a call that was
// interrupted is taken up by the next. What earlier calls have put there and the
// lock has no more is removed; a SHA256SUMS that lists other paths than those
// above is not ours, and an error. o.Vendor is not read if it is dir.
//
// Programs that are built from Go modules are there as they were built, not as
// modules: the lock pins their digests, a build would take a quarter of an hour
// and the very Go that the lock names, and the modules' sums are in the lock for
// whoever wants to compare.
func Vendor(ctx context.Context, s *Spec, l *Lock, dir string, o Options) (Vendored, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Vendored{}, &OutputError{dir, err}
	}
	if o.Vendor != "" && sameFile(o.Vendor, dir) {
		o.Vendor = ""
	}
	if err := fetchAll(ctx, s, l, o); err != nil {
		return Vendored{}, err
	}
	ns, err := needs(s, l, Roles, o)
	if err != nil {
		return Vendored{}, err
	}
	slices.SortFunc(ns, func(a, b need) int { return cmp.Compare(a.file, b.file) })
	unlock, err := lockOutput(ctx, dir, o)
	if err != nil {
		return Vendored{}, err
	}
	defer unlock()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Vendored{}, &OutputError{dir, err}
	}
	defer root.Close()
	return vendorInto(ctx, root, l, ns, o)
}

// sameFile reports whether two names are of one file or directory.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func vendorInto(ctx context.Context, root *os.Root, l *Lock, ns []need, o Options) (Vendored, error) {
	fail := func(name string, err error) (Vendored, error) {
		return Vendored{}, &OutputError{path.Join(root.Name(), name), err}
	}
	old, err := beginVendor(root, ns)
	if err != nil {
		return fail(vendorSums, err)
	}
	task := o.begin("vendor", blobBytes(ns, o))
	defer task.End()
	var v Vendored
	var sums bytes.Buffer
	keep := map[string]bool{}
	for _, n := range ns {
		size, wrote, err := vendorFile(ctx, root, n, o)
		if err != nil {
			return fail(n.file, err)
		}
		task.Add(size)
		v.Files, v.Bytes = v.Files+1, v.Bytes+size
		if wrote {
			v.Written++
		}
		keep[n.file] = true
		fmt.Fprintf(&sums, "%s  %s\n", n.digest.Hex(), n.file)
	}
	for file := range old {
		if keep[file] {
			continue
		}
		switch err := root.Remove(file); {
		case err == nil:
			v.Removed++
		case !errors.Is(err, fs.ErrNotExist):
			return fail(file, err)
		}
	}
	for _, f := range []struct {
		name string
		body []byte
	}{{vendorLock, l.encode()}, {vendorSums, sums.Bytes()}} {
		if err := placeFile(root, f.name, func(w io.Writer) error {
			_, err := w.Write(f.body)
			return err
		}); err != nil {
			return fail(f.name, err)
		}
	}
	if err := root.Remove(vendorOld); err != nil {
		return fail(vendorOld, err)
	}
	return v, nil
}

// beginVendor writes down what is in a vendor directory and what will be, and
// takes away its SHA256SUMS: until it is complete again, it is not. It returns
// what was there, as far as earlier calls say.
func beginVendor(root *os.Root, ns []need) (map[string]layers.Digest, error) {
	old := map[string]layers.Digest{}
	for _, name := range []string{vendorOld, vendorSums} {
		sums, err := readSums(root, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		for _, file := range slices.Sorted(maps.Keys(sums)) {
			if top, _, _ := strings.Cut(file, "/"); top == file || !slices.Contains(vendorTops, top) {
				return nil, fmt.Errorf("%s lists %s, which is no input by `kscratch vendor`: the directory is used for something else; name another one", name, file)
			}
		}
		maps.Copy(old, sums)
	}
	all := maps.Clone(old)
	for _, n := range ns {
		all[n.file] = n.digest
	}
	err := placeFile(root, vendorOld, func(w io.Writer) error {
		for _, file := range slices.Sorted(maps.Keys(all)) {
			if _, err := fmt.Fprintf(w, "%s  %s\n", all[file].Hex(), file); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := root.Remove(vendorSums); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return old, nil
}

// blobBytes returns the size of what is needed, as far as it is in the store.
func blobBytes(ns []need, o Options) int64 {
	var total int64
	for _, n := range ns {
		b, _ := o.Store.Lookup(n.digest)
		total += b.Size
	}
	return total
}

// vendorFile brings one input from the content store to its place, unless it
// is there.
func vendorFile(ctx context.Context, root *os.Root, n need, o Options) (size int64, wrote bool, err error) {
	b, ok := o.Store.Lookup(n.digest)
	if !ok {
		return 0, false, fmt.Errorf("internal error: %s is not in the content store after it was fetched", n.what)
	}
	if st, err := root.Stat(n.file); err == nil && st.Size() == b.Size {
		if d, err := digestFile(ctx, root, n.file); err == nil && d == n.digest {
			return b.Size, false, nil
		}
	}
	if err := root.MkdirAll(path.Dir(n.file), 0o755); err != nil {
		return 0, false, err
	}
	return b.Size, true, placeFile(root, n.file, func(w io.Writer) error {
		f, err := b.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, h), layers.WithContext(ctx, f)); err != nil {
			return err
		}
		if got := layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))); got != n.digest {
			return &InputError{What: n.what + " in the content store", Tampered: true, Err: fmt.Errorf("it is damaged: %w; remove %s",
				&cache.MismatchError{Want: n.digest, Got: got, Size: b.Size}, b.Path)}
		}
		return nil
	})
}

// placeFile writes a file under a temporary name beside its own, and renames it
// once it is whole and on the disk.
func placeFile(root *os.Root, name string, fill func(io.Writer) error) (err error) {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".part")
	f, err := root.Create(tmp)
	if err != nil {
		return err
	}
	err = fill(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return root.Rename(tmp, name)
}

func digestFile(ctx context.Context, root *os.Root, name string) (layers.Digest, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, layers.WithContext(ctx, f))
	return layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), err
}

// maxSums bounds SHA256SUMS in bytes; a lock of thousands of inputs needs less
// than one MiB.
const maxSums = 64 << 20

// readSums reads a list of a vendor directory: digests by path.
func readSums(root *os.Root, name string) (map[string]layers.Digest, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSums(io.LimitReader(f, maxSums))
}

// parseSums reads lines of sha256sum(1) in text mode.
func parseSums(r io.Reader) (map[string]layers.Digest, error) {
	out := map[string]layers.Digest{}
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		sum, name, ok := strings.Cut(sc.Text(), "  ")
		d := layers.Digest("sha256:" + sum)
		if !ok || d.Check() != nil || !fs.ValidPath(name) {
			return nil, fmt.Errorf("line %d: want 64 hexadecimal digits, two blanks and a path below the directory", n)
		}
		out[name] = d
	}
	return out, sc.Err()
}

// fetchAll brings every input of a lock into the content store.
func fetchAll(ctx context.Context, s *Spec, l *Lock, o Options) error {
	if err := supply(ctx, s, l, Roles, o); err != nil {
		return err
	}
	if err := fetchPackages(ctx, s, l, o); err != nil {
		return err
	}
	for _, f := range l.Files {
		if _, ok := o.Store.Lookup(f.Digest); ok {
			continue
		}
		if _, err := again(ctx, s, f, o); err != nil {
			return err
		}
	}
	for _, im := range l.Images {
		if err := fetchImage(ctx, s, im, o); err != nil {
			return imageError(im, err)
		}
	}
	return nil
}

// fetchPackages fetches the packages of a lock, those of images included.
func fetchPackages(ctx context.Context, s *Spec, l *Lock, o Options) error {
	all := slices.Clone(l.Packages)
	for _, im := range l.Images {
		all = append(all, im.Packages...)
	}
	var total int64
	for _, p := range all {
		total += p.Size
	}
	task := o.begin(inputPackages, total)
	defer task.End()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, p := range all {
		g.Go(func() error {
			if _, err := fetchDeb(ctx, s, l, p, o); err != nil {
				return debianError("getting package "+p.Name+"="+p.Version, err)
			}
			task.Add(p.Size)
			return nil
		})
	}
	return g.Wait()
}

// fetchImage brings an image into the content store that is not made from other
// inputs of the lock.
func fetchImage(ctx context.Context, s *Spec, im LockedImage, o Options) error {
	scheme, rest, _ := strings.Cut(im.From, ":")
	switch scheme + ":" {
	case serverScheme, programScheme, distroScheme:
		return nil
	case archiveScheme, layoutScheme, rootfsScheme:
		_, err := pinnedFile(ctx, im, o, under(o.Dir, rest))
		return err
	}
	ref := strings.TrimPrefix(im.From, registryScheme)
	r, err := registry(ctx, s, ref, o)
	if err != nil {
		return err
	}
	_, err = r.Pull(ctx, importer(o), images.Pin{From: ref, Ref: im.Name, Digest: im.Digest})
	return err
}

// vendorDir is a vendor directory that is read from.
type vendorDir struct {
	root *os.Root
	at   map[layers.Digest]string
}

func openVendor(dir string) (*vendorDir, error) {
	fail := func(err error) error {
		return &InputError{What: "reading the vendor directory " + dir, Err: err}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail(err)
	}
	sums, err := readSums(root, vendorSums)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("it has no %s, so it is none or not complete; run `kscratch vendor %s`", vendorSums, dir)
	} else if err != nil {
		err = fmt.Errorf("%s: %w; run `kscratch vendor %s`", vendorSums, err, dir)
	}
	if err != nil {
		return nil, errors.Join(fail(err), root.Close())
	}
	at := map[layers.Digest]string{}
	for file, d := range sums {
		at[d] = file
	}
	return &vendorDir{root, at}, nil
}

func (v *vendorDir) close() { v.root.Close() }

// take brings an input into the content store, which checks its digest. It
// reports whether the directory has it.
func (v *vendorDir) take(ctx context.Context, n need, o Options) (bool, error) {
	name, ok := v.at[n.digest]
	if !ok {
		return false, nil
	}
	_, err := o.Store.Fetch(ctx, n.digest, func(ctx context.Context, w io.Writer) error {
		f, err := v.root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, layers.WithContext(ctx, f))
		return err
	})
	if err != nil {
		return false, debianError("taking "+n.what+" from "+path.Join(v.root.Name(), name), err)
	}
	return true, nil
}
