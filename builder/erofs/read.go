package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/kscratch/kscratch/layers"
)

// FS is what an image offers for reading. Open and Stat follow symbolic links;
// Lstat and ReadLink do not follow the last one.
type FS interface {
	fs.StatFS
	fs.ReadDirFS
	fs.ReadFileFS
	fs.ReadLinkFS
}

// Image is an EROFS image for reading.
type Image struct {
	FS
	UUID   [16]byte
	Label  string
	Time   time.Time // when it was built, as it says
	Size   int64     // bytes
	inodes uint64
}

// Open opens an image, which may lie in a larger partition. It checks the
// superblock; the rest is checked as it is read. Compressed images and those
// with several devices are an error once such a file is read.
func Open(r io.ReaderAt) (*Image, error) {
	block := make([]byte, BlockSize)
	if n, err := r.ReadAt(block, 0); n < len(block) {
		return nil, fmt.Errorf("opening erofs image: reading superblock: %w", err)
	}
	sb := block[sbOffset:]
	le := binary.LittleEndian
	if le.Uint32(sb[sbCompat:])&compatSBCksum != 0 && sb[12] == 12 {
		want := le.Uint32(sb[sbChecksum:])
		clean := bytes.Clone(sb)
		le.PutUint32(clean[sbChecksum:], 0)
		if got := checksum(clean); got != want {
			return nil, fmt.Errorf("opening erofs image: superblock has checksum %08x, want %08x", got, want)
		}
	}
	g, err := goerofs.Open(r)
	if err != nil {
		return nil, fmt.Errorf("opening erofs image: %w", err)
	}
	all, ok := g.(FS)
	if !ok {
		return nil, errors.New("internal error: go-erofs offers less than assumed")
	}
	return &Image{
		FS:     all,
		UUID:   [16]byte(sb[sbUUID : sbUUID+16]),
		Label:  string(bytes.TrimRight(sb[sbLabel:sbLabel+16], "\x00")),
		Time:   time.Unix(int64(le.Uint64(sb[sbBuildTime:])), 0).UTC(),
		Size:   int64(le.Uint32(sb[36:])) << min(sb[12], 31),
		inodes: le.Uint64(sb[16:]),
	}, nil
}

// Tree returns the files of the image as a tree, each owned by owner. The
// contents are read from the image when they are opened, so it must stay open.
func (i *Image) Tree(owner string) (*layers.Tree, error) {
	w := walker{image: i, owner: owner, left: i.inodes, seen: map[int64]bool{}}
	root, err := i.Lstat(".")
	if err == nil {
		err = w.walk(".", root)
	}
	if err != nil {
		return nil, fmt.Errorf("reading erofs image: %w", err)
	}
	t, err := layers.Merge(layers.Of(owner, "", w.files...))
	if err != nil {
		return nil, fmt.Errorf("reading erofs image: %w", err)
	}
	return t, nil
}

// walker collects entries. An image from outside may have directories that
// contain themselves: each inode of a directory is entered once, and there are
// no more entries than the superblock says.
type walker struct {
	image *Image
	owner string
	left  uint64
	seen  map[int64]bool
	files []layers.File
}

func (w *walker) walk(dir string, info fs.FileInfo) error {
	if err := w.add(dir, info); err != nil {
		return err
	}
	entries, err := w.image.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("directory /%s: %w", dir, err)
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if !fs.ValidPath(p) || path.Base(p) != e.Name() {
			return fmt.Errorf("directory /%s: bad name %q", dir, e.Name())
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("file /%s: %w", p, err)
		}
		if info.IsDir() {
			err = w.walk(p, info)
		} else {
			err = w.add(p, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) add(p string, info fs.FileInfo) error {
	if w.left == 0 {
		return fmt.Errorf("file /%s: more entries than the superblock says", p)
	}
	w.left--
	st, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return errors.New("internal error: go-erofs offers less than assumed")
	}
	if info.IsDir() && w.seen[st.Ino] {
		return fmt.Errorf("directory /%s: contains itself", p)
	}
	w.seen[st.Ino] = info.IsDir()
	f, err := w.file(p, info, st)
	if err != nil {
		return fmt.Errorf("file /%s: %w", p, err)
	}
	w.files = append(w.files, f)
	return nil
}

func (w *walker) file(p string, info fs.FileInfo, st *goerofs.Stat) (layers.File, error) {
	f := layers.File{
		Path: p, Mode: st.Mode, UID: st.UID, GID: st.GID, ModTime: info.ModTime().UTC(), Owner: w.owner,
	}
	if len(st.Xattrs) > 0 {
		f.Xattrs = st.Xattrs
	}
	switch {
	case f.Mode.IsRegular():
		f.Size = info.Size()
		f.Open = func() (io.ReadCloser, error) { return w.image.FS.Open(p) }
	case f.Mode.Type() == fs.ModeSymlink:
		link, err := w.image.ReadLink(p)
		if err != nil {
			return layers.File{}, err
		}
		f.Mode, f.Link = fs.ModeSymlink|0o777, link
	case f.Mode&fs.ModeDevice != 0:
		f.Rdev = uint64(st.Rdev)
	}
	return f, nil
}
