package apt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/fetch"
)

// maxPackages bounds an uncompressed list of packages in bytes; trixie's has
// 55 MB.
const maxPackages = 1 << 30

// candidate is a package with what its resolution needs.
type candidate struct {
	Package
	essential bool
	priority  int // 0 is the highest

	// Relations as they stand in the index; most are never looked at.
	preDepends, depends, provides, conflicts, breaks string
}

// provision is a package that stands in for a name.
type provision struct {
	by      *candidate
	version string // "" if it stands in for no particular version
}

// packages fetches and reads the list of packages of a component.
func (op opener) packages(ctx context.Context, s Suite, r Release, component string) ([]*candidate, error) {
	dir := path.Join(component, "binary-"+op.o.Arch)
	for _, ext := range []string{".xz", ".gz", ""} {
		name := path.Join(dir, "Packages") + ext
		want, ok := r.sums[name]
		if !ok {
			continue
		}
		b, err := op.fetchIndex(ctx, s, r, name, want)
		if err != nil {
			return nil, fmt.Errorf("fetching %s: %w", name, err)
		}
		return readPackages(b, ext, s, op.o.Arch)
	}
	return nil, fmt.Errorf("the release has no %s/Packages as .xz, .gz or uncompressed", dir)
}

// fetchIndex fetches an index file by its digest if the mirror can do so: that
// address stays right while the mirror is being updated.
func (op opener) fetchIndex(ctx context.Context, s Suite, r Release, name string, want sum) (cache.Blob, error) {
	names := []string{name}
	if r.acquireByHash {
		names = []string{path.Join(path.Dir(name), "by-hash/SHA256", want.digest.Hex()), name}
	}
	return op.store.Fetch(ctx, want.digest, func(ctx context.Context, w io.Writer) error {
		var err error
		for _, n := range names {
			u, uerr := op.mirror.url(s.Archive, path.Join("dists", s.Name, n))
			if uerr != nil {
				return uerr
			}
			// Nothing has been written when the file was not found.
			if err = fetch.Pinned(ctx, u, w, want.size, op.o.Fetch); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return err
	})
}

func readPackages(b cache.Blob, ext string, s Suite, arch string) (cs []*candidate, err error) {
	f, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := deb.Decompress(ext, f, maxPackages)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return parsePackages(z, s, arch)
}

// parsePackages reads a list of packages and returns those for an architecture.
func parsePackages(r io.Reader, s Suite, arch string) ([]*candidate, error) {
	var out []*candidate
	for p, err := range deb.Paragraphs(r) {
		if err != nil {
			return nil, err
		}
		c, err := parsePackage(p, s)
		if err != nil {
			return nil, fmt.Errorf("reading package %q: %w", p.Get("Package"), err)
		}
		if c.Arch == arch || c.Arch == "all" {
			out = append(out, c)
		}
	}
	return out, nil
}

// priorities are the values of the Priority field, highest first; what is
// neither of them counts as the last.
var priorities = []string{"required", "important", "standard", "optional", "extra"}

func parsePackage(p deb.Paragraph, s Suite) (*candidate, error) {
	// The paragraph's memory is shared by all its fields: keep none of it.
	get := func(name string) string { return strings.Clone(p.Get(name)) }
	c := &candidate{
		Package: Package{
			Name: get("Package"), Version: get("Version"), Arch: get("Architecture"), Section: get("Section"),
			Filename: get("Filename"), Digest: layers.Digest("sha256:" + p.Get("SHA256")), Archive: s.Archive, Suite: s.Name,
		},
		essential: p.Get("Essential") == "yes", priority: slices.Index(priorities, p.Get("Priority")),
		preDepends: get("Pre-Depends"), depends: get("Depends"), provides: get("Provides"),
		conflicts: get("Conflicts"), breaks: get("Breaks"),
	}
	if c.priority < 0 {
		c.priority = len(priorities)
	}
	c.Source, c.SourceVersion = parseSource(get("Source"), c.Name, c.Version)
	size, err := strconv.ParseInt(p.Get("Size"), 10, 64)
	if err != nil || size <= 0 {
		return nil, fmt.Errorf("size %q is not a positive number", p.Get("Size"))
	}
	c.Size = size
	return c, c.check()
}

// parseSource reads "name" or "name (version)"; what is missing is the same as
// of the binary package.
func parseSource(s, name, version string) (string, string) {
	src, v, ok := strings.Cut(s, "(")
	if src = strings.TrimSpace(src); src == "" {
		src = name
	}
	if v = strings.TrimSuffix(strings.TrimSpace(v), ")"); !ok || v == "" {
		v = version
	}
	return src, v
}

// check reports whether the package's names can be used in paths, URLs and
// messages without a second thought.
func (p Package) check() error {
	err := errors.Join(deb.CheckName(p.Name), deb.CheckVersion(p.Version), deb.CheckName(p.Arch),
		deb.CheckName(p.Source), deb.CheckVersion(p.SourceVersion), p.Digest.Check())
	if err != nil {
		return err
	}
	if !fs.ValidPath(p.Filename) || strings.ContainsAny(p.Filename, "\\\x00") {
		return fmt.Errorf("file name %q is not a path below the archive", p.Filename)
	}
	return nil
}

// newIndex makes an index of what was read of the suites. A version that is in
// several suites counts as the first one's.
func newIndex(suites []suiteIndex, arch string) (*Index, error) {
	x := &Index{arch: arch, byName: map[string][]*candidate{}, provides: map[string][]provision{}}
	for _, s := range suites {
		x.Releases = append(x.Releases, s.release)
		for _, c := range s.packages {
			x.byName[c.Name] = append(x.byName[c.Name], c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.byName)) {
		cs := x.byName[name]
		slices.SortStableFunc(cs, newestFirst)
		for _, c := range cs {
			if err := x.addProvides(c); err != nil {
				return nil, fmt.Errorf("reading Provides of %s: %w", name, err)
			}
		}
	}
	x.sortProvides()
	return x, nil
}

func newestFirst(a, b *candidate) int { return deb.CompareVersions(b.Version, a.Version) }

func (x *Index) sortProvides() {
	for _, ps := range x.provides {
		slices.SortStableFunc(ps, func(a, b provision) int {
			return cmp.Or(cmp.Compare(a.by.priority, b.by.priority), strings.Compare(a.by.Name, b.by.Name), newestFirst(a.by, b.by))
		})
	}
}

func (x *Index) addProvides(c *candidate) error {
	groups, err := parseRelations(c.provides)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if len(g) != 1 || g[0].op != "" && g[0].op != "=" {
			return fmt.Errorf("%q is not a name, nor a name with one version", g)
		}
		x.provides[g[0].name] = append(x.provides[g[0].name], provision{c, g[0].version})
	}
	return nil
}

// Essential returns the names of the packages that Debian marks as essential,
// sorted. Other packages need not depend on what is in these.
func (x *Index) Essential() []string {
	var out []string
	for name, cs := range x.byName {
		if cs[0].essential {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Versions returns the versions of a package that the index has, newest first.
func (x *Index) Versions(name string) []string {
	var out []string
	for _, c := range x.byName[name] {
		out = append(out, c.Version)
	}
	return slices.Compact(out)
}
