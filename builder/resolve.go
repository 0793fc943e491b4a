package builder

import (
	"context"
	"io/fs"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// Resolve asks every source what is newest and pins the answers. It is the
// only step that does: what is built from the lock is fetched by digest.
func Resolve(ctx context.Context, s *Spec, o Options) (*Lock, error) {
	inputs, err := inputsOf(s, o)
	if err != nil {
		return nil, err
	}
	l := &Lock{Version: lockVersion, Kscratch: o.Version, Inputs: inputs}
	// Debian first: it takes seconds, and what is wrong with a mirror should
	// not show after minutes of compiling.
	open := opener(ctx, s, o)
	if err := resolveDebian(s, open, l); err != nil {
		return nil, err
	}
	if err := resolveFiles(ctx, s, open, o, l); err != nil {
		return nil, err
	}
	return l, nil
}

// resolveFiles fills in the files and images of a lock. Source builds use
// every core, so they go one after another.
func resolveFiles(ctx context.Context, s *Spec, open archive, o Options, l *Lock) error {
	t, err := tarball(ctx, s, o)
	if err != nil {
		return err
	}
	cri, err := criDockerd(ctx, s.Components.CRIDockerd, o)
	if err != nil {
		return err
	}
	l.Files = []LockedFile{t, cri}
	if s.Network.Mode == "flannel" {
		f, err := flannel(ctx, s.Components.Flannel, o)
		if err != nil {
			return err
		}
		l.Files = append(l.Files, f)
	}
	masters := []Role{Master}
	for _, name := range controlPlane {
		l.Images = append(l.Images, LockedImage{Name: kubeRef(name, s), From: serverScheme + name + ".tar", Digest: t.Digest, Roles: masters})
	}
	c := s.Components
	for _, e := range []struct {
		name  string
		c     Component
		r     gomod.Recipe
		roles []Role
	}{
		{"etcd", c.Etcd, gomod.Etcd(c.Etcd.Version), masters},
		{"coredns", c.CoreDNS, gomod.CoreDNS(c.CoreDNS.Version), nil},
		{"pause", c.Pause, gomod.Recipe{}, nil},
	} {
		image, files, err := component(ctx, s, e.name, e.c, e.r, open, o)
		if err != nil {
			return err
		}
		image.Roles = e.roles
		l.Files = append(l.Files, files...)
		l.Images = append(l.Images, image)
	}
	return resolveExtra(ctx, s, o, l)
}

// controlPlane is what runs from images in the server tarball on a master.
var controlPlane = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// kubeRef returns the name:tag of one of Kubernetes' own images.
func kubeRef(name string, s *Spec) string {
	return "registry.k8s.io/" + name + ":" + s.Kubernetes.Version
}

func inputsOf(s *Spec, o Options) (Inputs, error) {
	spec, err := s.Digest()
	if err != nil {
		return Inputs{}, err
	}
	set, err := pki.Load(under(o.Dir, s.PKI))
	if err != nil {
		return Inputs{}, err
	}
	keys, err := set.Digest()
	if err != nil {
		return Inputs{}, err
	}
	files, err := userFiles(s, set, o)
	if err != nil {
		return Inputs{}, err
	}
	sources, err := sourcesOf(s)
	if err != nil {
		return Inputs{}, err
	}
	own, err := ownDigest()
	return Inputs{Spec: spec, Sources: sources, Files: files, PKI: layers.Digest(keys), Kscratch: own}, err
}

// ownDigest covers everything of ours that is in an image.
func ownDigest() (layers.Digest, error) {
	node, err := programs.Node()
	if err != nil {
		return "", err
	}
	pause, err := programs.Pause()
	if err != nil {
		return "", err
	}
	parts := []string{string(node), string(pause), strings.Join(packages, " "), "record " + strconv.Itoa(record.Format)}
	err = fs.WalkDir(initrdFiles, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := initrdFiles.ReadFile(p)
		parts = append(parts, p, string(b))
		return err
	})
	return layers.DigestOfParts(parts...), err
}

func pauseProgram(ctx context.Context, o Options) (cache.Blob, error) {
	return embedded(ctx, programs.Pause, o)
}
