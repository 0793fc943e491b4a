package depmod

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Index is a map from strings to lists of strings, which [Index.Encode] writes
// as a kmod index, version 2.1: big-endian, a header of magic, version and
// root, then a compressed trie, each node before its children. A node is
//
//	prefix  bytes, NUL                      if offset has flag 0x80000000
//	first, last byte, last-first+1 offsets  if offset has flag 0x20000000
//	count uint32, count × {priority uint32, value bytes, NUL}   if flag 0x40000000
//
// and a missing child has offset 0. Keys are 7-bit ASCII. The zero Index is
// empty and ready for use.
type Index struct{ root node }

const (
	indexMagic   = 0xB007F457
	indexVersion = 2<<16 | 1

	flagPrefix   = 0x80000000
	flagValues   = 0x40000000
	flagChildren = 0x20000000
	offsetMask   = 0x0fffffff
)

type node struct {
	prefix   string
	values   []value
	children map[byte]*node
	at       int // offset in the file, once placed
}

type value struct {
	text     string
	priority uint32
}

// Add adds a value for key. The values of a key are in order of priority, the
// smallest first; of equal ones the last added is first.
func (x *Index) Add(key, text string, priority int) error {
	for _, s := range []string{key, text} {
		if slices.ContainsFunc([]byte(s), func(c byte) bool { return c == 0 || c > 127 }) {
			return fmt.Errorf("index entry %q: not 7-bit text", s)
		}
	}
	x.root.add(key, value{text, uint32(priority)})
	return nil
}

func (n *node) add(key string, v value) {
	for {
		i := common(n.prefix, key)
		if i < len(n.prefix) {
			n.split(i)
		}
		key = key[i:]
		if key == "" {
			n.insert(v)
			return
		}
		c := n.children[key[0]]
		if c == nil {
			if n.children == nil {
				n.children = map[byte]*node{}
			}
			n.children[key[0]] = &node{prefix: key[1:], values: []value{v}}
			return
		}
		n, key = c, key[1:]
	}
}

// split makes n end after i bytes of its prefix, with the rest as its child.
func (n *node) split(i int) {
	child := &node{prefix: n.prefix[i+1:], values: n.values, children: n.children}
	*n = node{prefix: n.prefix[:i], children: map[byte]*node{n.prefix[i]: child}}
}

func (n *node) insert(v value) {
	i, _ := slices.BinarySearchFunc(n.values, v, func(a, b value) int { return cmp.Compare(a.priority, b.priority) })
	n.values = slices.Insert(n.values, i, v)
}

func common(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i
}

// Encode returns the index file.
func (x *Index) Encode() ([]byte, error) {
	const header = 12
	if end := x.root.place(header); end > offsetMask {
		return nil, fmt.Errorf("index of %d bytes: want at most %d", end, offsetMask)
	}
	b := binary.BigEndian.AppendUint32(nil, indexMagic)
	b = binary.BigEndian.AppendUint32(b, indexVersion)
	b = binary.BigEndian.AppendUint32(b, x.root.ref())
	return x.root.encode(b), nil
}

// place puts n at an offset and its children behind it, and returns the end.
func (n *node) place(at int) int {
	n.at = at
	at += n.size()
	for _, c := range slices.Sorted(maps.Keys(n.children)) {
		at = n.children[c].place(at)
	}
	return at
}

// size returns the bytes that n takes, without its children.
func (n *node) size() int {
	size := 0
	if n.prefix != "" {
		size += len(n.prefix) + 1
	}
	if len(n.children) > 0 {
		first, last := n.bounds()
		size += 2 + 4*(int(last)-int(first)+1)
	}
	if len(n.values) > 0 {
		size += 4
	}
	for _, v := range n.values {
		size += 4 + len(v.text) + 1
	}
	return size
}

// ref returns the offset of n with the flags of what it has.
func (n *node) ref() uint32 {
	ref := uint32(n.at)
	if n.prefix != "" {
		ref |= flagPrefix
	}
	if len(n.children) > 0 {
		ref |= flagChildren
	}
	if len(n.values) > 0 {
		ref |= flagValues
	}
	return ref
}

func (n *node) encode(b []byte) []byte {
	if n.prefix != "" {
		b = append(append(b, n.prefix...), 0)
	}
	if len(n.children) > 0 {
		first, last := n.bounds()
		b = append(b, first, last)
		for c := int(first); c <= int(last); c++ {
			var ref uint32
			if child := n.children[byte(c)]; child != nil {
				ref = child.ref()
			}
			b = binary.BigEndian.AppendUint32(b, ref)
		}
	}
	if len(n.values) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(n.values)))
		for _, v := range n.values {
			b = binary.BigEndian.AppendUint32(b, v.priority)
			b = append(append(b, v.text...), 0)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(n.children)) {
		b = n.children[c].encode(b)
	}
	return b
}

func (n *node) bounds() (first, last byte) {
	first = 127
	for c := range n.children {
		first, last = min(first, c), max(last, c)
	}
	return first, last
}
