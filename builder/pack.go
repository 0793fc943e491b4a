package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/builder/direct"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/erofs"
	"github.com/kscratch/kscratch/builder/fat"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/builder/sbom"
	"github.com/kscratch/kscratch/builder/uki"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/layers"
)

// The partitions of an image, in order. The root comes last and is as large as
// its content: on a node it grows to the size of a slot.
const (
	partESP = iota
	partVerity
	partRoot
)

// Pack writes an image as <role>.<format>, for each format that the options
// name, with <role>.manifest.json and, if they say so, <role>.spdx.json beside
// it into a directory. Each file appears whole or not at all. Of several at
// work on one directory, all but one wait.
func Pack(ctx context.Context, img *Image, dir string, o Options) ([]Artifact, error) {
	manifest := string(img.Role) + ".manifest.json"
	names := []string{manifest, img.billName(), string(img.Role) + ".raw"}
	for _, f := range o.formats() {
		names = append(names, string(img.Role)+f.Ext)
	}
	unlock, err := lockOutput(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweepOutput(dir, names...); err != nil {
		return nil, err
	}
	raw, err := newOutput(dir, string(img.Role)+".raw")
	if err != nil {
		return nil, err
	}
	defer raw.drop()
	m, err := img.write(ctx, raw, o)
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", raw.name, err)
	}
	files, err := m.convert(ctx, raw, o)
	for _, f := range files {
		defer f.drop()
	}
	if err != nil {
		return nil, err
	}
	bill, err := img.bill(ctx, o)
	if err != nil {
		return nil, err
	}
	if bill != nil {
		m.Artifacts = append(m.Artifacts, Artifact{Name: img.billName(), Size: int64(len(bill)), Digest: layers.DigestOf(bill)})
	}
	m.Build.PeakRSS = peakRSS()
	b, err := m.encode()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := f.keep(); err != nil {
			return nil, err
		}
	}
	if bill != nil {
		if err := writeFile(filepath.Join(dir, img.billName()), bill); err != nil {
			return nil, err
		}
	}
	if err := writeFile(filepath.Join(dir, manifest), b); err != nil {
		return nil, err
	}
	artifacts := append(m.Artifacts, Artifact{Name: manifest, Size: int64(len(b)), Digest: layers.DigestOf(b)})
	img.rememberOutput(ctx, dir, artifacts, o)
	return artifacts, nil
}

func (img *Image) billName() string { return string(img.Role) + ".spdx.json" }

// bill renders the software bill of materials; nil if none is asked for.
func (img *Image) bill(ctx context.Context, o Options) ([]byte, error) {
	if !o.SBOM {
		return nil, nil
	}
	b, err := sbom.New(ctx, img.Root, sbom.Options{Name: imageID(img.Role), Version: img.Version, Time: img.Time, Tool: o.Version})
	if err != nil {
		return nil, err
	}
	return sbom.SPDX(b)
}

// convert makes the file of each format from the raw one and notes them in the
// manifest. It returns the files there are, also if it fails.
func (m *Manifest) convert(ctx context.Context, raw *output, o Options) (files []*output, err error) {
	src, err := blocks.NewFile(raw.File)
	if err != nil {
		return nil, err
	}
	for _, f := range o.formats() {
		name := string(m.Role) + f.Ext
		if name == raw.name {
			files = append(files, raw)
			continue
		}
		out, err := newOutput(raw.dir, name)
		if err != nil {
			return files, err
		}
		files = append(files, out)
		if err := writeFormat(ctx, out.File, f, src, o); err != nil {
			return files, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	for _, f := range files {
		a, err := f.seal(ctx, f.name, o)
		if err != nil {
			return files, fmt.Errorf("writing %s: %w", f.name, err)
		}
		m.Artifacts = append(m.Artifacts, a)
	}
	return files, nil
}

// write puts the whole disk into f. A root that is made comes first: its hash is
// in the kernel's command line, which is on the ESP. With one that is known,
// all of the disk is written, and its digest computed, in one pass.
func (img *Image) write(ctx context.Context, f *output, o Options) (Manifest, error) {
	if img.packed != nil {
		return img.writeKnown(ctx, f, o)
	}
	m := img.manifest
	m.Root = rootStats(img.Root)
	size, err := img.rootSize()
	if err != nil {
		return m, err
	}
	plan, err := img.plan(size)
	if err != nil {
		return m, err
	}
	if err := disk.Prepare(f.File, plan); err != nil {
		return m, err
	}
	d := direct.New(f.File)
	defer d.Close()
	hash, used, err := img.writeRoot(ctx, plan.Region(d, partRoot), plan.Region(d, partVerity), o)
	if err := errors.Join(err, d.Close()); err != nil {
		return m, err
	}
	if err := img.writeRest(ctx, f, plan, hash, used, &m); err != nil {
		return m, err
	}
	img.rememberRoot(ctx, m, hash, used, o)
	return m, nil
}

// writeKnown writes the disk with the root of an image that is there.
func (img *Image) writeKnown(ctx context.Context, f *output, o Options) (Manifest, error) {
	m, p := img.manifest, img.packed
	from, err := img.donor(f.dir)
	if err != nil {
		return m, err
	}
	defer from.close()
	plan, err := img.plan(p.Size)
	if err != nil {
		return m, err
	}
	if err := disk.Prepare(f.File, plan); err != nil {
		return m, err
	}
	if err := img.writeRest(ctx, f, plan, p.hash, map[int]int64{partRoot: p.Size, partVerity: p.Tree}, &m); err != nil {
		return m, err
	}
	sum := newDigester()
	src, err := blocks.NewFile(f.File)
	if err != nil {
		return m, err
	}
	if err := sum.addAll(ctx, section{src, 0, plan.Parts[partVerity].Offset}, 0, quiet{}); err != nil {
		return m, err
	}
	d := direct.NewWriter(f.File)
	defer d.Close()
	if err := errors.Join(img.copyRoot(ctx, from, plan, d, sum, o), d.Close()); err != nil {
		return m, err
	}
	last := plan.Parts[partRoot].Offset + plan.Parts[partRoot].Size
	if err := sum.addAll(ctx, section{src, last, plan.Size - last}, last, quiet{}); err != nil {
		return m, err
	}
	f.digest = sum.sum(plan.Size)
	return m, nil
}

// writeRest writes what the root hash decides: the ESP and the table. It notes
// the partitions and how much of each is used.
func (img *Image) writeRest(ctx context.Context, f *output, plan disk.Plan, hash verity.Hash, used map[int]int64, m *Manifest) error {
	esp, err := img.esp(ctx, hash)
	if err != nil {
		return err
	}
	r := plan.Region(f, partESP)
	if err := fat.Write(ctx, esp, r, r.Size(), fat.Options{
		VolumeID: img.volumeID(), Label: "ESP", Time: img.Time, Hidden: uint32(plan.Parts[partESP].Offset / 512),
	}); err != nil {
		return fmt.Errorf("writing the EFI system partition: %w", err)
	}
	data, tree := hash.UUIDs()
	plan = plan.WithGUID(partRoot, data).WithGUID(partVerity, tree)
	if err := disk.WriteTable(f, plan); err != nil {
		return err
	}
	m.RootHash = hash.String()
	used[partESP] = contentSize(esp)
	for i, p := range plan.Parts {
		m.Partitions = append(m.Partitions, Partition{
			Label: p.Label, Type: string(p.Type), UUID: uuidText(p.GUID), Offset: p.Offset, Size: p.Size, Used: used[i],
		})
	}
	return nil
}

// plan lays out the disk for a root of so many bytes, which must fit into a
// slot. The identifiers of the verity pair follow later.
func (img *Image) plan(root int64) (disk.Plan, error) {
	if root > int64(img.Disk.Root)*mib {
		return disk.Plan{}, fmt.Errorf("writing the root: it needs %d MiB, and disk.root allows %d; raise disk.root in the cluster file",
			(root+mib-1)/mib, img.Disk.Root)
	}
	return disk.Layout([]disk.Part{
		{Label: "ESP", Type: disk.ESP, GUID: img.uuid("esp", img.Version), Size: int64(img.Disk.ESP) * mib},
		{Label: "verity-" + img.Version, Type: disk.RootVerity, Attrs: disk.ReadOnly, Size: int64(veritySize(img.Disk.Root)) * mib},
		{Label: "root-" + img.Version, Type: disk.Root, Attrs: disk.ReadOnly, Size: root},
	}, disk.Options{GUID: img.uuid("disk", img.Version)})
}

func (img *Image) erofs() erofs.Options {
	return erofs.Options{Time: img.Time, UUID: img.uuid("root", img.RootID), Label: "kscratch"}
}

// rootSize returns the size of the root's file system in bytes.
func (img *Image) rootSize() (int64, error) {
	size, err := erofs.Size(img.Root, img.erofs())
	if err != nil {
		return 0, fmt.Errorf("writing the root: %w", err)
	}
	return size, nil
}

// writeRoot writes the root and its hash tree; the data is hashed while it is
// written. It returns how much of each partition is used.
func (img *Image) writeRoot(ctx context.Context, root, tree *disk.Region, o Options) (verity.Hash, map[int]int64, error) {
	h := verity.NewHasher(img.verity())
	defer h.Close()
	task := o.begin("root", root.Size())
	defer task.End()
	stats, err := erofs.Write(ctx, img.Root, &tee{root, h, task}, img.erofs())
	if err != nil {
		return verity.Hash{}, nil, fmt.Errorf("writing the root: %w", err)
	}
	hash, n, err := h.Tree(tree)
	if err != nil {
		return verity.Hash{}, nil, fmt.Errorf("writing the hash tree: %w", err)
	}
	return hash, map[int]int64{partRoot: stats.Size, partVerity: n}, nil
}

func (img *Image) verity() verity.Options {
	salt := sha256.Sum256([]byte("kscratch verity salt " + img.RootID))
	return verity.Options{Salt: salt[:], UUID: img.uuid("verity", img.RootID)}
}

// tee writes to the partition and to the hasher, and reports progress.
type tee struct {
	io.WriteSeeker
	also io.WriteSeeker
	task Task
}

func (t *tee) Write(b []byte) (int, error) {
	if n, err := t.WriteSeeker.Write(b); err != nil {
		return n, err
	}
	t.task.Add(int64(len(b)))
	return t.also.Write(b)
}

func (t *tee) Seek(offset int64, whence int) (int64, error) {
	if _, err := t.also.Seek(offset, whence); err != nil {
		return 0, err
	}
	return t.WriteSeeker.Seek(offset, whence)
}

// esp returns the files of the EFI system partition: the boot loader, its
// configuration, and the image as one signed-or-signable executable that may
// fail to boot three times before the loader falls back to another.
func (img *Image) esp(ctx context.Context, hash verity.Hash) (*layers.Tree, error) {
	kernel, err := img.uki(ctx, hash, "EFI/Linux/"+imageID(img.Role)+"_"+img.Version+"+3.efi")
	if err != nil {
		return nil, fmt.Errorf("making the unified kernel image: %w", err)
	}
	const owner = "kscratch:esp"
	loader := img.Boot.Loader
	first, second := loader, loader
	first.Path, second.Path = LoaderPaths[0], LoaderPaths[1]
	files := []layers.File{first, second, kernel}
	for _, f := range LoaderFiles {
		files = append(files, layers.Regular(f.Path, 0o644, owner, []byte(f.Text)))
	}
	t, err := layers.Merge(layers.Of("esp", "", files...))
	if err != nil {
		return nil, err
	}
	return t, nil
}

// LoaderPaths are where the boot loader is on the EFI system partition: for
// firmware that looks for any, and by its own name.
var LoaderPaths = [2]string{"EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"}

// LoaderFiles are the files that configure the boot loader.
var LoaderFiles = [2]struct{ Path, Text string }{
	{"loader/loader.conf", "timeout 0\nconsole-mode keep\neditor no\n"},
	{"loader/entries.srel", "type1\n"},
}

// uki returns the unified kernel image as a file at path; its content is put
// together while it is read.
func (img *Image) uki(ctx context.Context, hash verity.Hash, path string) (layers.File, error) {
	generic, err := img.genericInitrd(ctx)
	if err != nil {
		return layers.File{}, err
	}
	config, err := img.cpio(ctx, img.Config)
	if err != nil {
		return layers.File{}, err
	}
	stub, err := img.Boot.Stub.Read()
	if err != nil {
		return layers.File{}, err
	}
	i := uki.Image{
		Stub: stub, Linux: uki.Of(".linux", img.Boot.Kernel), Uname: img.Boot.Release,
		Initrd:  []uki.Section{uki.Bytes(".initrd", generic), uki.Bytes(".initrd", config)},
		Cmdline: img.Args + " roothash=" + hash.String(), OSRelease: img.osRelease(),
	}
	size, err := uki.Size(i)
	if err != nil {
		return layers.File{}, err
	}
	return layers.File{Path: path, Mode: 0o644, Owner: "kscratch:uki", Size: size, Open: func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			_, err := uki.Write(ctx, w, i)
			w.CloseWithError(err)
		}()
		return r, nil
	}}, nil
}

// genericInitrd is the part of the initrd that only the root decides.
func (img *Image) genericInitrd(ctx context.Context) ([]byte, error) {
	if img.packed != nil {
		return os.ReadFile(img.packed.initrd.Path)
	}
	if img.generic != nil {
		return img.generic, nil
	}
	var err error
	img.generic, err = img.cpio(ctx, img.Initrd)
	return img.generic, err
}

// osRelease names the image in the boot menu, which sorts by its version.
func (img *Image) osRelease() []byte {
	return fmt.Appendf(nil, "NAME=kscratch\nPRETTY_NAME=\"kscratch %s %s\"\nID=kscratch\nIMAGE_ID=%s\nIMAGE_VERSION=%s\nVERSION_ID=%s\n",
		img.Role, img.Version, imageID(img.Role), img.Version, img.Version)
}

func (img *Image) cpio(ctx context.Context, t *layers.Tree) ([]byte, error) {
	var b bytes.Buffer
	_, err := initrd.Write(ctx, &b, t, initrd.Options{Time: img.Time})
	return b.Bytes(), err
}

// hashed returns the artifact for a file that has been written.
func hashed(ctx context.Context, f *os.File, name string, o Options) (Artifact, error) {
	src, err := blocks.NewFile(f)
	if err != nil {
		return Artifact{}, err
	}
	task := o.begin("checksum", src.Size())
	defer task.End()
	r := direct.NewReader(f)
	defer r.Close()
	sum := newDigester()
	if err := sum.addAll(ctx, pastCache{src, r}, 0, task); err != nil {
		return Artifact{}, err
	}
	return Artifact{Name: name, Size: src.Size(), Digest: sum.sum(src.Size())}, nil
}

// pastCache is a file that is read past the page cache.
type pastCache struct {
	*blocks.File
	r *direct.Unbuffered
}

func (p pastCache) ReadAt(b []byte, off int64) (int, error) { return p.r.ReadAt(b, off) }

func contentSize(t *layers.Tree) (n int64) {
	for f := range t.Files() {
		n += f.Size
	}
	return n
}

// uuid derives an identifier from the version of the image, or of its root:
// version 8, RFC 9562.
func (img *Image) uuid(what, version string) (u [16]byte) {
	sum := sha256.Sum256([]byte("kscratch " + what + " " + imageID(img.Role) + " " + version))
	copy(u[:], sum[:])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}

func (img *Image) volumeID() uint32 {
	u := img.uuid("esp", img.Version)
	return uint32(u[0])<<24 | uint32(u[1])<<16 | uint32(u[2])<<8 | uint32(u[3])
}

func uuidText(u [16]byte) string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
