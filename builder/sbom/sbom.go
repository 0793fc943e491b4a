// Package sbom says what software is in an image: Debian packages, the programs
// beside them, container images, and the Go modules inside of every Go program
// in the root and in the container images.
//
// [New] reads a root file system that carries a record (package record); [SPDX]
// and [CycloneDX] render the result, by SPDX 2.3
// (https://spdx.github.io/spdx-spec/v2.3/) and CycloneDX 1.6
// (https://cyclonedx.org/docs/1.6/json/), both as JSON. Software is named by
// package URLs (https://github.com/package-url/purl-spec) that vulnerability
// scanners know.
//
// Nothing is random: times are the image's own and identifiers derive from the
// content, so the same image gives the same bytes.
//
// Not supported: licences (a licence is claimed by nobody here: NOASSERTION),
// single files, and what other container images than ours have installed with
// package managers of their own.
package sbom

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
)

// Options name what a bill is about.
type Options struct {
	Name    string    // of the image, such as kscratch-master
	Version string    // of the image
	Time    time.Time // of the image
	Tool    string    // version of kscratch
}

// Bill is the software in an image.
type Bill struct {
	Options
	Components []Component // sorted by ID
}

// Kind is what a component is.
type Kind string

// The kinds of components.
const (
	Deb     Kind = "deb"     // a Debian package
	Program Kind = "program" // a program, or an archive of programs
	Image   Kind = "image"   // a container image
	Module  Kind = "module"  // a Go module inside of a program
)

// Component is a piece of software.
type Component struct {
	ID       string // unique in a bill: letters, digits, dots and hyphens
	Kind     Kind
	Name     string
	Version  string
	PURL     string
	Supplier string        // "Name <mail address>", or empty
	Homepage string        // URL, or empty
	Digest   layers.Digest // of what was fetched or of the file; may be empty
	Path     string        // of the file that it is, absolute; may be empty
	Within   string        // ID of the component that brings it; empty: the image itself
	Needs    []string      // IDs of the components that it depends on, sorted
}

// New returns the bill of a root file system, which has a record.
func New(ctx context.Context, root *layers.Tree, o Options) (Bill, error) {
	r, err := record.ReadRoot(root)
	if err != nil {
		return Bill{}, fmt.Errorf("listing the software of an image: %w", err)
	}
	list := newLister(r)
	if err := list.programs(ctx, root); err != nil {
		return Bill{}, fmt.Errorf("listing the software of an image: %w", err)
	}
	slices.SortFunc(list.all, func(a, b Component) int { return cmp.Compare(a.ID, b.ID) })
	return Bill{o, list.all}, nil
}

// lister collects components.
type lister struct {
	sums    map[string]record.Found // by path
	all     []Component
	owners  map[string]string // ID of the component by the owner of its files
	modules map[string]string // ID of a Go module by its package URL
}

func newLister(r record.Root) *lister {
	l := &lister{sums: r.ByPath(), owners: map[string]string{}, modules: map[string]string{}}
	ids := map[string]string{}
	for _, p := range r.Packages {
		c := debian(p)
		ids[p.Name], l.owners[p.Owner()] = c.ID, c.ID
		l.all = append(l.all, c)
	}
	for i, p := range r.Packages {
		for _, name := range p.Depends {
			if id, ok := ids[name]; ok {
				l.all[i].Needs = append(l.all[i].Needs, id)
			}
		}
		slices.Sort(l.all[i].Needs)
	}
	for _, p := range r.Programs {
		c := Component{Kind: Program, Name: p.Name, Version: p.Version, PURL: purl("generic", "", p.Name, p.Version, nil), Digest: p.Digest}
		c.ID = id(c)
		// The programs of the server tarball name Kubernetes.
		l.owners[strings.TrimSuffix(p.Name, "-server")+"="+p.Version] = c.ID
		l.all = append(l.all, c)
	}
	for _, im := range r.Images {
		c := container(im)
		l.owners["image:"+im.Name] = c.ID
		l.all = append(l.all, c)
	}
	return l
}

func debian(p record.Package) Component {
	q := map[string]string{"arch": p.Arch, "distro": "debian-13"}
	if p.Source != "" && (p.Source != p.Name || p.SourceVersion != p.Version) {
		q["upstream"] = p.Source + "@" + cmp.Or(p.SourceVersion, p.Version)
	}
	c := Component{
		Kind: Deb, Name: p.Name, Version: p.Version, PURL: purl("deb", "debian", p.Name, p.Version, q),
		Supplier: p.Maintainer, Homepage: p.Homepage, Digest: p.Digest,
	}
	c.ID = id(c)
	return c
}

// container returns the component for a container image, which is named by the
// digest of its manifest where it came from a registry.
func container(im record.Image) Component {
	repo, tag := im.Name, ""
	if i := strings.LastIndexByte(im.Name, ':'); i > strings.LastIndexByte(im.Name, '/') {
		repo, tag = im.Name[:i], im.Name[i+1:]
	}
	digest := cmp.Or(im.Digest, im.ID)
	q := map[string]string{"arch": "amd64", "repository_url": strings.ToLower(repo), "tag": tag}
	c := Component{
		Kind: Image, Name: im.Name, Version: tag, Digest: digest,
		PURL: purl("oci", "", repo[strings.LastIndexByte(repo, '/')+1:], string(digest), q),
	}
	c.ID = id(c)
	return c
}

// id derives an identifier from what a component is.
func id(c Component) string {
	sum := sha256.Sum256([]byte(c.PURL + "\x00" + c.Path + "\x00" + c.Within))
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, cmp.Or(c.Path, c.Name))
	return string(c.Kind) + "-" + strings.Trim(name, "-") + "-" + hex.EncodeToString(sum[:4])
}

// uuid derives an identifier of the bill from all of it: version 8, RFC 9562.
func (b Bill) uuid(format string) string {
	parts := []string{"kscratch sbom", format, b.Name, b.Version, b.Time.String(), b.Tool}
	for _, c := range b.Components {
		parts = append(parts, c.ID, c.PURL, string(c.Digest), strings.Join(c.Needs, " "), c.Within)
	}
	h := layers.DigestOfParts(parts...).Hex()
	return h[:8] + "-" + h[8:12] + "-8" + h[13:16] + "-a" + h[17:20] + "-" + h[20:32]
}

// rootID is the identifier of the image itself.
const rootID = "image"
