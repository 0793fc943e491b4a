package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/uki"
	"github.com/kscratch/kscratch/layers"
)

// Comparison is how a rebuild differs from an image.
type Comparison struct {
	Same    bool         `json:"same"`    // all bytes of the disk
	Secrets string       `json:"secrets"` // where the secrets of the rebuild came from
	Found   []Difference `json:"found"`   // the first ones; empty if Same
	More    int          `json:"more"`    // further ones
}

// Difference is one thing that differs.
type Difference struct {
	Part  string `json:"part"` // root, initrd, unified kernel image, EFI system partition, partition table or disk
	Path  string `json:"path,omitempty"`
	Owner string `json:"owner,omitempty"` // who brings the file
	What  string `json:"what"`            // what the image has, and what the rebuild
}

// maxFound is how many differences are told.
const maxFound = 20

func (c *Comparison) add(part, path, owner, what string) {
	if len(c.Found) == maxFound {
		c.More++
		return
	}
	c.Found = append(c.Found, Difference{part, path, owner, what})
}

func (c Comparison) text(w io.Writer) error {
	if c.Same {
		_, err := fmt.Fprintf(w, "  ok  rebuild: the same bytes, with the secrets of %s\n", c.Secrets)
		return err
	}
	for n, d := range c.Found {
		intro := "  and"
		if n == 0 {
			intro = "  the rebuild differs first in"
		}
		name := d.Part
		if d.Path != "" {
			name += " " + d.Path
		}
		if d.Owner != "" {
			name += " of " + d.Owner
		}
		if _, err := fmt.Fprintf(w, "%s %s:\n      %s\n", intro, name, d.What); err != nil {
			return err
		}
	}
	if c.More > 0 {
		_, err := fmt.Fprintf(w, "  and %d more\n", c.More)
		return err
	}
	return nil
}

// Compare compares an image with its rebuild: byte by byte, and if they differ,
// by files, so that it is known whose the difference is. Parts come in the
// order in which a build makes them: what is wrong in an early one shows in the
// later ones, too.
func Compare(ctx context.Context, a, b *inspect.Image) (Comparison, error) {
	at, err := firstDifference(ctx, a.Content(), b.Content())
	if err != nil || at < 0 {
		return Comparison{Same: err == nil}, err
	}
	c := Comparison{}
	for _, p := range []struct {
		name string
		a, b *layers.Tree
	}{{"root", a.Root, b.Root}, {"initrd", a.Initrd, b.Initrd}} {
		owner := func(string) string { return "" }
		if p.a == a.Root {
			owner = func(path string) string { return cmp.Or(a.Owner(path), b.Owner(path)) }
		}
		if err := c.trees(ctx, p.name, owner, p.a, p.b); err != nil {
			return c, err
		}
	}
	if err := c.sections(a, b); err != nil {
		return c, err
	}
	if err := c.trees(ctx, "EFI system partition", func(string) string { return "" }, a.ESP, b.ESP); err != nil {
		return c, err
	}
	c.tables(a, b)
	c.place(a, at)
	return c, nil
}

// place says where the first byte is that differs: with no file to name, it is
// all that is known.
func (c *Comparison) place(a *inspect.Image, at int64) {
	part := "outside of all partitions"
	for _, p := range a.Disk().Parts {
		if at >= p.Offset && at < p.Offset+p.Size {
			part = fmt.Sprintf("byte %d of partition %s", at-p.Offset, p.Label)
		}
	}
	c.add("disk", "", "", fmt.Sprintf("the first byte that differs is %d, %s", at, part))
}

// firstDifference returns where two disks differ first; -1 if nowhere. One may
// go on with zeros: some formats round sizes up.
func firstDifference(ctx context.Context, a, b blocks.Source) (int64, error) {
	x, y := blocks.NewReader(a), blocks.NewReader(b)
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(p)) {
		n, errA := io.ReadFull(x, p)
		m, errB := io.ReadFull(y, q)
		clear(p[n:])
		clear(q[m:])
		for _, err := range []error{errA, errB, ctx.Err()} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, err
			}
		}
		if !bytes.Equal(p, q) {
			for i := range p {
				if p[i] != q[i] {
					return off + int64(i), nil
				}
			}
		}
		if n < len(p) && m < len(q) {
			return -1, nil
		}
	}
}

// trees compares two file systems by path.
func (c *Comparison) trees(ctx context.Context, part string, owner func(string) string, a, b *layers.Tree) error {
	for f := range a.Files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		g, ok := b.Lookup(f.Path)
		if !ok || g.Path != f.Path {
			c.add(part, "/"+f.Path, owner(f.Path), "only in the image")
			continue
		}
		what, err := fileDifference(f, g)
		if err != nil {
			return err
		}
		if what != "" {
			c.add(part, "/"+f.Path, owner(f.Path), what)
		}
	}
	for g := range b.Files() {
		if f, ok := a.Lookup(g.Path); !ok || f.Path != g.Path {
			c.add(part, "/"+g.Path, owner(g.Path), "only in the rebuild")
		}
	}
	return nil
}

// fileDifference says what differs between two files; "" if nothing does.
func fileDifference(f, g layers.File) (string, error) {
	for _, v := range []struct {
		name string
		a, b any
	}{
		{"type", f.Mode.Type(), g.Mode.Type()}, {"mode", inspect.Octal(f.Mode), inspect.Octal(g.Mode)}, {"user", f.UID, g.UID}, {"group", f.GID, g.GID},
		{"link target", f.Link, g.Link}, {"device", f.Rdev, g.Rdev}, {"size", f.Size, g.Size},
		{"time", f.ModTime.Unix(), g.ModTime.Unix()},
	} {
		if v.a != v.b {
			return fmt.Sprintf("%s %v, rebuilt %v", v.name, v.a, v.b), nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		if v, ok := g.Xattrs[name]; !ok || v != f.Xattrs[name] {
			return fmt.Sprintf("extended attribute %s %q, rebuilt %q", name, f.Xattrs[name], v), nil
		}
	}
	if len(f.Xattrs) != len(g.Xattrs) {
		return fmt.Sprintf("%d extended attributes, rebuilt %d", len(f.Xattrs), len(g.Xattrs)), nil
	}
	if !f.Mode.IsRegular() {
		return "", nil
	}
	return contentDifference(f.Open, g.Open)
}

func contentDifference(a, b func() (io.ReadCloser, error)) (string, error) {
	x, err := a()
	if err != nil {
		return "", err
	}
	defer x.Close()
	y, err := b()
	if err != nil {
		return "", err
	}
	defer y.Close()
	p, q := bufio.NewReaderSize(x, window), bufio.NewReaderSize(y, window)
	for off := int64(0); ; {
		s, errA := p.Peek(window)
		t, errB := q.Peek(window)
		n := min(len(s), len(t))
		switch {
		case errors.Join(notEnd(errA), notEnd(errB)) != nil:
			return "", errors.Join(notEnd(errA), notEnd(errB))
		case !bytes.Equal(s[:n], t[:n]):
			i := 0
			for s[i] == t[i] {
				i++
			}
			return fmt.Sprintf("content from byte %d on: %#02x, rebuilt %#02x", off+int64(i), s[i], t[i]), nil
		case n == 0 && len(s) == len(t):
			return "", nil
		case n == 0:
			return fmt.Sprintf("one ends at byte %d", off), nil
		}
		p.Discard(n)
		q.Discard(n)
		off += int64(n)
	}
}

// window is how many bytes of a file are compared at once.
const window = 1 << 18

func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sections compares the parts of the unified kernel images. The initrd was
// compared by its files; if these are the same, it is packed otherwise.
func (c *Comparison) sections(a, b *inspect.Image) error {
	all, other := a.Sections(), b.Sections()
	for _, s := range all {
		t, ok := uki.Find(other, s.Name)
		if !ok {
			c.add("unified kernel image", s.Name, "", "only in the image")
			continue
		}
		what, err := contentDifference(s.Open, t.Open)
		if err != nil {
			return err
		}
		if text := a.Section(s.Name); what != "" && text != "" {
			what = fmt.Sprintf("%q, rebuilt %q", text, b.Section(s.Name))
		}
		if s.Size != t.Size {
			what = cmp.Or(what, fmt.Sprintf("size %d, rebuilt %d", s.Size, t.Size))
		}
		if what != "" {
			c.add("unified kernel image", s.Name, "", what)
		}
	}
	for _, t := range other {
		if _, ok := uki.Find(all, t.Name); !ok {
			c.add("unified kernel image", t.Name, "", "only in the rebuild")
		}
	}
	return nil
}

// tables compares the partition tables.
func (c *Comparison) tables(a, b *inspect.Image) {
	p, q := a.Disk(), b.Disk()
	if p.GUID != q.GUID {
		c.add("partition table", "", "", fmt.Sprintf("disk GUID %x, rebuilt %x", p.GUID, q.GUID))
	}
	for n := range max(len(p.Parts), len(q.Parts)) {
		if n >= len(p.Parts) || n >= len(q.Parts) {
			c.add("partition table", "", "", fmt.Sprintf("%d partitions, rebuilt %d", len(p.Parts), len(q.Parts)))
			return
		}
		x, y := p.Parts[n], q.Parts[n]
		s := fmt.Sprintf("%s %s %x %#x at %d of %d", x.Label, x.Type, x.GUID, x.Attrs, x.Offset, x.Size)
		t := fmt.Sprintf("%s %s %x %#x at %d of %d", y.Label, y.Type, y.GUID, y.Attrs, y.Offset, y.Size)
		if s != t {
			c.add("partition table", fmt.Sprintf("partition %d", n+1), "", s+", rebuilt "+t)
		}
	}
}
