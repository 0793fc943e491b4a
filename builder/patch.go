package builder

import (
	"errors"
	"reflect"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/field"
)

// ignitionPatches returns the patches of a spec, those in files read.
func ignitionPatches(s *Spec, o Options) ([]ignition.Patch, error) {
	var out []ignition.Patch
	var problems []Problem
	for i, p := range s.Manifests.Patches {
		patch := ignition.Patch{Target: p.Target, Type: p.Type, Patch: p.Patch}
		if p.File != "" {
			f, bad := readPatch(s, i, o)
			problems = append(problems, bad...)
			patch.Patch = f.value
		}
		out = append(out, patch)
	}
	if len(problems) > 0 {
		return nil, &SpecError{problems}
	}
	return out, nil
}

// patchFile is a patch in a file of its own.
type patchFile struct {
	value any
	where Positions
}

func readPatch(s *Spec, i int, o Options) (patchFile, []Problem) {
	name := s.Manifests.Patches[i].File
	b, err := o.readFile(name)
	if err != nil {
		return patchFile{}, []Problem{unreadable(s, field.Index("manifests.patches", i)+".file", err)}
	}
	return parsePatch(name, b)
}

// parsePatch reads a patch from YAML; name stands in messages.
func parsePatch(name string, b []byte) (patchFile, []Problem) {
	p := &parser{where: Positions{file: name, at: map[string]position{}}}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return patchFile{}, []Problem{syntaxProblem(name, err)}
	}
	var value any
	if len(doc.Content) > 0 {
		p.where.set("", doc.Content[0])
		p.tree(doc.Content[0], "", reflect.ValueOf(&value).Elem())
	}
	return patchFile{value, p.where}, p.problems
}

// patchProblems gives the problems of a patch their places: in the cluster file
// or in the patch's own.
func patchProblems(s *Spec, o Options, err error) error {
	var bad *ignition.PatchError
	if !errors.As(err, &bad) {
		return err
	}
	at, where := field.Index("manifests.patches", bad.Index)+".patch", s.Where
	if s.Manifests.Patches[bad.Index].File != "" {
		f, problems := readPatch(s, bad.Index, o)
		if len(problems) > 0 {
			return &SpecError{problems}
		}
		at, where = "", f.where
	}
	out := &SpecError{}
	for _, p := range bad.Problems {
		if at != "" {
			p = p.Below(at)
		}
		out.Problems = append(out.Problems, where.Problem(p.Path, p.Msg, p.Fix))
	}
	return out
}
