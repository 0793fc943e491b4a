package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

const (
	whiteout     = ".wh."                   // a deleted file, in a layer's tar
	opaqueMarker = ".wh..wh..opq"           // a directory that hides those below it
	aufsPrefix   = ".wh..wh."               // what aufs kept for itself
	opaqueXattr  = "trusted.overlay.opaque" // the same, on an overlayfs layer
	maxMembers   = 2 << 20                  // of one layer
	maxLinks     = 40                       // symbolic links in one path, as in Linux
)

// unpackedSize returns the bytes that docker counts for an unpacked layer:
// regular files, a hard-linked one once, and the targets of symbolic links.
// It refuses tars that cannot be baked.
func unpackedSize(b cache.Blob) (int64, error) {
	f, err := b.Open()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var size int64
	seen := map[string]bool{}
	sr := io.NewSectionReader(f, 0, b.Size)
	tr := tar.NewReader(sr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading the layer's tar: %w", err)
		}
		if err := checkMember(h, seen); err != nil {
			return 0, err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if off, _ := sr.Seek(0, io.SeekCurrent); h.Size > b.Size-off {
				return 0, fmt.Errorf("member %q: truncated: %d of %d bytes: %w", h.Name, b.Size-off, h.Size, io.ErrUnexpectedEOF)
			}
			size += h.Size
		case tar.TypeSymlink:
			size += int64(len(h.Linkname))
		}
	}
}

func checkMember(h *tar.Header, seen map[string]bool) error {
	p, err := layers.TarPath(h.Name)
	if err != nil {
		return err
	}
	if seen[p] {
		return fmt.Errorf("member %q: is there twice, which docker refuses", h.Name)
	}
	seen[p] = true
	if h.Typeflag == tar.TypeSymlink && h.Linkname == "" {
		return fmt.Errorf("member %q: is a link to nothing", h.Name)
	}
	if len(seen) > maxMembers {
		return fmt.Errorf("layer has more than %d members", maxMembers)
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return fmt.Errorf("member %q: is sparse, which is not supported", h.Name)
		}
		// These steer overlayfs: a layer could redirect a directory to what
		// other layers hide.
		if x, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && strings.Contains(x, ".overlay.") {
			return fmt.Errorf("member %q: has the attribute %s, which only overlayfs may set", h.Name, x)
		}
	}
	return nil
}

// unpack returns the files of a layer as docker unpacks them for overlayfs:
// whiteouts are character devices 0/0, opaque directories bear an attribute,
// parents are there, a member below a symbolic link to a directory goes to the
// link's target. Paths are relative to the layer's root, which is ".".
func unpack(l Layer, owner string) (map[string]layers.File, error) {
	files := map[string]layers.File{".": layers.Dir(".", 0o755, owner)}
	for f, err := range l.Tar(owner).Files() {
		if err != nil {
			return nil, err
		}
		f.ModTime = f.ModTime.Truncate(time.Second)
		if err := place(files, f); err != nil {
			return nil, fmt.Errorf("unpacking /%s: %w", f.Path, err)
		}
	}
	return files, nil
}

func place(files map[string]layers.File, f layers.File) error {
	dir, base := path.Split(f.Path)
	if f.Path == "." {
		return put(files, f)
	}
	dir, err := mkdir(files, path.Clean("./"+dir), f.Owner)
	if err != nil {
		return err
	}
	switch hidden, ok := strings.CutPrefix(base, whiteout); {
	case base == opaqueMarker:
		files[dir] = opaque(files[dir])
		return nil
	case strings.HasPrefix(base, aufsPrefix):
		return nil
	case ok && (hidden == "" || hidden == "." || hidden == ".."):
		return fmt.Errorf("whiteout of %q", hidden)
	case ok:
		f = layers.File{Path: hidden, Mode: fs.ModeDevice | fs.ModeCharDevice, UID: f.UID, GID: f.GID, ModTime: f.ModTime, Owner: f.Owner}
		base = hidden
	}
	f.Path = path.Join(dir, base)
	return put(files, f)
}

// put adds a file. A directory may come after it was needed as a parent and
// keeps its being opaque; otherwise the later entry wins.
func put(files map[string]layers.File, f layers.File) error {
	old, ok := files[f.Path]
	switch {
	case !ok:
	case old.Mode.IsDir() && f.Mode.IsDir():
		if old.Xattrs[opaqueXattr] != "" {
			f = opaque(f)
		}
	case old.Mode.IsDir() || f.Mode.IsDir():
		return errors.New("is a directory and also something else")
	}
	files[f.Path] = f
	return nil
}

func opaque(f layers.File) layers.File {
	x := maps.Clone(f.Xattrs)
	if x == nil {
		x = map[string]string{}
	}
	x[opaqueXattr] = "y"
	f.Xattrs = x
	return f
}

// mkdir returns where the directory dir really is, after symbolic links, and
// makes what is missing of it.
func mkdir(files map[string]layers.File, dir, owner string) (string, error) {
	at, rest := ".", strings.Split(dir, "/")
	for links := 0; len(rest) > 0; {
		e := rest[0]
		rest = rest[1:]
		if e == "." || e == "" {
			continue
		}
		if e == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, e)
		f, ok := files[next]
		switch {
		case !ok:
			files[next] = layers.Dir(next, 0o755, owner)
			at = next
		case f.Mode.IsDir():
			at = next
		case f.Mode.Type() == fs.ModeSymlink:
			if links++; links > maxLinks {
				return "", fmt.Errorf("too many symbolic links at /%s", next)
			}
			if path.IsAbs(f.Link) {
				at = "."
			}
			rest = append(strings.Split(f.Link, "/"), rest...)
		default:
			return "", fmt.Errorf("/%s is not a directory", next)
		}
	}
	return at, nil
}
