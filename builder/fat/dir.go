package fat

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/kscratch/kscratch/layers"
)

const (
	attrVolume  = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
	perLong     = 13 // characters in an entry of a long name
	maxName     = 255
	maxDir      = 65536 * entrySize
)

// node is a file or a directory to be written.
type node struct {
	file     layers.File
	name     string
	short    [11]byte
	dir      bool
	size     int64 // of the content, which for a directory is its entries
	cluster  uint32
	children []*node
	parent   *node // nil for the root
	label    string
	time     time.Time
}

// each calls f with n and all below it, parents first.
func (n *node) each(f func(*node)) {
	f(n)
	for _, c := range n.children {
		c.each(f)
	}
}

// plan makes nodes of the tree, with short names and directory sizes.
func plan(t *layers.Tree, o Options) (*node, error) {
	root := &node{dir: true, label: o.Label, time: dosTime(o.Time), file: layers.File{Path: "."}}
	dirs := map[string]*node{".": root}
	for f := range t.Files() {
		if f.Path == "." {
			continue
		}
		n := &node{file: f, name: path.Base(f.Path), dir: f.Mode.IsDir(), size: f.Size, parent: dirs[path.Dir(f.Path)], time: root.time}
		if err := n.check(); err != nil {
			return nil, fmt.Errorf("file /%s of %s: %w", f.Path, f.Owner, err)
		}
		n.parent.children = append(n.parent.children, n)
		if n.dir {
			dirs[f.Path] = n
		}
	}
	var failed error
	root.each(func(n *node) {
		if n.dir && failed == nil {
			failed = n.finish()
		}
	})
	return root, failed
}

func (n *node) check() error {
	switch {
	case !n.dir && !n.file.Mode.IsRegular():
		return fmt.Errorf("FAT cannot store a file of type %s", n.file.Mode.Type())
	case n.size < 0 || n.size > maxFile:
		return fmt.Errorf("size of %d bytes: FAT can store at most %d", n.size, maxFile)
	case len(utf16.Encode([]rune(n.name))) > maxName:
		return fmt.Errorf("name of more than %d characters", maxName)
	case strings.ContainsAny(n.name, "\"*/:<>?\\|") || strings.ContainsFunc(n.name, func(r rune) bool { return r < ' ' || r == 0xfffd }):
		return fmt.Errorf("name %q: has a character that FAT cannot store", n.name)
	case strings.TrimRight(n.name, " .") != n.name || strings.TrimLeft(n.name, " ") != n.name:
		return fmt.Errorf("name %q: FAT cannot store a leading space, or a space or dot at the end", n.name)
	}
	return nil
}

// finish orders a directory, gives short names and computes its size.
func (n *node) finish() error {
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	folded := map[string]*node{}
	taken := map[[11]byte]bool{}
	entries := 2 // "." and ".."
	if n.parent == nil {
		entries = 1 // the label
	}
	for _, c := range n.children {
		key := strings.ToUpper(c.name)
		if other := folded[key]; other != nil {
			return fmt.Errorf("file /%s of %s: FAT does not tell its name from %q of %s", c.file.Path, c.file.Owner, other.name, other.file.Owner)
		}
		folded[key] = c
		if err := c.shorten(taken); err != nil {
			return err
		}
		entries += 1 + len(longEntries(c.name, c.short))
	}
	n.size = int64(entries) * entrySize
	if n.size > maxDir {
		return fmt.Errorf("directory /%s: more than %d bytes of entries", n.file.Path, maxDir)
	}
	return nil
}

// shorten picks a short name that no other file of the directory has, as
// chapter 7 of the specification proposes: the name itself if it is one, else
// its beginning and a number.
func (n *node) shorten(taken map[[11]byte]bool) error {
	base, ext := n.name, ""
	if i := strings.LastIndexByte(n.name, '.'); i > 0 {
		base, ext = n.name[:i], n.name[i+1:]
	}
	sb, se := shortChars(base), shortChars(ext)
	if exact := shortName(sb, se); strings.ToUpper(n.name) == joined(sb, se) && len(sb) <= 8 && len(se) <= 3 && !taken[exact] {
		n.short, taken[exact] = exact, true
		return nil
	}
	for i := 1; i <= 999999; i++ {
		tail := fmt.Sprintf("~%d", i)
		s := shortName(sb[:min(len(sb), 8-len(tail))]+tail, se)
		if !taken[s] {
			n.short, taken[s] = s, true
			return nil
		}
	}
	return fmt.Errorf("file /%s of %s: no short name is left for it", n.file.Path, n.file.Owner)
}

func joined(base, ext string) string {
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// shortChars keeps of s what a short name may have, in upper case; other
// characters become "_", and spaces and dots go.
func shortChars(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '.':
			return -1
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("!#$%&'()-@^_`{}~", r):
			return r
		}
		return '_'
	}, s)
}

func shortName(base, ext string) (s [11]byte) {
	copy(s[:], fmt.Sprintf("%-8.8s%-3.3s", base, ext))
	return s
}

// encode writes the entries of a directory into b.
func (n *node) encode(b []byte) {
	put := func(short [11]byte, attr byte, cluster uint32, size int64) {
		n.entry(b, short, attr, cluster, size)
		b = b[entrySize:]
	}
	if n.parent == nil {
		if n.label != "" {
			put([11]byte([]byte(labelBytes(n.label, ""))), attrVolume, 0, 0)
		}
	} else {
		put([11]byte([]byte(".          ")), attrDir, n.cluster, 0)
		up := n.parent.cluster
		if n.parent.parent == nil {
			up = 0 // the root directory is 0 here, wherever it lies
		}
		put([11]byte([]byte("..         ")), attrDir, up, 0)
	}
	for _, c := range n.children {
		for _, l := range longEntries(c.name, c.short) {
			copy(b, l[:])
			b = b[entrySize:]
		}
		if c.dir {
			put(c.short, attrDir, c.cluster, 0)
		} else {
			put(c.short, attrArchive, c.cluster, c.size)
		}
	}
}

func (n *node) entry(b []byte, short [11]byte, attr byte, cluster uint32, size int64) {
	le := binary.LittleEndian
	date, clock := dosDate(n.time)
	copy(b, short[:])
	b[11] = attr
	le.PutUint16(b[14:], clock) // creation
	le.PutUint16(b[16:], date)
	le.PutUint16(b[18:], date) // last access
	le.PutUint16(b[20:], uint16(cluster>>16))
	le.PutUint16(b[22:], clock) // last write
	le.PutUint16(b[24:], date)
	le.PutUint16(b[26:], uint16(cluster))
	le.PutUint32(b[28:], uint32(size))
}

// longEntries returns the entries that carry a long name, in the order on disk,
// which is the last part first; none if the short name says it all.
func longEntries(name string, short [11]byte) [][entrySize]byte {
	if name == shortString(short) {
		return nil
	}
	u := utf16.Encode([]rune(name))
	n := (len(u) + perLong - 1) / perLong
	out := make([][entrySize]byte, n)
	for i := range n {
		e := &out[n-1-i]
		e[0] = byte(i + 1)
		if i == n-1 {
			e[0] |= 0x40
		}
		e[11] = attrLong
		e[13] = shortSum(short)
		for k := range perLong {
			binary.LittleEndian.PutUint16(e[longAt(k):], longChar(u, i*perLong+k))
		}
	}
	return out
}

// longChar is a character of a long name, or what fills it up.
func longChar(u []uint16, i int) uint16 {
	switch {
	case i < len(u):
		return u[i]
	case i == len(u):
		return 0
	}
	return 0xffff
}

// longAt returns where the k-th character lies in an entry of a long name.
func longAt(k int) int {
	switch {
	case k < 5:
		return 1 + 2*k
	case k < 11:
		return 14 + 2*(k-5)
	}
	return 28 + 2*(k-11)
}

// shortSum is the checksum by which a long name is tied to its short one.
func shortSum(short [11]byte) byte {
	var s byte
	for _, c := range short {
		s = s>>1 | s<<7
		s += c
	}
	return s
}

func shortString(short [11]byte) string {
	return joined(strings.TrimRight(string(short[:8]), " "), strings.TrimRight(string(short[8:]), " "))
}

// dosTime brings t into the range that FAT can store.
func dosTime(t time.Time) time.Time {
	t = t.UTC()
	if t.Year() < 1980 {
		return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if t.Year() > 2107 {
		return time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	return t
}

func dosDate(t time.Time) (date, clock uint16) {
	date = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return date, clock
}
