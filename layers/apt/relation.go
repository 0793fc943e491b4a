package apt

import (
	"fmt"
	"strings"

	"github.com/kscratch/kscratch/layers/deb"
)

// relation is a demand for a package, possibly of some versions only.
type relation struct {
	name    string
	arch    string // after a colon: "any", "native", an architecture; or ""
	op      string // "<<", "<=", "=", ">=", ">>"; "" for any version
	version string
}

// alternatives are relations of which one is enough.
type alternatives []relation

func (r relation) String() string {
	s := r.name
	if r.arch != "" {
		s += ":" + r.arch
	}
	if r.op != "" {
		s += " (" + r.op + " " + r.version + ")"
	}
	return s
}

func (a alternatives) String() string {
	var s []string
	for _, r := range a {
		s = append(s, r.String())
	}
	return strings.Join(s, " | ")
}

// parseRelations reads a relationship field, policy section 7.1: groups
// separated by commas, of alternatives separated by bars. Lists of
// architectures and build profiles belong in source packages and are refused.
func parseRelations(field string) ([]alternatives, error) {
	if strings.TrimSpace(field) == "" {
		return nil, nil
	}
	var out []alternatives
	for group := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(field), ","), ",") {
		var as alternatives
		for s := range strings.SplitSeq(group, "|") {
			r, err := parseRelation(strings.TrimSpace(s))
			if err != nil {
				return nil, err
			}
			as = append(as, r)
		}
		out = append(out, as)
	}
	return out, nil
}

func parseRelation(s string) (relation, error) {
	bad := fmt.Errorf("%q is not a relation to a package", s)
	name, rest, versioned := strings.Cut(s, "(")
	r := relation{name: strings.TrimSpace(name)}
	r.name, r.arch, _ = strings.Cut(r.name, ":")
	if deb.CheckName(r.name) != nil || strings.HasSuffix(strings.TrimSpace(name), ":") || r.arch != "" && deb.CheckName(r.arch) != nil {
		return relation{}, bad
	}
	if !versioned {
		return r, nil
	}
	rest, closed := strings.CutSuffix(rest, ")")
	rest = strings.TrimSpace(rest)
	r.op = rest[:len(rest)-len(strings.TrimLeft(rest, "<>="))]
	r.version = strings.TrimSpace(rest[len(r.op):])
	switch r.op {
	case "<<", "<=", "=", ">=", ">>":
	case "<", ">": // obsolete; means the same as with an equals sign
		r.op += "="
	default:
		return relation{}, bad
	}
	if !closed || deb.CheckVersion(r.version) != nil {
		return relation{}, bad
	}
	return r, nil
}

// allows reports whether a version is one of those demanded.
func (r relation) allows(version string) bool {
	c := func() int { return deb.CompareVersions(version, r.version) }
	switch r.op {
	case "":
		return true
	case "<<":
		return c() < 0
	case "<=":
		return c() <= 0
	case "=":
		return c() == 0
	case ">=":
		return c() >= 0
	}
	return c() > 0
}

// native reports whether the relation is to a package for the machine itself.
func (r relation) native(arch string) bool {
	return r.arch == "" || r.arch == "any" || r.arch == "native" || r.arch == arch
}
