package apt

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers/deb"
)

// maxSteps bounds the search of [Index.Resolve] in choices made. The package
// list of a node needs fewer than ten.
const maxSteps = 2000

// Resolve returns the packages that names stand for and all that they depend
// on, sorted by name. A name is
//
//	name          the newest version, or the package that provides the name
//	name=version  exactly this version
//	name-         never this package
//
// Depends and Pre-Depends are followed, Recommends are not. The order of names
// does not matter. Of alternatives, one that is needed anyway is taken, else
// the first that leads to a solution; of the packages that provide a name, the
// one of the highest priority, then the first in the alphabet. A demand that
// cannot be met, and Conflicts or Breaks among the packages, are errors that
// name the chain of packages which leads there.
func (x *Index) Resolve(names []string) ([]Package, error) {
	s, err := x.solver(names)
	if err != nil {
		return nil, fmt.Errorf("resolving packages: %w", err)
	}
	st := &state{chosen: map[string]choice{}, barred: map[string][]bar{}}
	for _, name := range s.wanted {
		st.needs = append(st.needs, need{group: alternatives{{name: name}}})
	}
	st, err = s.solve(st)
	if err != nil {
		return nil, fmt.Errorf("resolving packages: %w", err)
	}
	var out []Package
	for _, name := range slices.Sorted(maps.Keys(st.chosen)) {
		p := st.chosen[name].c.Package
		if p.Requires, err = s.requires(st, st.chosen[name].c); err != nil {
			return nil, fmt.Errorf("resolving packages: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// solver is the question: an index, what is wanted and what is ruled out.
type solver struct {
	x        *Index
	wanted   []string // names, sorted
	pinned   map[string]string
	excluded map[string]bool
	steps    int
	parsed   map[string][]alternatives // fields already read
}

func (x *Index) solver(names []string) (*solver, error) {
	s := &solver{x: x, pinned: map[string]string{}, excluded: map[string]bool{}, parsed: map[string][]alternatives{}}
	for _, n := range names {
		name, version, pin := strings.Cut(n, "=")
		if bare, ok := strings.CutSuffix(name, "-"); ok && !pin && x.byName[name] == nil {
			if err := deb.CheckName(bare); err != nil {
				return nil, err
			}
			s.excluded[bare] = true
			continue
		}
		if err := deb.CheckName(name); err != nil {
			return nil, err
		}
		if old, ok := s.pinned[name]; pin && ok && old != version {
			return nil, fmt.Errorf("%s is asked for in two versions, %s and %s", name, old, version)
		}
		if pin {
			s.pinned[name] = version
			if have := x.Versions(name); !slices.Contains(have, version) {
				return nil, fmt.Errorf("%s cannot be had: the archive has %s %s", n, name, strings.Join(have, ", "))
			}
		}
		s.wanted = append(s.wanted, name)
	}
	slices.Sort(s.wanted)
	s.wanted = slices.Compact(s.wanted)
	for _, name := range s.wanted {
		if s.excluded[name] {
			return nil, fmt.Errorf("%s is both asked for and excluded", name)
		}
	}
	return s, nil
}

// need is a demand: one of the group, for the sake of a package ("" if it was
// asked for by name).
type need struct {
	group alternatives
	by    string
}

type choice struct {
	c  *candidate
	by string // the package that needs it
}

// state is a partial answer.
type state struct {
	chosen map[string]choice
	barred map[string][]bar // by the name that a chosen package excludes
	needs  []need           // not met yet
}

// bar is a relation by which a chosen package excludes others.
type bar struct {
	relation
	field string // "Conflicts" or "Breaks"
	by    string // the chosen package
}

func (st *state) clone() *state {
	return &state{maps.Clone(st.chosen), maps.Clone(st.barred), slices.Clone(st.needs)}
}

func (st *state) has(c *candidate) bool { return st.chosen[c.Name].c == c }

// solve completes an answer. It takes what leaves no choice first and only
// then chooses, so that choices see as much as possible of the final set; a
// choice that leads nowhere is taken back.
func (s *solver) solve(st *state) (*state, error) {
	if err := s.propagate(st); err != nil {
		return nil, err
	}
	if len(st.needs) == 0 {
		return st, nil
	}
	var first error
	for _, c := range s.options(st, st.needs[0]) {
		if s.steps++; s.steps > maxSteps {
			return nil, errors.Join(fmt.Errorf("no solution among the first %d", maxSteps), first)
		}
		next := st.clone()
		err := s.choose(next, c, st.needs[0].by)
		if err == nil {
			if next, err = s.solve(next); err == nil {
				return next, nil
			}
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// propagate meets every need that leaves one option, until all that are left
// leave several.
func (s *solver) propagate(st *state) error {
	for {
		var open []need
		changed := false
		for len(st.needs) > 0 {
			n := st.needs[0]
			st.needs = st.needs[1:]
			if s.met(st, n) {
				continue
			}
			options := s.options(st, n)
			switch len(options) {
			case 0:
				return s.unmet(st, n)
			case 1:
				if err := s.choose(st, options[0], n.by); err != nil {
					return err
				}
				changed = true
			default:
				open = append(open, n)
			}
		}
		st.needs = open
		if !changed {
			return nil
		}
	}
}

// met reports whether one of the chosen packages meets a need.
func (s *solver) met(st *state, n need) bool {
	return slices.ContainsFunc(n.group, func(r relation) bool {
		return slices.ContainsFunc(s.candidates(n.by, r), st.has)
	})
}

// candidates returns the packages that are what a relation of a package is
// about: the one with the name first, then those that provide it. Who asks for
// a package by name (by is "") gets no stand-in for it.
func (s *solver) candidates(by string, r relation) []*candidate {
	if !r.native(s.x.arch) {
		return nil
	}
	var out []*candidate
	if c := s.current(r.name); c != nil && r.allows(c.Version) {
		out = append(out, c)
		if by == "" {
			return out
		}
	}
	for _, p := range s.x.provides[r.name] {
		// A name provided without a version meets no demand for a version.
		if (r.op == "" || p.version != "" && r.allows(p.version)) && s.current(p.by.Name) == p.by && !slices.Contains(out, p.by) {
			out = append(out, p.by)
		}
	}
	return out
}

// current returns the one version of a package that may be chosen.
func (s *solver) current(name string) *candidate {
	if s.excluded[name] {
		return nil
	}
	cs := s.x.byName[name]
	if v, ok := s.pinned[name]; ok {
		if i := slices.IndexFunc(cs, func(c *candidate) bool { return c.Version == v }); i >= 0 {
			return cs[i]
		}
		return nil
	}
	if len(cs) == 0 {
		return nil
	}
	return cs[0]
}

// options returns the packages that could meet a need now, the best first.
func (s *solver) options(st *state, n need) []*candidate {
	var out []*candidate
	for _, r := range n.group {
		for _, c := range s.candidates(n.by, r) {
			if !slices.Contains(out, c) && s.clash(st, c) == nil {
				out = append(out, c)
			}
		}
	}
	return out
}

// choose adds a package and what it depends on to the answer.
func (s *solver) choose(st *state, c *candidate, by string) error {
	if err := s.clash(st, c); err != nil {
		return err
	}
	st.chosen[c.Name] = choice{c, by}
	bars, err := s.bars(c)
	if err != nil {
		return err
	}
	for _, b := range bars {
		// Clip: a clone of the state shares the slice.
		st.barred[b.name] = append(slices.Clip(st.barred[b.name]), b)
	}
	groups, err := s.depends(c)
	if err != nil {
		return err
	}
	for _, g := range groups {
		st.needs = append(st.needs, need{g, c.Name})
	}
	return nil
}

func (s *solver) depends(c *candidate) ([]alternatives, error) {
	pre, err := s.relations(c, "Pre-Depends", c.preDepends)
	if err != nil {
		return nil, err
	}
	post, err := s.relations(c, "Depends", c.depends)
	return slices.Concat(pre, post), err
}

func (s *solver) relations(c *candidate, field, value string) ([]alternatives, error) {
	if gs, ok := s.parsed[value]; ok {
		return gs, nil
	}
	gs, err := parseRelations(value)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", field, c, err)
	}
	s.parsed[value] = gs
	return gs, nil
}

// requires returns the chosen packages that meet the dependencies of c.
func (s *solver) requires(st *state, c *candidate) ([]string, error) {
	groups, err := s.depends(c)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, g := range groups {
		for _, r := range g {
			cs := s.candidates(c.Name, r)
			if i := slices.IndexFunc(cs, st.has); i >= 0 {
				out = append(out, cs[i].Name)
				break
			}
		}
	}
	slices.Sort(out)
	out = slices.DeleteFunc(slices.Compact(out), func(n string) bool { return n == c.Name })
	return out, nil
}

// clash returns an error if a package cannot be beside the chosen ones.
func (s *solver) clash(st *state, c *candidate) error {
	if st.has(c) {
		return nil
	}
	bars, err := s.bars(c)
	if err != nil {
		return err
	}
	for _, b := range bars {
		for _, d := range s.candidates(b.by, b.relation) {
			if d != c && st.has(d) {
				return s.together(st, c, d, b)
			}
		}
	}
	provides, err := s.relations(c, "Provides", c.provides)
	if err != nil {
		return err
	}
	for _, g := range slices.Concat(provides, []alternatives{{{name: c.Name}}}) {
		for _, b := range st.barred[g[0].name] {
			if b.by != c.Name && slices.Contains(s.candidates(b.by, b.relation), c) {
				return s.together(st, c, st.chosen[b.by].c, b)
			}
		}
	}
	return nil
}

// together is the error of a package that clashes with a chosen one.
func (s *solver) together(st *state, c, chosen *candidate, b bar) error {
	return fmt.Errorf("%s cannot be beside %s: %s has %s: %s (%s)", c, chosen, b.by, b.field, b.relation, s.chain(st, chosen.Name))
}

// bars returns the relations by which a package excludes others.
func (s *solver) bars(c *candidate) ([]bar, error) {
	var out []bar
	for _, f := range []struct{ name, value string }{{"Conflicts", c.conflicts}, {"Breaks", c.breaks}} {
		groups, err := s.relations(c, f.name, f.value)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			for _, r := range g {
				out = append(out, bar{r, f.name, c.Name})
			}
		}
	}
	return out, nil
}

// chain names the packages that lead to a chosen one: "a → b → c".
func (s *solver) chain(st *state, name string) string {
	var names []string
	for name != "" && len(names) <= len(st.chosen) {
		names = append(names, name)
		name = st.chosen[name].by
	}
	slices.Reverse(names)
	return strings.Join(names, " → ")
}

// unmet says why a need cannot be met.
func (s *solver) unmet(st *state, n need) error {
	var why []string
	for _, r := range n.group {
		why = append(why, s.lack(st, n.by, r)...)
	}
	reason := strings.Join(slices.Compact(why), "; ")
	if n.by == "" {
		return fmt.Errorf("%s cannot be had: %s", n.group, reason)
	}
	return fmt.Errorf("%s → %s: cannot be had: %s", s.chain(st, n.by), n.group, reason)
}

// lack says why a relation cannot be met.
func (s *solver) lack(st *state, by string, r relation) []string {
	var why []string
	for _, c := range s.candidates(by, r) {
		if err := s.clash(st, c); err != nil {
			why = append(why, err.Error())
		}
	}
	pin, pinned := s.pinned[r.name]
	have := s.x.Versions(r.name)
	switch {
	case len(why) > 0:
	case s.excluded[r.name]:
		why = append(why, r.name+" is excluded")
	case !r.native(s.x.arch):
		why = append(why, r.name+" is wanted for another architecture")
	case len(have) == 0:
		why = append(why, "the archive has no "+r.name)
	case pinned:
		why = append(why, fmt.Sprintf("%s is asked for as %s, the archive has %s", r.name, pin, strings.Join(have, ", ")))
	default:
		why = append(why, fmt.Sprintf("the archive has %s %s", r.name, have[0]))
	}
	return why
}
