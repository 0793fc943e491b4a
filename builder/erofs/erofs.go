// Package erofs writes a tree of files as an EROFS image, the read-only root of
// a node, and reads images back.
//
// Images are uncompressed, with blocks of 4096 bytes, a checksummed superblock
// and one time for all files; the same tree and options give the same bytes.
// The format is https://erofs.docs.kernel.org/en/latest/core_ondisk.html; the
// layout is made by github.com/erofs/go-erofs, to which this package adds the
// UUID, the label and the checksum, files that are opened ahead, and the check
// that each file is as long as it says.
//
// Data is streamed. Memory is the inodes and the files of less than a block,
// which the format keeps beside their inodes: below 5 KiB per entry of the
// tree, and the windows of [Options].Ahead.
//
// It does not support compression, several devices, hard links (each name is a
// file of its own), sub-second times, or extended attributes other than
// user.*, trusted.* and security.* (go-erofs writes POSIX ACLs under a name
// that the kernel does not look up).
package erofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/kscratch/kscratch/layers"
)

// BlockSize is the size of a block in bytes. The size of an image is a multiple
// of it.
const BlockSize = 4096

// Options say what an image has beside its files. The zero value works.
type Options struct {
	Time  time.Time // of all files and of the image; the zero value is 1970-01-01
	UUID  [16]byte  // of the file system
	Label string    // volume name, at most 15 bytes

	// Ahead is the number of files that are opened ahead of being written,
	// each with up to 256 KiB of content; 0 means 16.
	Ahead int
}

// Stats is what was written.
type Stats struct {
	Size   int64 // of the image in bytes, a multiple of [BlockSize]
	Inodes int   // entries of the tree
	Data   int64 // content of regular files in bytes
}

const (
	maxName   = 255
	maxTarget = 4095 // the kernel refuses links of a page or more
	maxLabel  = 15
)

// Write writes t as an image to w, starting at w's offset 0. All blocks come in
// order; then the first one is written again. A file whose content is not as
// long as its Size is an error that names its path and owner.
func Write(ctx context.Context, t *layers.Tree, w io.WriteSeeker, o Options) (Stats, error) {
	if err := check(t, o); err != nil {
		return Stats{}, fmt.Errorf("writing erofs image: %w", err)
	}
	if err := checkEmpty(t); err != nil {
		return Stats{}, fmt.Errorf("writing erofs image: %w", err)
	}
	a := newAhead(ctx, dataOrder(t), o.Ahead)
	defer a.close()
	s, err := write(ctx, t, w, o, a.source)
	if err != nil {
		return Stats{}, fmt.Errorf("writing erofs image: %w", err)
	}
	return s, nil
}

// Size returns the exact size in bytes of the image that [Write] makes of t. No
// file is opened.
func Size(t *layers.Tree, o Options) (int64, error) {
	if err := check(t, o); err != nil {
		return 0, fmt.Errorf("sizing erofs image: %w", err)
	}
	blank := func(layers.File) io.ReadCloser { return blankFile{} }
	s, err := write(context.Background(), t, discard{}, o, blank)
	if err != nil {
		return 0, fmt.Errorf("sizing erofs image: %w", err)
	}
	return s.Size, nil
}

// write makes an image whose file contents come from source.
func write(ctx context.Context, t *layers.Tree, w io.WriteSeeker, o Options, source func(layers.File) io.ReadCloser) (Stats, error) {
	sec := unixTime(o)
	out := &output{ctx: ctx, w: w, patch: func(b []byte) { identify(b, o) }}
	fsys := newTreeFS(t, sec, source)
	iw := goerofs.Create(out, goerofs.WithBuildTime(uint64(sec), 0), goerofs.WithBlockSize(BlockSize))
	if err := iw.CopyFrom(fsys); err != nil {
		return Stats{}, errors.Join(err, out.flush())
	}
	if err := iw.Close(); err != nil {
		return Stats{}, err
	}
	if err := out.flush(); err != nil {
		return Stats{}, err
	}
	if out.size%BlockSize != 0 {
		return Stats{}, fmt.Errorf("internal error: image has %d bytes, not whole blocks", out.size)
	}
	return Stats{Size: out.size, Inodes: max(t.Len(), 1), Data: fsys.data}, nil
}

func unixTime(o Options) int64 {
	if o.Time.IsZero() {
		return 0
	}
	return o.Time.Unix()
}

// check reports what the format, or our use of it, cannot hold.
func check(t *layers.Tree, o Options) error {
	if len(o.Label) > maxLabel {
		return fmt.Errorf("label %q: longer than %d bytes", o.Label, maxLabel)
	}
	if unixTime(o) < 0 {
		return fmt.Errorf("time %s: before 1970", o.Time)
	}
	for f := range t.Files() {
		if err := checkFile(f); err != nil {
			return fmt.Errorf("file /%s of %s: %w", f.Path, f.Owner, err)
		}
	}
	return nil
}

func checkFile(f layers.File) error {
	switch {
	case len(path.Base(f.Path)) > maxName:
		return fmt.Errorf("name of more than %d bytes", maxName)
	case len(f.Link) > maxTarget:
		return fmt.Errorf("link target of more than %d bytes", maxTarget)
	case f.Size < 0:
		return fmt.Errorf("size of %d bytes", f.Size)
	case f.Rdev>>32 != 0:
		return fmt.Errorf("device number %#x: more than 32 bits", f.Rdev)
	case f.Mode.Type()&^(fs.ModeDir|fs.ModeSymlink|fs.ModeDevice|fs.ModeCharDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return fmt.Errorf("type %s is not supported", f.Mode.Type())
	}
	return checkXattrs(f.Xattrs)
}

// maxXattrs bounds an inode's attributes: their size is stored in 16 bits as a
// number of words, and go-erofs does not check it.
const maxXattrs = 64 << 10

func checkXattrs(xattrs map[string]string) error {
	total := 0
	for name, value := range xattrs {
		prefix, rest, _ := strings.Cut(name, ".")
		if prefix != "user" && prefix != "trusted" && prefix != "security" || rest == "" || len(rest) > maxName {
			return fmt.Errorf("extended attribute %q is not supported", name)
		}
		total += len(rest) + len(value) + 8
	}
	if total > maxXattrs {
		return fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
	}
	return nil
}
