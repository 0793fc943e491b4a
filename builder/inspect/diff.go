package inspect

import (
	"context"
	"fmt"
	"io"

	"github.com/kscratch/kscratch/ignition/field"
)

// Diff is how one image differs from another, by meaning.
type Diff struct {
	A       string  `json:"a"` // name of the file
	B       string  `json:"b"`
	Same    bool    `json:"same"`
	Parts   []Part  `json:"parts"` // in which there are differences
	Verdict Verdict `json:"verdict"`
}

// Part is one way to look at the differences.
type Part struct {
	Name    string   `json:"name"`
	Changes []Change `json:"changes"` // sorted by name
}

// Change is one difference. What is only in B has no old value, what is only
// in A no new one.
type Change = field.Change

// aspects are the ways to look at an image: each gives values by name. The
// content of a secret is never a value, nor is its digest.
var aspects = []struct {
	name string
	of   func(*Image, context.Context) (map[string]string, error)
}{
	{"build", (*Image).buildValues},
	{"cluster file", (*Image).specValues},
	{"components", (*Image).componentValues},
	{"packages", (*Image).packageValues},
	{"kernel configuration", (*Image).kernelConfig},
	{"kernel parameters", (*Image).sysctls},
	{"static pods", (*Image).podValues},
	{"Kubernetes objects and configurations", (*Image).objectValues},
	{"units", (*Image).unitValues},
	{"container images", (*Image).imageValues},
	{"secrets", (*Image).secretValues},
	{"set-user-ID programs", (*Image).setuidValues},
	{"sizes by source", (*Image).sizeValues},
	{"files of the first boot", (*Image).configValues},
	{"files of the root", (*Image).fileValues},
}

// Compare returns how b differs from a.
func Compare(ctx context.Context, a, b *Image) (Diff, error) {
	d := Diff{A: a.Name, B: b.Name, Same: true, Parts: []Part{}}
	for _, aspect := range aspects {
		x, err := aspect.of(a, ctx)
		if err != nil {
			return Diff{}, fmt.Errorf("%s: %w", a.Name, err)
		}
		y, err := aspect.of(b, ctx)
		if err != nil {
			return Diff{}, fmt.Errorf("%s: %w", b.Name, err)
		}
		if c := field.Changes(x, y); len(c) > 0 {
			d.Same = false
			d.Parts = append(d.Parts, Part{aspect.name, c})
		}
	}
	var err error
	d.Verdict, err = judge(ctx, a, b)
	return d, err
}

// Text writes a diff for people, of each part at most so many changes; 0 means
// all.
func (d Diff) Text(w io.Writer, most int) error {
	p := newPage(w)
	if d.Same {
		p.title("%s and %s hold the same", d.A, d.B)
		return p.flush()
	}
	p.title("From %s to %s", d.A, d.B)
	for _, part := range d.Parts {
		p.title("%s (%d)", part.Name, len(part.Changes))
		for n, c := range part.Changes {
			if most > 0 && n == most {
				p.row(fmt.Sprintf("… and %d more; --all shows them", len(part.Changes)-n))
				break
			}
			switch {
			case c.Old == "":
				p.row("+", c.Name, c.New)
			case c.New == "":
				p.row("-", c.Name, c.Old)
			default:
				p.row("~", c.Name, c.Old+" → "+c.New)
			}
		}
	}
	p.title("Verdict")
	p.row("upgrade", d.Verdict.Upgrade)
	p.row("roll back", d.Verdict.Rollback)
	for _, r := range d.Verdict.Reasons {
		p.row("", r)
	}
	return p.flush()
}

// set returns names as values that are there or not.
func set(names []string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		out[n] = "there"
	}
	return out
}
