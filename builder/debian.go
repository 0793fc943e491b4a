package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
)

// Environment variables that name a Debian mirror and an archive of snapshots
// where the cluster file does not.
const (
	mirrorEnv         = "KSCRATCH_MIRROR"
	securityMirrorEnv = "KSCRATCH_SECURITY_MIRROR"
	snapshotEnv       = "KSCRATCH_SNAPSHOT"
)

// mirror finds the Debian archives: the cluster file's, else the
// environment's, else those that this machine's apt uses. What is said
// explicitly counts first.
func mirror(s *Spec, o Options) (apt.Mirror, error) {
	for _, m := range []apt.Mirror{
		{Archive: s.Base.Mirror, Security: s.Base.SecurityMirror},
		{Archive: o.getenv(mirrorEnv), Security: o.getenv(securityMirrorEnv)},
	} {
		if m.Archive == "" {
			continue
		}
		if m.Security == "" {
			m.Security = m.Archive
		}
		return m, m.Check()
	}
	root := o.HostRoot
	if root == "" {
		root = "/"
	}
	return apt.HostMirror(root, "base.mirror in the cluster file", "the environment variable "+mirrorEnv)
}

// archive opens the index of the Debian archive, the same one each time.
type archive func() (*apt.Index, error)

func opener(ctx context.Context, s *Spec, o Options) archive {
	return sync.OnceValues(func() (*apt.Index, error) { return openDebian(ctx, s, o) })
}

func openDebian(ctx context.Context, s *Spec, o Options) (*apt.Index, error) {
	m, err := mirror(s, o)
	if err != nil {
		return nil, &InputError{What: "finding a Debian mirror", Err: err}
	}
	ao := apt.Options{Suites: apt.Trixie(), Fetch: o.fetch(), Log: o.log()}
	if s.Base.Keyring != "" {
		if ao.Keys, err = os.ReadFile(under(o.Dir, s.Base.Keyring)); err != nil {
			return nil, fmt.Errorf("reading base.keyring: %w", err)
		}
	}
	index, err := apt.Open(ctx, o.Store, m, o.Now, ao)
	if err != nil {
		return nil, debianError("reading the Debian archive", err)
	}
	return index, nil
}

// resolveDebian fills in the suites, packages and time of a lock.
func resolveDebian(s *Spec, open archive, l *Lock) error {
	index, err := open()
	if err != nil {
		return err
	}
	pinIndex(index, l)
	return resolvePackages(s, index, l)
}

// pinIndex fills in the suites and the time of a lock.
func pinIndex(index *apt.Index, l *Lock) {
	l.Suites = nil
	for _, r := range index.Releases {
		l.Suites = append(l.Suites, LockedSuite{Name: r.Suite, InRelease: r.Digest, Date: r.Date.UTC()})
	}
	l.Time = index.Date().UTC()
}

// resolvePackages fills in the packages and roles of a lock.
func resolvePackages(s *Spec, index *apt.Index, l *Lock) error {
	all := map[string]LockedPackage{}
	roles := map[Role][]string{}
	for _, role := range Roles {
		names := s.PackageNames(role)
		pkgs, err := index.Resolve(names)
		if err != nil {
			return fmt.Errorf("resolving the packages of %s: %w", role, err)
		}
		for _, p := range pkgs {
			locked := lockedPackage(p)
			locked.For = standsFor(index, p.Name, names, pkgs)
			if before, ok := all[p.Name]; ok {
				// Of alternatives, roles may take different ones.
				locked.Requires = slices.DeleteFunc(locked.Requires, func(n string) bool { return !slices.Contains(before.Requires, n) })
				locked.For = sortedUnion(locked.For, before.For)
			}
			all[p.Name] = locked
			roles[role] = append(roles[role], p.Name)
		}
	}
	l.Packages, l.Roles = nil, roles
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l.Packages = append(l.Packages, all[name])
	}
	return nil
}

// standsFor returns those of the names asked for that no package has and this
// one provides.
func standsFor(index *apt.Index, name string, asked []string, chosen []apt.Package) []string {
	var out []string
	for _, n := range asked {
		is := func(p apt.Package) bool { return p.Name == n }
		if slices.Contains(index.Providers(n), name) && !slices.ContainsFunc(chosen, is) {
			out = append(out, n)
		}
	}
	return out
}

func sortedUnion(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func lockedPackage(p apt.Package) LockedPackage {
	return LockedPackage{
		Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Source, SourceVersion: p.SourceVersion,
		Archive: p.Archive, Path: p.Filename, Size: p.Size, Digest: p.Digest,
		Requires: slices.Clone(p.Requires),
	}
}

// debianError tells what is not as signed from what cannot be had.
func debianError(what string, err error) error {
	var (
		verify   *apt.VerifyError
		mismatch *cache.MismatchError
	)
	return &InputError{What: what, Tampered: errors.As(err, &verify) || errors.As(err, &mismatch), Err: err}
}

// parallel is how many packages are fetched and unpacked at once.
const parallel = 4

// debian returns the packages of a role, fetched by digest and unpacked into
// the content store.
func debian(ctx context.Context, s *Spec, l *Lock, role Role, o Options) ([]*deb.Package, error) {
	var todo []LockedPackage
	var total int64
	for _, p := range l.Packages {
		if slices.Contains(l.Roles[role], p.Name) {
			todo = append(todo, p)
			total += p.Size
		}
	}
	task := o.begin(inputPackages, total)
	defer task.End()
	out := make([]*deb.Package, len(todo))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	// The largest first: it takes one processor longer than any other.
	order := make([]int, len(todo))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(todo[b].Size, todo[a].Size) })
	for _, i := range order {
		p := todo[i]
		g.Go(func() error {
			pkg, err := unpack(ctx, s, l, p, o)
			if err != nil {
				return debianError("getting package "+p.Name+"="+p.Version, err)
			}
			task.Add(p.Size)
			out[i] = pkg
			return nil
		})
	}
	return out, g.Wait()
}

func unpack(ctx context.Context, s *Spec, l *Lock, p LockedPackage, o Options) (*deb.Package, error) {
	_, ok := o.Store.Lookup(p.Digest)
	o.input(inputPackages, p.Size, ok)
	blob, err := fetchDeb(ctx, s, l, p, o)
	if err != nil {
		return nil, err
	}
	return deb.Layer(ctx, o.Store, blob, p.Name+"="+p.Version, deb.Options{})
}

func debLayers(pkgs []*deb.Package) []layers.Layer {
	out := make([]layers.Layer, len(pkgs))
	for i, p := range pkgs {
		out[i] = p.Layer
	}
	return out
}
