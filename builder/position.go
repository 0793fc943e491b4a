package builder

import (
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition/field"
)

// Positions says where each field of a cluster file stands, for problems that
// show only after the file was read. The zero value knows of no file.
type Positions struct {
	file string
	at   map[string]position // by field path, such as "docker.options.dns[0]"
}

type position struct{ line, col int } // from 1

// Equal reports true: where a field stands is no part of what it says.
func (Positions) Equal(Positions) bool { return true }

// Problem returns a problem at a field, or at the nearest field above it that
// the file has.
func (w Positions) Problem(path, msg, fix string) Problem {
	pr := Problem{File: w.file, Path: path, Msg: msg, Fix: fix}
	if w.file == "" {
		pr.File = "cluster file"
	}
	for at := path; ; at = parentPath(at) {
		if p, ok := w.at[at]; ok {
			pr.Line, pr.Col = p.line, p.col
			return pr
		}
		if at == "" {
			return pr
		}
	}
}

func parentPath(p string) string {
	return p[:max(strings.LastIndexAny(p, ".["), 0)]
}

func (w Positions) set(path string, n *yaml.Node) { w.at[path] = position{n.Line, n.Column} }

// mark notes where everything below n stands; a mapping's values where their
// keys are. What an alias stands for is where the alias is.
func (w Positions) mark(path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := field.Join(path, n.Content[i].Value)
			w.set(at, n.Content[i])
			w.mark(at, n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, e := range n.Content {
			at := field.Index(path, i)
			w.set(at, e)
			w.mark(at, e)
		}
	}
}
