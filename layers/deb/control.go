package deb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// maxParagraph bounds one paragraph in bytes. The largest known, the Release
// file of a Debian suite, has 0.5 MB.
const maxParagraph = 16 << 20

// Field is one field of a paragraph. Of a value of several lines, the first
// blank of each further line is dropped.
type Field struct{ Name, Value string }

// Paragraph is a block of fields, in the order of the file.
type Paragraph []Field

// Get returns the value of the field with a name, in which case does not
// matter, or "".
func (p Paragraph) Get(name string) string {
	for _, f := range p {
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Paragraphs yields the paragraphs of a control file in the syntax of
// deb822(5): a control file of a package, Packages, Release, a .sources file
// of apt. Comment lines are skipped. OpenPGP armour is not supported. After an
// error nothing more comes.
func Paragraphs(r io.Reader) iter.Seq2[Paragraph, error] {
	return func(yield func(Paragraph, error) bool) {
		br := bufio.NewReaderSize(r, 64<<10)
		var block []byte
		for n := 1; ; n++ {
			var err error
			block, err = readBlock(br, block[:0])
			end := errors.Is(err, io.EOF)
			if err != nil && !end {
				yield(nil, fmt.Errorf("reading paragraph %d: %w", n, err))
				return
			}
			// The fields share the memory of one string.
			p, err := parseBlock(string(block))
			if err != nil {
				yield(nil, fmt.Errorf("reading paragraph %d: %w", n, err))
				return
			}
			if len(p) > 0 && !yield(p, nil) || end {
				return
			}
		}
	}
}

// readBlock appends lines to buf up to an empty one, which it swallows.
func readBlock(br *bufio.Reader, buf []byte) ([]byte, error) {
	start := 0 // of the current line
	for {
		part, err := br.ReadSlice('\n')
		buf = append(buf, part...)
		if len(buf) > maxParagraph {
			return nil, &SizeError{"a paragraph", maxParagraph}
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return buf, err
		}
		if len(bytes.TrimSpace(buf[start:])) == 0 {
			return buf, nil
		}
		start = len(buf)
	}
}

func parseBlock(s string) (Paragraph, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, errors.New("contains a NUL byte")
	}
	p := make(Paragraph, 0, strings.Count(s, "\n"))
	var more []string // further lines of the last field
	flush := func() {
		if len(more) > 0 {
			f := &p[len(p)-1]
			f.Value = f.Value + "\n" + strings.Join(more, "\n")
			more = more[:0]
		}
	}
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(p) == 0 {
				return nil, fmt.Errorf("line %q continues no field", clip(line))
			}
			more = append(more, line[1:])
		default:
			flush()
			f, err := parseField(line)
			if err != nil {
				return nil, err
			}
			if p.has(f.Name) {
				return nil, fmt.Errorf("field %s is there twice", clip(f.Name))
			}
			p = append(p, f)
		}
	}
	flush()
	return p, nil
}

func parseField(line string) (Field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || name[0] == '-' {
		return Field{}, fmt.Errorf("line %q is not a field", clip(line))
	}
	for i := range len(name) {
		if name[i] < '!' || name[i] > '~' {
			return Field{}, fmt.Errorf("line %q is not a field", clip(line))
		}
	}
	return Field{name, strings.TrimLeft(value, " \t")}, nil
}

func (p Paragraph) has(name string) bool {
	for _, f := range p {
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// clip shortens text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
