// Package initrd chooses the files of an initial RAM file system and packs
// them as a cpio archive, as the kernel unpacks it.
//
// The archive has the "newc" format of
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html,
// compressed with Zstandard in one frame (CONFIG_RD_ZSTD, which Debian's
// kernels set) or not at all. All times are one parameter; the same tree and
// options give the same bytes, however many cores compress.
//
// An initrd may consist of several archives in a row; what a later one holds
// replaces what an earlier one does. So the generic part of an image can be
// cached and a small part with its configuration be put behind it, by [Concat]
// or by systemd-stub. The kernel's rules (init/initramfs.c): an uncompressed
// archive must start at a multiple of 4 bytes from the start of the initrd; a
// compressed one may start anywhere; zeros between archives are skipped. Every
// archive of [Write] ends at a multiple of 4, so they can simply be joined.
//
// [Read] reads such archives back.
//
// It does not support extended attributes, which the format cannot store,
// files of 4 GiB and more, or hard links (a tree has none; each file has an
// inode number and the link count 1). For what [Select] leaves out, see there.
package initrd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

// align is where the kernel expects headers, names, contents and archives.
const align = 4

// window is the distance in bytes over which the compressor finds repetitions.
// The kernel allocates as much when it unpacks, and takes up to 128 MiB.
const window = 8 << 20

// Options say how an archive is packed. The zero value is a compressed archive
// in which all times are 1970-01-01.
type Options struct {
	Time  time.Time // of all entries
	Plain bool      // do not compress
	Level int       // of zstd(1), from 1 to 22; 0 means 3
}

// Write writes t as an archive to w and returns its size in bytes, which is a
// multiple of 4. A file whose content is not as long as its Size is an error
// that names its path and owner.
func Write(ctx context.Context, w io.Writer, t *layers.Tree, o Options) (int64, error) {
	out := &counter{w: w}
	if err := write(ctx, out, t, o); err != nil {
		return out.n, fmt.Errorf("writing initrd: %w", err)
	}
	return out.n, nil
}

func write(ctx context.Context, out *counter, t *layers.Tree, o Options) error {
	if o.Plain {
		b := bufio.NewWriterSize(out, 1<<20)
		if err := writeArchive(ctx, &counter{w: b}, t, o.Time); err != nil {
			return err
		}
		return b.Flush()
	}
	level := o.Level
	if level == 0 {
		level = 3
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("starting compression: %w", err)
	}
	if err := errors.Join(writeArchive(ctx, &counter{w: z}, t, o.Time), z.Close()); err != nil {
		return err
	}
	return out.pad()
}

// Concat writes several archives in a row to w, each at a multiple of 4 bytes,
// and returns the size of all in bytes.
func Concat(w io.Writer, parts ...io.Reader) (int64, error) {
	out := &counter{w: w}
	for i, p := range parts {
		_, err := io.Copy(out, p)
		if err == nil {
			err = out.pad()
		}
		if err != nil {
			return out.n, fmt.Errorf("joining part %d of initrd: %w", i+1, err)
		}
	}
	return out.n, nil
}

// counter knows where it is in an archive.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) pad() error {
	var zeros [align]byte
	_, err := c.Write(zeros[:(align-c.n%align)%align])
	return err
}

// entry is a header of the format, in the order of its fields.
type entry struct {
	ino, mode, uid, gid, nlink, mtime, size, major, minor int64
	name                                                  string
}

const maxField = math.MaxUint32

func (c *counter) header(e entry) error {
	_, err := fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		e.ino, e.mode, e.uid, e.gid, e.nlink, e.mtime, e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	if err != nil {
		return err
	}
	return c.pad()
}

func writeArchive(ctx context.Context, out *counter, t *layers.Tree, at time.Time) error {
	mtime := at.Unix()
	if at.IsZero() {
		mtime = 0
	}
	if mtime < 0 || mtime > maxField {
		return fmt.Errorf("time %s: the format has 1970 to 2106", at)
	}
	buf := make([]byte, 256<<10)
	ino := int64(0)
	for f := range t.Files() {
		ino++
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeFile(ctx, out, f, ino, mtime, buf); err != nil {
			return fmt.Errorf("file /%s of %s: %w", f.Path, f.Owner, err)
		}
	}
	if err := out.header(entry{nlink: 1, name: "TRAILER!!!"}); err != nil {
		return err
	}
	return out.pad()
}

func writeFile(ctx context.Context, out *counter, f layers.File, ino, mtime int64, buf []byte) error {
	if err := check(f); err != nil {
		return err
	}
	e := entry{
		ino: ino, mode: unixMode(f.Mode), uid: int64(f.UID), gid: int64(f.GID), nlink: 1, mtime: mtime,
		size: f.Size, name: f.Path,
	}
	switch {
	case f.Mode.IsDir():
		e.nlink = 2
	case f.Mode.Type() == fs.ModeSymlink:
		e.size = int64(len(f.Link))
	case f.Mode&fs.ModeDevice != 0:
		e.major, e.minor = int64(unix.Major(f.Rdev)), int64(unix.Minor(f.Rdev))
	}
	if err := out.header(e); err != nil {
		return err
	}
	if f.Link != "" {
		if _, err := io.WriteString(out, f.Link); err != nil {
			return err
		}
	}
	if f.Open != nil {
		r, err := f.Open()
		if err != nil {
			return err
		}
		if err := errors.Join(copyExact(ctx, out, r, f.Size, buf), r.Close()); err != nil {
			return err
		}
	}
	return out.pad()
}

func check(f layers.File) error {
	switch {
	case f.Size < 0 || f.Size > maxField:
		return fmt.Errorf("size of %d bytes: the format has at most %d", f.Size, maxField)
	case len(f.Path) >= unix.PathMax || len(f.Link) >= unix.PathMax:
		return fmt.Errorf("path or link of more than %d bytes", unix.PathMax-1)
	case len(f.Xattrs) > 0:
		return errors.New("extended attributes: the format cannot store them")
	case f.Path == "TRAILER!!!":
		return errors.New("name ends the archive")
	}
	return nil
}

func unixMode(m fs.FileMode) int64 {
	out := int64(m.Perm())
	for _, b := range []struct {
		bit  fs.FileMode
		unix int64
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if m&b.bit != 0 {
			out |= b.unix
		}
	}
	switch m.Type() {
	case fs.ModeDir:
		return out | unix.S_IFDIR
	case fs.ModeSymlink:
		return out | unix.S_IFLNK
	case fs.ModeDevice:
		return out | unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return out | unix.S_IFCHR
	case fs.ModeNamedPipe:
		return out | unix.S_IFIFO
	case fs.ModeSocket:
		return out | unix.S_IFSOCK
	}
	return out | unix.S_IFREG
}

func copyExact(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("content ends after %d of %d bytes", at, size)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return fmt.Errorf("content goes on after %d bytes", size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
