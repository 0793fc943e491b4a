package hwdb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// Sizes of the structures of the file.
const (
	headerSize = 80
	nodeSize   = 24
	childSize  = 16
	valueSize  = 32
)

// origin is where a property comes from.
type origin struct {
	file     string
	line     uint32
	priority uint16
}

type trie struct {
	root    *node
	strings *strbuf
}

// node is the part of a match string that all below it share. Offsets are
// into the strings.
type node struct {
	prefix   int
	children []child // by c
	values   []value // by key
}

type child struct {
	c    byte
	node *node
}

type value struct {
	key, text, file int
	line            uint32
	priority        uint16
}

func newTrie() *trie { return &trie{root: &node{}, strings: newStrbuf()} }

func byByte(a child, c byte) int { return cmp.Compare(a.c, c) }

func (n *node) add(c byte, to *node) {
	i, _ := slices.BinarySearchFunc(n.children, c, byByte)
	n.children = slices.Insert(n.children, i, child{c, to})
}

// insert adds a property to a match string. The order in which strings are
// added decides their offsets, and follows systemd's.
func (t *trie) insert(match, key, text string, from origin) {
	n := t.root
	for {
		prefix := t.strings.at(n.prefix)
		p := 0
		for p < len(prefix) && p < len(match) && prefix[p] == match[p] {
			p++
		}
		if p < len(prefix) {
			t.split(n, p)
		}
		match = match[p:]
		if match == "" {
			t.set(n, key, text, from)
			return
		}
		i, ok := slices.BinarySearchFunc(n.children, match[0], byByte)
		if !ok {
			leaf := &node{prefix: t.strings.add(match[1:])}
			n.add(match[0], leaf)
			t.set(leaf, key, text, from)
			return
		}
		n, match = n.children[i].node, match[1:]
	}
}

// split makes n end after p bytes of its prefix, with the rest as its child.
func (t *trie) split(n *node, p int) {
	prefix := t.strings.at(n.prefix)
	c := prefix[p]
	rest := &node{prefix: n.prefix + p + 1, children: n.children, values: n.values}
	*n = node{prefix: t.strings.add(string(prefix[:p]))}
	n.add(c, rest)
}

func (t *trie) set(n *node, key, text string, from origin) {
	v := value{key: t.strings.add(key), text: t.strings.add(text), file: t.strings.add(from.file), line: from.line, priority: from.priority}
	i, ok := slices.BinarySearchFunc(n.values, v, func(a, b value) int {
		return bytes.Compare(t.strings.at(a.key), t.strings.at(b.key))
	})
	if ok {
		v.key = n.values[i].key
		n.values[i] = v
		return
	}
	n.values = slices.Insert(n.values, i, v)
}

func (n *node) size() int {
	size := nodeSize + childSize*len(n.children) + valueSize*len(n.values)
	for _, c := range n.children {
		size += c.node.size()
	}
	return size
}

func (t *trie) encode(version uint64) []byte {
	nodes := t.root.size()
	e := encoder{b: make([]byte, headerSize, headerSize+nodes+len(t.strings.b)), strings: headerSize + nodes}
	root := e.node(t.root)
	e.b = append(e.b, t.strings.b...)
	h := append([]byte(nil), "KSLPHHRH"...)
	for _, n := range []uint64{
		version, uint64(len(e.b)), headerSize, nodeSize, childSize, valueSize,
		uint64(root), uint64(nodes), uint64(len(t.strings.b)),
	} {
		h = binary.LittleEndian.AppendUint64(h, n)
	}
	copy(e.b, h)
	return e.b
}

type encoder struct {
	b       []byte
	strings int // offset of the strings in the file
}

// node writes the children of n, then n, and returns its offset.
func (e *encoder) node(n *node) int {
	offsets := make([]int, len(n.children))
	for i, c := range n.children {
		offsets[i] = e.node(c.node)
	}
	at := len(e.b)
	e.uint64(e.strings + n.prefix)
	e.uint64(len(n.children)) // a byte, padded
	e.uint64(len(n.values))
	for i, c := range n.children {
		e.uint64(int(c.c)) // a byte, padded
		e.uint64(offsets[i])
	}
	for _, v := range n.values {
		e.uint64(e.strings + v.key)
		e.uint64(e.strings + v.text)
		e.uint64(e.strings + v.file)
		e.b = binary.LittleEndian.AppendUint32(e.b, v.line)
		e.b = binary.LittleEndian.AppendUint16(e.b, v.priority)
		e.b = append(e.b, 0, 0)
	}
	return at
}

func (e *encoder) uint64(n int) { e.b = binary.LittleEndian.AppendUint64(e.b, uint64(n)) }
