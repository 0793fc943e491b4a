package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// CheckLock says in words each way in which a lock is not what a spec needs: an
// input that has changed, something that is missing or not asked for, a part
// that does not fit another. It asks no server. None means that it fits.
func CheckLock(ctx context.Context, s *Spec, l *Lock, o Options) ([]string, error) {
	now, err := inputsOf(s, o)
	if err != nil {
		return nil, err
	}
	out := append(changedInputs(l.Inputs, now), inconsistent(s, l)...)
	changed, err := changedLocal(ctx, s, l, o)
	return append(out, changed...), err
}

// inconsistent compares what a lock pins with what a spec asks for, and its
// parts with each other.
func inconsistent(s *Spec, l *Lock) []string {
	return slices.Concat(inconsistentPackages(s, l), inconsistentFiles(s, l), inconsistentImages(s, l))
}

func inconsistentPackages(s *Spec, l *Lock) []string {
	var out []string
	complain := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	byName := map[string]LockedPackage{}
	for _, p := range l.Packages {
		if _, ok := byName[p.Name]; ok {
			complain("package %s is pinned twice", p.Name)
		}
		byName[p.Name] = p
	}
	used := map[string]bool{}
	for _, role := range Roles {
		in := map[string]bool{}
		for _, name := range l.Roles[role] {
			used[name], in[name] = true, true
			if _, ok := byName[name]; !ok {
				complain("package %s of role %s is not pinned", name, role)
			}
			for _, n := range byName[name].For {
				in[n] = true
			}
		}
		for _, name := range l.Roles[role] {
			for _, n := range byName[name].Requires {
				if !in[n] {
					complain("package %s of role %s needs %s, which is missing", name, role, n)
				}
			}
		}
		for _, asked := range s.PackageNames(role) {
			name, version, pin := strings.Cut(asked, "=")
			bare, excluded := strings.CutSuffix(name, "-")
			switch {
			case excluded && !in[name]:
				if in[bare] {
					complain("package %s is excluded from role %s, and is there", bare, role)
				}
			case !in[name]:
				complain("package %s of role %s is missing", name, role)
			case pin && byName[name].Version != version:
				complain("package %s of role %s is asked for as %s, and pinned as %s", name, role, version, byName[name].Version)
			}
		}
	}
	for _, p := range l.Packages {
		if !used[p.Name] {
			complain("package %s is in no role", p.Name)
		}
	}
	return out
}

// wantedPrograms returns the versions of the programs that a spec asks for, and
// of those that a lock has beside them, because an image is made from them.
func wantedPrograms(s *Spec, l *Lock) map[string]string {
	c := s.Components
	out := map[string]string{serverTarball: s.Kubernetes.Version, criDockerdName: c.CRIDockerd.Version}
	if s.Network.Mode == "flannel" {
		out[flanneld] = c.Flannel.Version
	}
	for _, im := range l.Images {
		switch im.From {
		case programScheme + "etcd":
			out["etcd"] = c.Etcd.Version
		case programScheme + "coredns":
			out["coredns"] = c.CoreDNS.Version
		}
	}
	return out
}

func inconsistentFiles(s *Spec, l *Lock) []string {
	want, have := wantedPrograms(s, l), map[string]string{}
	for _, f := range l.Files {
		have[f.Name] = f.Version
	}
	return append(differences("program", want, have), otherFiles(s, l)...)
}

// otherFiles names programs from where the cluster file does not take them from,
// or of another release file than it wants.
func otherFiles(s *Spec, l *Lock) []string {
	var out []string
	c := s.Components
	for _, p := range []struct {
		name    string
		sources []string
		sha256  string
	}{
		{serverTarball, s.Kubernetes.Sources, ""},
		{criDockerdName, c.CRIDockerd.Sources, c.CRIDockerd.SHA256},
		{flanneld, c.Flannel.Sources, c.Flannel.SHA256},
	} {
		f, ok := l.File(p.name)
		if !ok || p.name == flanneld && s.Network.Mode != "flannel" {
			continue // said elsewhere
		}
		if !slices.Contains(p.sources, f.From) {
			out = append(out, fmt.Sprintf("program %s is from %s, and asked for from %s", f.Name, f.From, strings.Join(p.sources, ", ")))
		}
		if want := sha256Digest(p.sha256); f.From == releaseSource && want != "" && f.Asked != want && f.Digest != want {
			out = append(out, fmt.Sprintf("program %s is asked for with %s of its release, and was pinned without", f.Name, want))
		}
	}
	return out
}

// componentSources are the sources of components by the scheme of their images.
var componentSources = map[string]string{
	registryScheme: "registry", archiveScheme: pathSource, distroScheme: "distro", programScheme: modulesSource,
}

// otherImages names images from where the cluster file does not take them from,
// or with another digest than it wants.
func otherImages(s *Spec, l *Lock) []string {
	var out []string
	from := map[string]string{}
	for _, im := range l.Images {
		from[im.Name] = im.From
		for _, asked := range s.Images {
			want := layers.Digest(asked.Digest)
			if asked.Name == im.Name && want != "" && want != im.Digest && want != im.Asked {
				out = append(out, fmt.Sprintf("image %s is asked for as %s, and pinned as %s", im.Name, want, im.Digest))
			}
		}
	}
	components := s.Components
	for _, p := range []struct {
		name string
		c    Component
	}{{"etcd", components.Etcd}, {"coredns", components.CoreDNS}, {"pause", components.Pause}} {
		ref := componentRef(p.name, p.c)
		if from[ref] == "" {
			continue // said elsewhere
		}
		ok := false
		for scheme, source := range componentSources {
			rest, is := strings.CutPrefix(from[ref], scheme)
			ok = ok || is && slices.Contains(p.c.Sources, source) && (source != pathSource || rest == p.c.Path)
		}
		if !ok {
			out = append(out, fmt.Sprintf("image %s is from %s, and asked for from %s", ref, from[ref],
				strings.TrimSpace(strings.Join(p.c.Sources, ", ")+" "+p.c.Path)))
		}
	}
	return out
}

func inconsistentImages(s *Spec, l *Lock) []string {
	c := s.Components
	want, have := map[string]string{}, map[string]string{}
	for _, name := range controlPlane {
		want[kubeRef(name, s)] = serverScheme + name + ".tar"
	}
	for _, im := range s.Images {
		want[im.Name] = im.From
	}
	for _, im := range l.Images {
		have[im.Name] = im.From
	}
	for _, ref := range []string{componentRef("etcd", c.Etcd), componentRef("coredns", c.CoreDNS), componentRef("pause", c.Pause)} {
		want[ref] = have[ref] // any source will do
		if have[ref] == "" {
			want[ref] = "any source"
		}
	}
	out := append(differences("image", want, have), otherImages(s, l)...)
	for _, im := range l.Images {
		f, ok := l.File(serverTarball)
		if strings.HasPrefix(im.From, serverScheme) && ok && im.Digest != f.Digest {
			out = append(out, fmt.Sprintf("image %s is of another tarball than the lock pins", im.Name))
		}
		name, program := strings.CutPrefix(im.From, programScheme)
		if f, ok := l.File(name); program && ok && im.Digest != f.Digest {
			out = append(out, fmt.Sprintf("image %s is of another %s than the lock pins", im.Name, name))
		}
	}
	return out
}

// differences says what is missing, not asked for, or other than asked for.
func differences(kind string, want, have map[string]string) []string {
	var out []string
	for _, name := range sortedKeys(want, have) {
		w, wanted := want[name]
		h, there := have[name]
		switch {
		case !there:
			out = append(out, fmt.Sprintf("%s %s is missing", kind, name))
		case !wanted:
			out = append(out, fmt.Sprintf("%s %s is not asked for", kind, name))
		case w != h:
			out = append(out, fmt.Sprintf("%s %s is asked for as %s, and pinned as %s", kind, name, w, h))
		}
	}
	return out
}

// changedLocal names the programs and images of files of this machine that are
// not what was pinned. A file that is gone is no difference: whoever has the
// content store or a vendor directory can do without.
func changedLocal(ctx context.Context, s *Spec, l *Lock, o Options) ([]string, error) {
	var out []string
	look := func(what, path string, want layers.Digest) error {
		b, err := importer(o).Archive(ctx, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case b.Digest != want:
			out = append(out, fmt.Sprintf("%s: %s has changed", what, path))
		}
		return nil
	}
	for _, f := range l.Files {
		if path := f.local(s, o); path != "" {
			if err := look("program "+f.Name, path, f.Digest); err != nil {
				return nil, err
			}
		}
	}
	for _, im := range l.Images {
		scheme, rest, _ := strings.Cut(im.From, ":")
		switch scheme + ":" {
		case archiveScheme, layoutScheme, rootfsScheme:
			if err := look("image "+im.Name, under(o.Dir, rest), im.Digest); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Newest asks the archive and the registries what is newer than what a lock
// pins. Programs are what the cluster file says, and have no newer version. The
// packages of an image from Debian count as its own.
func Newest(ctx context.Context, s *Spec, l *Lock, o Options) ([]LockChange, error) {
	now := &Lock{Files: l.Files}
	open := opener(ctx, s, o)
	if err := resolveDebian(s, open, now); err != nil {
		return nil, err
	}
	for _, im := range l.Images {
		switch {
		case strings.HasPrefix(im.From, registryScheme):
			fresh, _, err := lockImage(ctx, s, l, LockedImage{Name: im.Name, From: im.From}, o)
			if err != nil {
				return nil, imageError(im, err)
			}
			im.Digest = fresh.Digest
		case strings.HasPrefix(im.From, distroScheme):
			for name, d := range distroPrograms {
				if distroScheme+d.pkg != im.From {
					continue
				}
				fresh, err := lockDistro(ctx, s, now, name, s.Components.Etcd.Version, LockedImage{Name: im.Name}, open, o)
				if err != nil {
					return nil, imageError(im, err)
				}
				im.Digest = fresh.Digest
			}
		}
		now.Images = append(now.Images, im)
	}
	newer := Changes(l, now)
	// Archives are signed anew every few hours.
	return slices.DeleteFunc(newer, func(c LockChange) bool { return c.Kind == "suite" }), nil
}
