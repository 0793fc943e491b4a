package apt

import (
	"maps"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers/deb"
)

// Add puts a package into the index that the archive has no more; control is
// the control file inside it. One that is there already stays as it is.
func (x *Index) Add(p Package, control deb.Paragraph) error {
	if err := p.check(); err != nil {
		return err
	}
	if slices.Contains(x.Versions(p.Name), p.Version) {
		return nil
	}
	get := func(name string) string { return strings.Clone(control.Get(name)) }
	c := &candidate{
		Package: p, essential: control.Get("Essential") == "yes", priority: slices.Index(priorities, control.Get("Priority")),
		preDepends: get("Pre-Depends"), depends: get("Depends"), provides: get("Provides"),
		conflicts: get("Conflicts"), breaks: get("Breaks"),
	}
	if c.priority < 0 {
		c.priority = len(priorities)
	}
	x.byName[p.Name] = append(x.byName[p.Name], c)
	slices.SortStableFunc(x.byName[p.Name], newestFirst)
	if err := x.addProvides(c); err != nil {
		return err
	}
	x.sortProvides()
	return nil
}

// Prefer returns an index of the same packages that takes a package in the
// version given, if it has that, for the newest.
func (x *Index) Prefer(versions map[string]string) *Index {
	y := *x
	y.byName = maps.Clone(x.byName)
	for name, v := range versions {
		cs := slices.Clone(y.byName[name])
		slices.SortStableFunc(cs, func(a, b *candidate) int {
			switch {
			case a.Version == v && b.Version != v:
				return -1
			case b.Version == v && a.Version != v:
				return 1
			}
			return 0
		})
		y.byName[name] = cs
	}
	return &y
}

// Providers returns the names of the packages that provide a name, sorted.
func (x *Index) Providers(name string) []string {
	var out []string
	for _, p := range x.provides[name] {
		out = append(out, p.by.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
