package builder

import (
	"cmp"
	"context"
	"slices"

	"github.com/kscratch/kscratch/layers/gomod"
)

// entry is what is pinned together, under the name by which a user knows it: a
// program, a component with its image, an image of the cluster file.
type entry struct {
	name string
	get  func(context.Context) (pins, error)
}

// pins is what a lock holds of an entry.
type pins struct {
	files  []LockedFile
	images []LockedImage
}

// add puts an entry into a lock and keeps its lists sorted.
func (l *Lock) add(p pins) {
	l.Files = append(l.Files, p.files...)
	l.Images = append(l.Images, p.images...)
	slices.SortFunc(l.Files, func(a, b LockedFile) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(l.Images, func(a, b LockedImage) int { return cmp.Compare(a.Name, b.Name) })
}

// entries lists what a spec needs beside Debian's packages. Each asks its
// sources when it is got. Source builds use every core: get one at a time. Of
// the lock l only the time is looked at.
func entries(s *Spec, l *Lock, open archive, o Options) []entry {
	c := s.Components
	out := []entry{
		{serverTarball, func(ctx context.Context) (pins, error) {
			t, err := tarball(ctx, s, o)
			return pins{[]LockedFile{t}, serverImages(s, t)}, err
		}},
		{criDockerdName, func(ctx context.Context) (pins, error) { return oneFile(criDockerd(ctx, c.CRIDockerd, o)) }},
	}
	if s.Network.Mode == "flannel" {
		out = append(out, entry{flanneld, func(ctx context.Context) (pins, error) { return oneFile(flannel(ctx, c.Flannel, o)) }})
	}
	for _, e := range []struct {
		name  string
		c     Component
		r     gomod.Recipe
		roles []Role
	}{
		{"etcd", c.Etcd, gomod.Etcd(c.Etcd.Version), []Role{Master}},
		{"coredns", c.CoreDNS, gomod.CoreDNS(c.CoreDNS.Version), nil},
		{"pause", c.Pause, gomod.Recipe{}, nil},
	} {
		out = append(out, entry{e.name, func(ctx context.Context) (pins, error) {
			image, files, err := component(ctx, s, l, e.name, e.c, e.r, open, o)
			image.Roles = e.roles
			return pins{files, []LockedImage{image}}, err
		}})
	}
	for _, im := range s.Images {
		out = append(out, entry{im.Name, func(ctx context.Context) (pins, error) {
			locked, err := extraImage(ctx, s, im, l, o)
			return pins{images: []LockedImage{locked}}, err
		}})
	}
	return out
}

func oneFile(f LockedFile, err error) (pins, error) {
	return pins{files: []LockedFile{f}}, err
}

// serverImages are the images of the control plane in a server tarball.
func serverImages(s *Spec, t LockedFile) []LockedImage {
	var out []LockedImage
	for _, name := range controlPlane {
		out = append(out, LockedImage{Name: kubeRef(name, s), From: serverScheme + name + ".tar", Digest: t.Digest, Roles: []Role{Master}})
	}
	return out
}

// onlyFrom returns a copy of a spec that takes a program or a component from
// one source alone, the one that a lock has it from.
func onlyFrom(s *Spec, name, source string) *Spec {
	c := *s
	sources := []string{source}
	switch name {
	case serverTarball:
		c.Kubernetes.Sources = sources
	case criDockerdName:
		c.Components.CRIDockerd.Sources = sources
	case flanneld:
		c.Components.Flannel.Sources = sources
	case "etcd":
		c.Components.Etcd.Sources = sources
	case "coredns":
		c.Components.CoreDNS.Sources = sources
	}
	return &c
}
