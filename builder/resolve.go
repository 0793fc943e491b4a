package builder

import (
	"context"
	"io/fs"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
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
	for _, p := range entries(s, l, open, o) {
		got, err := p.get(ctx)
		if err != nil {
			return nil, err
		}
		l.add(got)
	}
	return l, nil
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
	set, err := o.pki(s)
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
