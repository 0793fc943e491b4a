package deb

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The shape of an ar archive, ar(5): a magic line, then per member a header of
// 60 bytes in ASCII and the content, padded to an even length.
const (
	arMagic      = "!<arch>\n"
	arHeader     = 60
	arEnd        = "`\n"
	maxArMembers = 16 // a .deb has three, a signed one a few more
)

// member is one file of an ar archive.
type member struct {
	name string
	body *io.SectionReader
}

// members returns the members of the ar archive in the first size bytes of r.
// Long names (GNU's // table, BSD's #1/) do not occur in a .deb and are not
// supported.
func members(r io.ReaderAt, size int64) ([]member, error) {
	magic := make([]byte, len(arMagic))
	if _, err := r.ReadAt(magic, 0); err != nil || string(magic) != arMagic {
		return nil, fmt.Errorf("not an ar archive: begins with %q", magic)
	}
	var out []member
	for off := int64(len(arMagic)); off < size; {
		if len(out) == maxArMembers {
			return nil, fmt.Errorf("ar archive has more than %d members", maxArMembers)
		}
		m, err := arMember(r, off, size)
		if err != nil {
			return nil, fmt.Errorf("reading ar member %d: %w", len(out)+1, err)
		}
		out = append(out, m)
		off += arHeader + m.body.Size() + m.body.Size()%2
	}
	return out, nil
}

func arMember(r io.ReaderAt, off, size int64) (member, error) {
	h := make([]byte, arHeader)
	if size-off < arHeader {
		return member{}, fmt.Errorf("header is cut off: %w", io.ErrUnexpectedEOF)
	}
	if _, err := r.ReadAt(h, off); err != nil && !errors.Is(err, io.EOF) {
		return member{}, fmt.Errorf("reading header: %w", err)
	}
	if string(h[58:]) != arEnd {
		return member{}, fmt.Errorf("header ends in %q, want %q", h[58:], arEnd)
	}
	digits := strings.TrimRight(string(h[48:58]), " ")
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil {
		return member{}, fmt.Errorf("size %q is not a number", digits)
	}
	body := off + arHeader
	if int64(n) > size-body {
		return member{}, fmt.Errorf("is cut off: %d of %d bytes: %w", size-body, n, io.ErrUnexpectedEOF)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	return member{name, io.NewSectionReader(r, body, int64(n))}, nil
}
