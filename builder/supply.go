package builder

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// need is content that a build reads, as the lock pins it.
type need struct {
	what   string // for messages, such as "package bash=5.2"
	file   string // its path in a vendor directory
	local  string // file of this machine that it may be read from again; may be empty
	digest layers.Digest
}

// needs lists what roles need of a lock, as far as the content store tells: an
// image in a registry shows its layers only once its manifest is there.
func needs(s *Spec, l *Lock, roles []Role, o Options) ([]need, error) {
	var out []need
	seen := map[layers.Digest]bool{}
	add := func(n need) {
		if !seen[n.digest] {
			seen[n.digest] = true
			out = append(out, n)
		}
	}
	for _, role := range roles {
		for _, p := range l.packages(role) {
			add(p.need())
		}
		for _, f := range l.Files {
			add(need{what: "program " + f.Name + " " + f.Version, file: path.Join("programs", f.Name+"-"+f.Version), local: f.local(s, o), digest: f.Digest})
		}
		for _, im := range l.images(role) {
			ns, err := im.needs(o)
			if err != nil {
				return nil, err
			}
			for _, n := range ns {
				add(n)
			}
		}
	}
	return out, nil
}

// local returns the file of this machine that a file of the lock was read from;
// "" if it is from elsewhere.
func (f LockedFile) local(s *Spec, o Options) string {
	if f.From != pathSource {
		return ""
	}
	path := map[string]string{
		serverTarball: s.Kubernetes.Tarball, criDockerdName: s.Components.CRIDockerd.Path, flanneld: s.Components.Flannel.Path,
	}[f.Name]
	if path == "" {
		return "" // the cluster file names none any more
	}
	return under(o.Dir, path)
}

func (p LockedPackage) need() need {
	dir := map[string]string{"archive": "debian", "security": "debian-security"}[p.Archive]
	return need{what: "package " + p.Name + "=" + p.Version, file: path.Join(dir, p.Path), digest: p.Digest}
}

// needs lists what an image is made from, apart from programs of the lock.
func (im LockedImage) needs(o Options) ([]need, error) {
	var out []need
	blob := func(d layers.Digest, local string) {
		out = append(out, need{what: "image " + im.Name, file: path.Join("images", d.Hex()), local: local, digest: d})
	}
	scheme, rest, _ := strings.Cut(im.From, ":")
	switch scheme + ":" {
	case serverScheme, programScheme:
	case distroScheme:
		for _, p := range im.Packages {
			out = append(out, p.need())
		}
	case archiveScheme, layoutScheme, rootfsScheme:
		blob(im.Digest, under(o.Dir, rest))
	default:
		parts, err := importer(o).Parts(im.Digest)
		if err != nil {
			return nil, fmt.Errorf("reading image %s: %w", im.Name, err)
		}
		for _, d := range parts {
			blob(d, "")
		}
	}
	return out, nil
}

// supply brings what a build needs into the content store from the vendor
// directory, if there is one. Offline, what is missing after that is an
// *[InputError] that names all of it.
func supply(ctx context.Context, s *Spec, l *Lock, roles []Role, o Options) error {
	if o.Vendor == "" && !o.Offline {
		return nil
	}
	var v *vendorDir
	if o.Vendor != "" {
		var err error
		if v, err = openVendor(o.Vendor); err != nil {
			return err
		}
		defer v.close()
	}
	for {
		ns, err := needs(s, l, roles, o)
		if err != nil {
			return err
		}
		missing := missingNeeds(ns, o)
		took := 0
		for i := 0; v != nil && i < len(missing); i++ {
			ok, err := v.take(ctx, missing[i], o)
			if err != nil {
				return err
			}
			if ok {
				took++
			}
		}
		// What was taken may name more: a manifest its layers.
		if took == 0 {
			return shortage(missing, o)
		}
	}
}

func missingNeeds(ns []need, o Options) []need {
	var out []need
	for _, n := range ns {
		if _, ok := o.Store.Lookup(n.digest); !ok {
			out = append(out, n)
		}
	}
	return out
}

// shortage is the error of a build that must not ask for what it lacks.
func shortage(missing []need, o Options) error {
	var names []string
	for _, n := range missing {
		if _, err := os.Stat(n.local); n.local != "" && err == nil {
			continue
		}
		if !slices.Contains(names, n.what) { // an image has many parts
			names = append(names, n.what)
		}
	}
	if !o.Offline || len(names) == 0 {
		return nil
	}
	where := "the content store lacks"
	if o.Vendor != "" {
		where = "neither the content store nor " + o.Vendor + " has"
	}
	return &InputError{What: "building offline", Err: fmt.Errorf("%s %d inputs: %s; fetch them with `kscratch vendor`, or build with the network once",
		where, len(names), strings.Join(names, ", "))}
}
