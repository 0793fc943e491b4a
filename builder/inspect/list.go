package inspect

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// Entry is a file of an image.
type Entry struct {
	Path  string    `json:"path"` // absolute
	Mode  string    `json:"mode"` // octal, with set-id and sticky bits
	Type  string    `json:"type"` // file, dir, link, device, fifo or socket
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Size  int64     `json:"size"` // bytes
	Time  time.Time `json:"time,omitzero"`
	Link  string    `json:"link,omitempty"`  // target
	Owner string    `json:"owner,omitempty"` // who brings it, where that is recorded
}

// List returns what is at p in one of an image's trees: of a directory what is
// in it, or with deep everything below it. Links on the way are followed.
func (i *Image) List(t *layers.Tree, p string, deep bool) ([]Entry, error) {
	at, err := t.Resolve(relative(p))
	if err != nil {
		return nil, err
	}
	if !at.Mode.IsDir() {
		return []Entry{i.entry(t, at)}, nil
	}
	out := []Entry{}
	for f := range t.Under(at.Path) {
		if f.Path != at.Path && (deep || path.Dir(f.Path) == at.Path) {
			out = append(out, i.entry(t, f))
		}
	}
	return out, nil
}

func (i *Image) entry(t *layers.Tree, f layers.File) Entry {
	e := Entry{
		Path: "/" + f.Path, Mode: Octal(f.Mode), Type: typeOf(f.Mode), UID: f.UID, GID: f.GID, Size: f.Size, Time: f.ModTime, Link: f.Link,
	}
	if t == i.Root {
		e.Owner = i.owners[f.Path].Owner
	}
	return e
}

// Cat copies the content of a file to w. Links are followed.
func Cat(t *layers.Tree, p string, w io.Writer) error {
	f, err := t.Resolve(relative(p))
	if err != nil {
		return err
	}
	if f.Open == nil {
		return fmt.Errorf("/%s is no regular file but a %s", f.Path, typeOf(f.Mode))
	}
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("reading /%s: %w", f.Path, err)
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("reading /%s: %w", f.Path, err)
	}
	return nil
}

// relative turns what a user writes into the path of a tree; ".." at the root
// stays there, as in the kernel.
func relative(p string) string {
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p == "" {
		return "."
	}
	return p
}

// Octal returns permission, set-id and sticky bits as four octal digits.
func Octal(m fs.FileMode) string {
	n := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			n |= b.bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

func typeOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "dir"
	case m.Type() == fs.ModeSymlink:
		return "link"
	case m&fs.ModeDevice != 0:
		return "device"
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "file"
}

func itoa(n int) string { return strconv.Itoa(n) }
