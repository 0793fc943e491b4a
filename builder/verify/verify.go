// Package verify says whether a disk image is whole, and whether it is what
// its own recipe makes.
//
// [Check] reads all of an image: every block of the root against the root hash
// in the unified kernel image, both partition tables, the files of the EFI
// system partition and of the initrd against what the image records, and the
// file itself against the manifest beside it, if there is one. [Rebuild] builds
// the image again from the lock and the cluster file in it, and [Compare] names
// the first file that differs.
//
// An image vouches for itself only as far as somebody vouches for its root
// hash: Secure Boot, the digest in the manifest, or a rebuild.
//
// Not supported: images of a node that ran, and unused space. Of the latter the
// manifest's digest and a rebuild take care.
package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/iso"
	"github.com/kscratch/kscratch/builder/format/ova"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/layers"
)

// Report is what was looked at, and what was found.
type Report struct {
	Image  string   `json:"image"` // name of the file
	Format string   `json:"format"`
	Checks []Result `json:"checks"`

	// Rebuild is what a rebuild found; nil if there was none.
	Rebuild *Comparison `json:"rebuild,omitempty"`
}

// Result is what one check found.
type Result struct {
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`  // what is well
	Problem string `json:"problem,omitempty"` // what is not; empty if all is
}

// add notes the result of a check, and reports whether all is well.
func (r *Report) add(name, detail string, err error) bool {
	res := Result{Name: name, Detail: detail}
	if err != nil {
		res.Detail, res.Problem = "", err.Error()
	}
	r.Checks = append(r.Checks, res)
	return err == nil
}

// Err is an error if anything is not as it should be: a *[builder.InputError]
// that says Tampered if the image is not whole, and [ErrDiffers] if it is, and
// a rebuild made another.
func (r Report) Err() error {
	for _, c := range r.Checks {
		if c.Problem != "" {
			return &builder.InputError{What: "verifying " + r.Image, Tampered: true, Err: fmt.Errorf("%s: %s", c.Name, c.Problem)}
		}
	}
	if r.Rebuild != nil && !r.Rebuild.Same {
		return fmt.Errorf("verifying %s: %w", r.Image, ErrDiffers)
	}
	return nil
}

// ErrDiffers says that a rebuild did not make the same image.
var ErrDiffers = errors.New("the rebuild differs")

// Text writes a report for people.
func (r Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s (%s)\n", r.Image, r.Format)
	for _, c := range r.Checks {
		mark := "ok"
		if c.Problem != "" {
			mark = "BAD"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", mark, c.Name, c.Detail+c.Problem)
	}
	if err := t.Flush(); err != nil || r.Rebuild == nil {
		return err
	}
	return r.Rebuild.text(w)
}

// Check verifies the image in a file of any format that is read. What can only
// be read from its start goes through a nameless file in the directory spool.
// It returns the image for further questions; nil if it is too damaged for
// that. A file that is no disk image is an error; everything else that is
// wrong is in the report.
func Check(ctx context.Context, path, spool string) (Report, *inspect.Image, error) {
	file, err := format.Open(ctx, path, spool)
	if err != nil {
		return Report{}, nil, &builder.InputError{What: "verifying an image", Err: err}
	}
	r := Report{Image: path, Format: file.Format}
	m, err := besides(path)
	if err == nil && m != nil {
		var detail string
		detail, err = m.vouches(ctx, path, file.File)
		r.add("manifest", detail, err)
	} else if err != nil {
		r.add("manifest", "", err)
	}
	if file.Format == "ova" {
		r.add("appliance", "its files are as its manifest says", ova.Check(ctx, file.File, file.File.Size()))
	}
	if file.Format == "iso" {
		r.add("CD", "its file system is the one of its disk", iso.Check(file.File))
	}
	r.add("partition table", "protective MBR, table and backup", disk.Check(file, file.Size()))
	img, err := inspect.New(ctx, path, file)
	if err := ctx.Err(); err != nil {
		return Report{}, nil, errors.Join(err, file.Close())
	}
	if err != nil {
		r.add("contents", "", err)
		return r, nil, file.Close()
	}
	for _, c := range checks {
		detail, err := c.do(ctx, img)
		if ctx.Err() != nil {
			return Report{}, nil, errors.Join(ctx.Err(), img.Close())
		}
		r.add(c.name, detail, err)
	}
	if m != nil {
		r.add("manifest and image", "role, version, lock, root hash, partitions", m.agrees(img))
	}
	return r, img, nil
}

// manifest is what a build wrote beside an image.
type manifest struct {
	name string
	builder.Manifest
}

// besides returns the manifest that is beside an image and names it; nil if
// there is none.
func besides(path string) (*manifest, error) {
	for _, role := range builder.Roles {
		name := filepath.Join(filepath.Dir(path), string(role)+".manifest.json")
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		m := &manifest{name: name}
		if err == nil {
			err = json.Unmarshal(b, &m.Manifest)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if _, ok := m.artifact(path); ok {
			return m, nil
		}
	}
	return nil, nil
}

func (m *manifest) artifact(path string) (builder.Artifact, bool) {
	for _, a := range m.Artifacts {
		if a.Name == filepath.Base(path) {
			return a, true
		}
	}
	return builder.Artifact{}, false
}

// vouches holds a file to its size and digest in the manifest.
func (m *manifest) vouches(ctx context.Context, path string, f *blocks.File) (string, error) {
	a, _ := m.artifact(path)
	if f.Size() != a.Size {
		return "", fmt.Errorf("the file has %d bytes, %s says %d", f.Size(), m.name, a.Size)
	}
	got, err := digestOf(ctx, f)
	if err == nil && got != a.Digest {
		err = fmt.Errorf("the file has the digest %s, %s says %s", got, m.name, a.Digest)
	}
	return string(a.Digest), err
}

// agrees holds what a manifest says to the image.
func (m *manifest) agrees(i *inspect.Image) error {
	hash, err := i.RootHash()
	if err != nil {
		return err
	}
	type fact struct{ name, image, manifest string }
	facts := []fact{
		{"role", i.Build.Role, string(m.Role)}, {"version", i.Build.Version, m.Version},
		{"lock", string(i.Build.Lock), string(m.Lock)}, {"root hash", hash.String(), m.RootHash},
		{"partitions", fmt.Sprint(len(i.Disk().Parts)), fmt.Sprint(len(m.Partitions))},
	}
	for n, p := range i.Disk().Parts {
		if n < len(m.Partitions) {
			q := m.Partitions[n]
			facts = append(facts, fact{
				"partition " + p.Label, fmt.Sprint(p.Label, p.Type, p.Offset, p.Size), fmt.Sprint(q.Label, q.Type, q.Offset, q.Size),
			})
		}
	}
	for _, f := range facts {
		if f.image != f.manifest {
			return fmt.Errorf("%s is %s in the image, %s in %s", f.name, f.image, f.manifest, m.name)
		}
	}
	return nil
}

func digestOf(ctx context.Context, src blocks.Source) (layers.Digest, error) {
	h, r := sha256.New(), blocks.NewReader(src)
	b := make([]byte, 1<<20)
	for {
		n, err := r.Read(b)
		h.Write(b[:n])
		if errors.Is(err, io.EOF) {
			return layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
		}
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return "", err
		}
	}
}
