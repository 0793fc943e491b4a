package builder

import (
	"fmt"
	"strings"
)

// Problem is one thing wrong with a cluster file: where, what, and the fix.
type Problem struct {
	File string // as the user named it
	Line int    // from 1; 0 if no place in the file is to blame
	Col  int    // from 1
	Path string // of the field, such as "network.mtu"
	Msg  string // what is wrong
	Fix  string // what to do about it
}

// String renders the problem as "file:line:col: path: message; fix".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	if p.Path != "" {
		b.WriteString(": " + p.Path)
	}
	b.WriteString(": " + p.Msg)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// SpecError is every problem of a cluster file at once.
type SpecError struct{ Problems []Problem }

func (e *SpecError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
