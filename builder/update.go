package builder

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/ignition/field"
)

// Update returns a lock in which what is named is the newest, and all else is
// as the old one pins it. A name is that of a package, a component (kubernetes,
// cri-dockerd, flannel, etcd, coredns, pause) or an image, as the cluster file
// or the lock has it. Without names it is [Resolve].
//
// Other packages move only if those that are named cannot do without. A package
// that is kept and has left the mirror is looked for where builds look for it.
// What the cluster file asks for beyond the old lock and the names is an error.
func Update(ctx context.Context, s *Spec, old *Lock, names []string, o Options) (*Lock, error) {
	if len(names) == 0 {
		return Resolve(ctx, s, o)
	}
	inputs, err := inputsOf(s, o)
	if err != nil {
		return nil, err
	}
	l := &Lock{
		Version: lockVersion, Kscratch: o.Version, Inputs: inputs,
		Time: old.Time, Suites: old.Suites, Packages: old.Packages, Roles: old.Roles,
	}
	open := opener(ctx, s, o)
	all := entries(s, l, open, o)
	parts, pkgs, err := sortNames(s, old, all, names)
	if err != nil {
		return nil, err
	}
	if len(pkgs) > 0 {
		if err := updateDebian(ctx, s, open, old, pkgs, o, l); err != nil {
			return nil, err
		}
	}
	for _, p := range all {
		got := old.entry(s, p.name)
		if slices.Contains(parts, p.name) {
			if got, err = p.get(ctx); err != nil {
				return nil, err
			}
		} else if !l.Time.Equal(old.Time) {
			got.date(old.Time)
		}
		l.add(got)
	}
	if more := inconsistent(s, l); len(more) > 0 {
		return nil, fmt.Errorf("updating %s: the cluster file asks for more: %s; name that, too, or make the lock anew with `kscratch lock`",
			strings.Join(names, ", "), strings.Join(more, "; "))
	}
	return l, nil
}

// aliases are the names of the cluster file for programs that the lock calls
// otherwise.
var aliases = map[string]string{"kubernetes": serverTarball, "flannel": flanneld, "criDockerd": criDockerdName, "coreDNS": "coredns"}

// sortNames tells entries from packages.
func sortNames(s *Spec, old *Lock, all []entry, names []string) (parts, pkgs []string, err error) {
	known := map[string]string{} // entries by the names that they may be called by
	for _, p := range all {
		known[p.name] = p.name
		for _, im := range old.entry(s, p.name).images {
			known[im.Name] = p.name
		}
	}
	for alias, name := range aliases {
		if known[name] != "" {
			known[alias] = name
		}
	}
	packages := map[string]bool{}
	for _, p := range old.Packages {
		packages[p.Name] = true
	}
	for _, role := range Roles {
		for _, p := range s.PackageNames(role) {
			name, _, _ := strings.Cut(p, "=")
			packages[name] = true
		}
	}
	var candidates []string
	for _, name := range names {
		switch {
		case known[name] != "":
			parts = append(parts, known[name])
		case packages[name]:
			pkgs = append(pkgs, name)
		default:
			for n := range known {
				candidates = append(candidates, n)
			}
			for n := range packages {
				candidates = append(candidates, n)
			}
			slices.Sort(candidates)
			hint := field.DidYouMean(name, candidates)
			if hint == "" {
				hint = "name a package, a component or an image of it"
			}
			return nil, nil, fmt.Errorf("%s is not in the lock; %s", name, hint)
		}
	}
	return parts, pkgs, nil
}

// entry returns what a lock has of an entry.
func (l *Lock) entry(s *Spec, name string) pins {
	var out pins
	if f, ok := l.File(name); ok {
		out.files = []LockedFile{f}
	}
	for _, im := range l.Images {
		owner := im.Name
		switch repo, _ := cutTag(im.Name); {
		case slices.ContainsFunc(s.Images, func(e ExtraImage) bool { return e.Name == im.Name }):
		case strings.HasPrefix(im.From, serverScheme):
			owner = serverTarball
		case repo == s.Components.Etcd.Image:
			owner = "etcd"
		case repo == s.Components.CoreDNS.Image:
			owner = "coredns"
		case repo == s.Components.Pause.Image:
			owner = "pause"
		}
		if owner == name {
			out.images = append(out.images, im)
		}
	}
	return out
}

// updateDebian fills in the suites, packages and time of a lock, for which the
// packages that are named may move.
func updateDebian(ctx context.Context, s *Spec, open archive, old *Lock, names []string, o Options, l *Lock) error {
	index, err := open()
	if err != nil {
		return err
	}
	// Packages of the old lock that the archive has no more.
	gone := map[string]LockedPackage{}
	for _, p := range old.Packages {
		if slices.Contains(names, p.Name) || slices.Contains(index.Versions(p.Name), p.Version) {
			continue
		}
		pkg, err := unpack(ctx, s, old, p, o)
		if err != nil {
			return debianError("keeping package "+p.Name+"="+p.Version, err)
		}
		if err := index.Add(p.apt(), pkg.Control); err != nil {
			return err
		}
		gone[p.Name] = p
	}
	free := slices.Clone(names)
	err = resolvePackages(s, index.Prefer(kept(old, free)), l)
	if err != nil {
		// Let move what the named ones need.
		needed, needErr := index.Resolve(names)
		if needErr != nil {
			return fmt.Errorf("updating %s: %w", strings.Join(names, ", "), needErr)
		}
		for _, p := range needed {
			free = append(free, p.Name)
		}
		if again := resolvePackages(s, index.Prefer(kept(old, free)), l); again != nil {
			return fmt.Errorf("updating %s alone: %w; name other packages, too, or make the lock anew with `kscratch lock`",
				strings.Join(names, ", "), errors.Join(err, again))
		}
	}
	if samePackages(old.Packages, l.Packages) {
		// Nothing has moved, so the image's clock stays where it is.
		l.Packages = old.Packages
		return nil
	}
	pinIndex(index, l)
	for i, p := range l.Packages {
		if was, ok := gone[p.Name]; ok && was.Version == p.Version {
			l.Packages[i].Index = was.Index
			if was.Index.IsZero() {
				l.Packages[i].Index = old.Time
			}
		}
	}
	return nil
}

// date writes down of which index the packages of images are, where that is the
// lock's, whose time is about to be another.
func (p pins) date(index time.Time) {
	for i, im := range p.images {
		p.images[i].Packages = slices.Clone(im.Packages)
		for j, pkg := range im.Packages {
			if pkg.Index.IsZero() {
				p.images[i].Packages[j].Index = index
			}
		}
	}
}

// samePackages compares pins of packages, apart from where they were found.
func samePackages(a, b []LockedPackage) bool {
	return slices.EqualFunc(a, b, func(a, b LockedPackage) bool {
		same := slices.Equal(a.Requires, b.Requires) && slices.Equal(a.For, b.For)
		for _, p := range []*LockedPackage{&a, &b} {
			p.Index, p.Requires, p.For = time.Time{}, nil, nil
		}
		return same && reflect.DeepEqual(a, b)
	})
}

// kept returns the versions of a lock's packages, those that may move apart.
func kept(l *Lock, free []string) map[string]string {
	out := map[string]string{}
	for _, p := range l.Packages {
		if !slices.Contains(free, p.Name) {
			out[p.Name] = p.Version
		}
	}
	return out
}
