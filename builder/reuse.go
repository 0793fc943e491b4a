package builder

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/builder/direct"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/derive"
)

// Make brings the images of a role in a directory up to date with a lock, as
// [Build] and [Pack] would, and does no more than it must:
//
//   - Nothing, if the files of the same build are there as it left them.
//   - If the directory has a raw image with the very root that is wanted, only
//     what the cluster file decides is made. The root is copied from the image,
//     and every block of it is checked against its hash on the way.
//   - Else everything.
//
// The bytes are the same in all three ways.
func Make(ctx context.Context, s *Spec, l *Lock, role Role, dir string, o Options) ([]Artifact, error) {
	if a, ok := standing(l, role, dir, o); ok {
		o.log().Info("nothing has changed", "directory", dir)
		return a, nil
	}
	img, err := reconfigured(s, l, role, o)
	if err != nil {
		return nil, err
	}
	if img != nil {
		a, err := Pack(ctx, img, dir, o)
		if !errors.As(err, new(*noRootError)) {
			return a, err
		}
		o.log().Debug("making the root", "because", err)
	}
	if img, err = Build(ctx, s, l, role, o); err != nil {
		return nil, err
	}
	return Pack(ctx, img, dir, o)
}

// Kinds of what the content store remembers of builds.
const (
	kindOutput = "output"
	kindRoot   = "root"
)

// outputFile tells a file that a build left from one that was changed since.
type outputFile struct {
	Artifact
	ModTime time.Time
	Inode   uint64
}

func outputKey(l *Lock, role Role, dir string, o Options) (string, bool) {
	id, err := buildID()
	abs, absErr := filepath.Abs(dir)
	if err != nil || absErr != nil {
		return "", false
	}
	parts := []string{id, string(l.Digest()), string(role), abs, fmt.Sprint(o.SBOM), o.Version}
	for _, f := range o.formats() {
		parts = append(parts, f.Name)
	}
	return string(layers.DigestOfParts(parts...)), true
}

// standing returns what the last build for a lock wrote, if all of it is still
// there.
func standing(l *Lock, role Role, dir string, o Options) ([]Artifact, bool) {
	key, ok := outputKey(l, role, dir, o)
	if !ok {
		return nil, false
	}
	files, ok := cache.Recall[[]outputFile](o.Store, kindOutput, key)
	if !ok {
		return nil, false
	}
	var out []Artifact
	for _, f := range files {
		now, err := statOutput(dir, f.Artifact)
		if err != nil || now.Size != f.Size || now.Inode != f.Inode || !now.ModTime.Equal(f.ModTime) {
			return nil, false
		}
		out = append(out, f.Artifact)
	}
	return out, len(out) > 0
}

func statOutput(dir string, a Artifact) (outputFile, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, a.Name), &st); err != nil {
		return outputFile{}, err
	}
	f := outputFile{Artifact: a, ModTime: time.Unix(st.Mtim.Unix()), Inode: st.Ino}
	f.Size = st.Size
	return f, nil
}

// rememberOutput notes the files of a build. Who cannot note them builds again.
func (img *Image) rememberOutput(ctx context.Context, dir string, artifacts []Artifact, o Options) {
	key, ok := outputKey(img.lock, img.Role, dir, o)
	if !ok {
		return
	}
	var files []outputFile
	for _, a := range artifacts {
		f, err := statOutput(dir, a)
		if err != nil {
			return
		}
		files = append(files, f)
	}
	if err := cache.Remember(ctx, o.Store, kindOutput, key, files); err != nil {
		o.log().Debug("the next build will not know this one", "because", err)
	}
}

// packedRoot is what is known of a root that was built before: all that the
// other parts of an image need of it.
type packedRoot struct {
	Hash    string // root hash in hexadecimal
	Size    int64  // of the file system in bytes
	Tree    int64  // of the hash tree in bytes
	Stats   RootStats
	Release string // of the kernel
	Loader  layers.Digest
	Stub    layers.Digest
	Kernel  layers.Digest
	Initrd  layers.Digest // the archive of Image.Initrd
	Images  []BakedImage
	Derived []derive.Change

	hash   verity.Hash
	initrd cache.Blob
}

// rootKey names everything that a root and its part of the initrd derive from:
// what the lock pins, and this very program.
func rootKey(l *Lock, role Role) (string, bool) {
	id, err := buildID()
	if err != nil {
		return "", false
	}
	return id + " " + rootVersion(l, role), true
}

// rememberRoot notes a root that was written.
func (img *Image) rememberRoot(ctx context.Context, m Manifest, hash verity.Hash, used map[int]int64, o Options) {
	key, ok := rootKey(img.lock, img.Role)
	if !ok {
		return
	}
	if old, ok := cache.Recall[packedRoot](o.Store, kindRoot, key); ok && old.load(o.Store) == nil && old.hash == hash {
		return
	}
	p := packedRoot{
		Hash: hash.String(), Size: used[partRoot], Tree: used[partVerity], Stats: m.Root,
		Release: img.Boot.Release, Images: m.Images, Derived: m.Derived,
	}
	err := func() error {
		cpio, err := img.genericInitrd(ctx)
		if err != nil {
			return err
		}
		for _, f := range []struct {
			to   *layers.Digest
			open func() (io.ReadCloser, error)
		}{
			{&p.Loader, img.Boot.Loader.Open}, {&p.Stub, img.Boot.Stub.Open}, {&p.Kernel, img.Boot.Kernel.Open},
			{&p.Initrd, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(cpio)), nil }},
		} {
			b, err := o.Store.Put(ctx, func(_ context.Context, w io.Writer) error {
				r, err := f.open()
				if err != nil {
					return err
				}
				_, err = io.Copy(w, r)
				return errors.Join(err, r.Close())
			})
			if err != nil {
				return err
			}
			*f.to = b.Digest
		}
		return cache.Remember(ctx, o.Store, kindRoot, key, p)
	}()
	if err != nil {
		o.log().Debug("the next build will not know this root", "because", err)
	}
}

// reconfigured makes the image of a lock whose root was built before; nil if
// that is not known to be so, or if more than the root must be looked at.
func reconfigured(s *Spec, l *Lock, role Role, o Options) (*Image, error) {
	key, ok := rootKey(l, role)
	if !ok || o.SBOM || s.hasFlags(role) {
		return nil, nil
	}
	p, ok := cache.Recall[packedRoot](o.Store, kindRoot, key)
	b, judged := cache.Recall[basis](o.Store, kindBasis, key)
	if !ok || !judged || p.load(o.Store) != nil {
		return nil, nil
	}
	boot := BootFiles{Release: p.Release}
	for _, f := range []struct {
		to *layers.File
		d  layers.Digest
	}{{&boot.Loader, p.Loader}, {&boot.Stub, p.Stub}, {&boot.Kernel, p.Kernel}} {
		blob, ok := o.Store.Lookup(f.d)
		if !ok {
			return nil, nil
		}
		*f.to = layers.File{Path: "boot", Mode: 0o644, Owner: "root:" + rootVersion(l, role), Size: blob.Size, Open: blob.ReadCloser}
	}
	version := imageVersion(l, role)
	config, told, err := configTree(s, l, role, version, o)
	if err != nil {
		return nil, err
	}
	if err := b.judge(s, told, o); err != nil {
		return nil, err
	}
	m := newManifest(l, role, version, p.Images, p.Derived, told)
	m.Root = p.Stats
	return &Image{
		Role: role, Version: version, Time: l.Time, RootID: rootVersion(l, role), Config: config,
		Boot: boot, Args: kernelArgs(s), Disk: s.Disk, manifest: m, lock: l, packed: &p,
	}, nil
}

func (p *packedRoot) load(store *cache.Store) error {
	b, err := hex.DecodeString(p.Hash)
	if err != nil || copy(p.hash[:], b) != len(p.hash) || len(b) != len(p.hash) {
		return fmt.Errorf("root hash %q", p.Hash)
	}
	var ok bool
	if p.initrd, ok = store.Lookup(p.Initrd); !ok {
		return fmt.Errorf("no %s", p.Initrd)
	}
	return nil
}

// hasFlags reports whether a program must be asked about flags.
func (s *Spec) hasFlags(role Role) bool {
	for _, set := range s.flagSets() {
		if len(set.flags) > 0 && (!set.masters || role == Master) {
			return true
		}
	}
	return false
}

// noRootError says why a root cannot be taken from an image that is there.
type noRootError struct{ err error }

func (e *noRootError) Error() string { return e.err.Error() }
func (e *noRootError) Unwrap() error { return e.err }

// donor is an image that is there, with the root that is wanted.
type donor struct {
	file *os.File
	disk pastCache
	root disk.Placed
	tree disk.Placed
}

// donor opens the raw image in a directory if it has the root with a hash.
func (img *Image) donor(dir string) (*donor, error) {
	f, err := os.Open(filepath.Join(dir, string(img.Role)+".raw"))
	if err != nil {
		return nil, &noRootError{err}
	}
	d, err := openDonor(f, img.packed.hash)
	if err != nil {
		return nil, &noRootError{errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())}
	}
	return d, nil
}

func openDonor(f *os.File, hash verity.Hash) (*donor, error) {
	src, err := blocks.NewFile(f)
	if err != nil {
		return nil, err
	}
	table, err := disk.Open(src, src.Size())
	if err != nil {
		return nil, err
	}
	d := &donor{file: f}
	data, tree := hash.UUIDs()
	for _, p := range table.Parts {
		switch p.GUID {
		case data:
			d.root = p
		case tree:
			d.tree = p
		}
	}
	if d.root.Size == 0 || d.tree.Size == 0 {
		return nil, fmt.Errorf("it has another root than %s", hash)
	}
	d.disk = pastCache{src, direct.NewReader(f)}
	return d, nil
}

func (d *donor) close() { _ = errors.Join(d.disk.r.Close(), d.file.Close()) }

// section is a part of a source.
type section struct {
	blocks.Source
	off, n int64
}

func (s section) ReadAt(b []byte, off int64) (int, error) { return s.Source.ReadAt(b, s.off+off) }
func (s section) Size() int64                             { return s.n }
func (s section) Next(off int64) (start, end int64, err error) {
	start, end, err = s.Source.Next(s.off + off)
	return min(start-s.off, s.n), min(end-s.off, s.n), err
}

// copyRoot takes root and hash tree over from a donor. It writes both, adds
// them to the digest of the whole file, and checks them against the root hash:
// what is not whole is a *noRootError.
func (img *Image) copyRoot(ctx context.Context, from *donor, plan disk.Plan, f disk.File, sum *digester, o Options) error {
	p := img.packed
	if from.root.Size != plan.Parts[partRoot].Size || p.Tree > min(from.tree.Size, plan.Parts[partVerity].Size) {
		return &noRootError{fmt.Errorf("%s: its partitions have other sizes", from.file.Name())}
	}
	tree := make([]byte, p.Tree)
	if _, err := from.disk.ReadAt(tree, from.tree.Offset); err != nil {
		return &noRootError{err}
	}
	at := plan.Parts[partVerity].Offset
	if _, err := f.WriteAt(tree, at); err != nil {
		return err
	}
	sum.add(tree, at)

	h := img.hasher()
	defer h.Close()
	zeros := func(to int64) {
		for h.Size() < to {
			h.Write(zeroBlock[:min(to-h.Size(), int64(len(zeroBlock)))])
		}
	}
	at = plan.Parts[partRoot].Offset
	task := o.begin("root", p.Size)
	defer task.End()
	src := section{from.disk, from.root.Offset, p.Size}
	err := blocks.Each(ctx, src, 1<<20, nil, func(c *blocks.Chunk) error {
		zeros(c.Off)
		h.Write(c.Data)
		sum.add(c.Data, at+c.Off)
		task.Add(int64(len(c.Data)))
		_, err := f.WriteAt(c.Data, at+c.Off)
		return err
	})
	if err != nil {
		return err
	}
	zeros(p.Size)
	got := &memory{}
	hash, _, err := h.Tree(got)
	if err != nil {
		return err
	}
	if hash != p.hash || !bytes.Equal(got.b, tree) {
		return &noRootError{fmt.Errorf("%s: its root is damaged: it has the hash %s, want %s", from.file.Name(), hash, p.hash)}
	}
	return nil
}

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := off + int64(len(p)); need > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, need-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

// buildID is the identity of this very program, by the note that the Go linker
// puts into it: it changes with any of the code.
var buildID = sync.OnceValues(func() (string, error) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	note := f.Section(".note.go.buildid")
	if note == nil {
		return "", errors.New("this program has no build ID")
	}
	b, err := note.Data()
	if err != nil {
		return "", err
	}
	id := strings.Trim(string(b[min(len(b), 16):]), "\x00")
	if id == "" {
		return "", errors.New("this program has an empty build ID")
	}
	return id, nil
})
