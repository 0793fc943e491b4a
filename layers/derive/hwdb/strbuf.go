package hwdb

import (
	"bytes"
	"slices"
	"strings"
)

// strbuf is a block of NUL-terminated strings. A string that is the tail of
// one already there is not stored again, as far as systemd's strbuf finds it:
// it keeps a trie over the reversed strings with one new node for each string
// stored.
type strbuf struct {
	b    []byte
	root *tail
}

type tail struct {
	off, len int
	children []tailChild // by c
}

type tailChild struct {
	c    byte
	node *tail
}

func newStrbuf() *strbuf { return &strbuf{b: []byte{0}, root: &tail{}} }

// at returns the string at an offset.
func (s *strbuf) at(off int) []byte {
	return s.b[off : off+bytes.IndexByte(s.b[off:], 0)]
}

// add returns the offset of str, which it stores if need be.
func (s *strbuf) add(str string) int {
	if str == "" {
		return 0
	}
	n := s.root
	for depth := 0; depth <= len(str); depth++ {
		off := n.off + n.len - len(str)
		if depth == len(str) || n.len >= len(str) && strings.HasPrefix(string(s.b[off:n.off+n.len]), str) {
			return off
		}
		c := str[len(str)-1-depth]
		i, ok := slices.BinarySearchFunc(n.children, c, func(a tailChild, c byte) int { return int(a.c) - int(c) })
		if !ok {
			n.children = slices.Insert(n.children, i, tailChild{c, &tail{off: len(s.b), len: len(str)}})
			break
		}
		n = n.children[i].node
	}
	off := len(s.b)
	s.b = append(append(s.b, str...), 0)
	return off
}
