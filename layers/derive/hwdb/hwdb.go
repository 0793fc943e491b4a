// Package hwdb compiles udev's hardware database: *.hwdb text files, see
// hwdb(7), to the binary that libudev and systemd look devices up in.
//
// The binary, hwdb.bin, is what systemd-hwdb of systemd 257 writes, byte for
// byte (systemd: hwdb-internal.h): little-endian, a header, a trie over the
// match strings whose nodes come after their children, and a block of
// NUL-terminated strings. A property carries the file and line it comes from.
//
// Not supported: the older format without file and line, which udevadm hwdb
// wrote; looking up. Where systemd-hwdb warns and passes over a faulty line,
// this package returns an error.
package hwdb

import (
	"bytes"
	"fmt"
	"strings"
)

// Source is a *.hwdb file. Path, with its leading slash, is recorded in the
// database as where a property comes from.
type Source struct {
	Path    string
	Content []byte
}

// maxLine is systemd's bound on the length of a line.
const maxLine = 1 << 20

// Compile returns hwdb.bin for sources, whose order counts: of two values for
// the same key of the same match, the later one stands. The version is that of
// the systemd that is to read the database, such as 257.
func Compile(version uint64, sources []Source) ([]byte, error) {
	if len(sources) > 0xffff {
		return nil, fmt.Errorf("%d hwdb files: want at most 65535", len(sources))
	}
	t := newTrie()
	for i, s := range sources {
		r := record{trie: t, from: origin{file: s.Path, priority: uint16(i + 1)}}
		if err := r.read(s.Content); err != nil {
			return nil, fmt.Errorf("reading %s:%d: %w", s.Path, r.from.line, err)
		}
	}
	return t.encode(version), nil
}

// record reads one file: records of match lines followed by properties, which
// begin with a blank, with empty lines between.
type record struct {
	trie    *trie
	from    origin
	matches []string
	data    bool // properties have begun
}

func (r *record) read(b []byte) error {
	if bytes.IndexByte(b, 0) >= 0 {
		return fmt.Errorf("file holds a NUL byte")
	}
	for line := range strings.Lines(string(b)) {
		r.from.line++
		if len(line) > maxLine {
			return fmt.Errorf("line of %d bytes: want at most %d", len(line), maxLine)
		}
		if line[0] == '#' {
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		if err := r.line(strings.TrimRight(line, " \t\n\v\f\r")); err != nil {
			return err
		}
	}
	return r.end()
}

func (r *record) line(s string) error {
	switch {
	case s == "":
		return r.end()
	case s[0] == ' ':
		return r.property(s)
	case r.data:
		return fmt.Errorf("property or empty line expected, got %q", s)
	}
	r.matches = append(r.matches, s)
	return nil
}

func (r *record) end() error {
	if len(r.matches) > 0 && !r.data {
		return fmt.Errorf("match %q without properties", r.matches[0])
	}
	r.matches, r.data = nil, false
	return nil
}

func (r *record) property(s string) error {
	key, value, ok := strings.Cut(s, "=")
	key = " " + strings.TrimLeft(key, " \t")
	switch {
	case len(r.matches) == 0:
		return fmt.Errorf("match expected, got property %q", s)
	case !ok || key == " ":
		return fmt.Errorf("\"KEY=value\" expected, got %q", s)
	}
	r.data = true
	for _, m := range r.matches {
		r.trie.insert(m, key, value, r.from)
	}
	return nil
}
