package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

// maxUnpacked bounds the archives that are read, in bytes.
const maxUnpacked = 1 << 30

// headerSize is the size of a header of the newc format in bytes.
const headerSize = 110

// Read returns the files of an initrd, each owned by owner: of several archives
// a later one replaces what an earlier one holds, as the kernel has it.
// Archives may be compressed with Zstandard or not at all; other compressors,
// hard links with content of their own, and archives that unpack to more than
// 1 GiB are errors.
func Read(b []byte, owner string) (*layers.Tree, error) {
	r := reader{owner: owner, files: map[string]layers.File{}}
	if err := r.archives(b); err != nil {
		return nil, fmt.Errorf("reading initrd: %w", err)
	}
	files := make([]layers.File, 0, len(r.files))
	for _, f := range r.files {
		files = append(files, f)
	}
	t, err := layers.Merge(layers.Of(owner, "", files...))
	if err != nil {
		return nil, fmt.Errorf("reading initrd: %w", err)
	}
	return t, nil
}

// reader collects the files of archives.
type reader struct {
	owner string
	files map[string]layers.File
	total int // bytes unpacked so far
}

func (r *reader) archives(b []byte) error {
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxUnpacked), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	for b = bytes.TrimLeft(b, "\x00"); len(b) > 0; b = bytes.TrimLeft(b, "\x00") {
		if bytes.HasPrefix(b, []byte("0707")) {
			n, err := r.archive(b)
			if err != nil {
				return err
			}
			b = b[n:]
			continue
		}
		n, err := frameSize(b)
		if err != nil {
			return err
		}
		plain, err := z.DecodeAll(b[:n], nil)
		if err != nil {
			return fmt.Errorf("unpacking archive: %w", err)
		}
		if r.total += len(plain); r.total > maxUnpacked {
			return fmt.Errorf("archives unpack to more than %d bytes", maxUnpacked)
		}
		for plain = bytes.TrimLeft(plain, "\x00"); len(plain) > 0; plain = bytes.TrimLeft(plain, "\x00") {
			n, err := r.archive(plain)
			if err != nil {
				return err
			}
			plain = plain[n:]
		}
		b = b[n:]
	}
	return nil
}

// frameSize returns the size of the Zstandard frame that b begins with in
// bytes, RFC 8878, section 3.1.1. Unlike the decoder it stops at its end.
func frameSize(b []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, fmt.Errorf("archive is neither cpio nor Zstandard: %w", err)
	}
	n := h.HeaderSize
	if h.Skippable {
		n += int(h.SkippableSize)
	}
	for last := h.Skippable; !last; {
		if n+3 > len(b) {
			return 0, fmt.Errorf("unpacking archive: %w", io.ErrUnexpectedEOF)
		}
		block := int(b[n]) | int(b[n+1])<<8 | int(b[n+2])<<16
		last = block&1 == 1
		n += 3
		if block>>1&3 == 1 { // one byte, repeated
			n++
		} else {
			n += block >> 3
		}
	}
	if !h.Skippable && h.HasCheckSum {
		n += 4
	}
	if n > len(b) {
		return 0, fmt.Errorf("unpacking archive: %w", io.ErrUnexpectedEOF)
	}
	return n, nil
}

// archive takes the members of one archive and returns its size in bytes.
func (r *reader) archive(b []byte) (int, error) {
	for at := 0; ; {
		m, err := parseMember(b[at:])
		if err != nil {
			return 0, fmt.Errorf("member at byte %d: %w", at, err)
		}
		at += m.size
		if m.name == "TRAILER!!!" {
			return at, nil
		}
		if err := r.add(m); err != nil {
			return 0, fmt.Errorf("member %q: %w", m.name, err)
		}
	}
}

// member is an entry of an archive.
type member struct {
	name    string
	mode    uint32
	uid     uint32
	gid     uint32
	links   uint32
	mtime   uint32
	major   uint32
	minor   uint32
	content []byte
	size    int // of the whole entry in the archive, padding included
}

func parseMember(b []byte) (member, error) {
	if len(b) < headerSize {
		return member{}, io.ErrUnexpectedEOF
	}
	if string(b[:6]) != "070701" {
		return member{}, errors.New("not in the newc format")
	}
	var f [13]uint32
	for i := range f {
		n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			return member{}, fmt.Errorf("header field %d: %w", i, err)
		}
		f[i] = uint32(n)
	}
	size, name := int64(f[6]), int64(f[11])
	start := round(headerSize + name)
	if name < 1 || start+size > int64(len(b)) {
		return member{}, io.ErrUnexpectedEOF
	}
	return member{
		name: strings.TrimRight(string(b[headerSize:headerSize+name]), "\x00"),
		mode: f[1], uid: f[2], gid: f[3], links: f[4], mtime: f[5], major: f[9], minor: f[10],
		content: b[start : start+size], size: int(min(round(start+size), int64(len(b)))),
	}, nil
}

func round(n int64) int64 { return (n + align - 1) &^ (align - 1) }

func (r *reader) add(m member) error {
	p := path.Clean(strings.TrimLeft(m.name, "/"))
	if !fs.ValidPath(p) {
		return errors.New("bad name")
	}
	f := layers.File{
		Path: p, UID: m.uid, GID: m.gid, ModTime: time.Unix(int64(m.mtime), 0).UTC(), Owner: r.owner,
		Mode: fs.FileMode(m.mode & 0o777),
	}
	for bit, mode := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m.mode&bit != 0 {
			f.Mode |= mode
		}
	}
	switch m.mode & unix.S_IFMT {
	case unix.S_IFREG:
		if m.links > 1 {
			return errors.New("hard links are not supported")
		}
		f.Size = int64(len(m.content))
		f.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.content)), nil }
	case unix.S_IFDIR:
		f.Mode |= fs.ModeDir
	case unix.S_IFLNK:
		f.Mode, f.Link = fs.ModeSymlink|0o777, string(m.content)
	case unix.S_IFCHR:
		f.Mode |= fs.ModeDevice | fs.ModeCharDevice
		f.Rdev = unix.Mkdev(m.major, m.minor)
	case unix.S_IFBLK:
		f.Mode |= fs.ModeDevice
		f.Rdev = unix.Mkdev(m.major, m.minor)
	case unix.S_IFIFO:
		f.Mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		f.Mode |= fs.ModeSocket
	default:
		return fmt.Errorf("mode %o is of no type that is known", m.mode)
	}
	r.files[p] = f
	return nil
}
