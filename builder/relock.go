package builder

import (
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/layers"
)

// Refresh returns a lock with the pins of l for what s and its files say now.
// It asks nobody what is newest: only a change of what is pinned by name (the
// packages, programs and images that the cluster file asks for, and where they
// come from) needs [Resolve], and then ok is false.
func Refresh(s *Spec, l *Lock, o Options) (fresh *Lock, ok bool, err error) {
	now, err := inputsOf(s, o)
	if err != nil {
		return nil, false, err
	}
	if l.Inputs.Sources == "" || l.Inputs.Sources != now.Sources {
		return nil, false, nil
	}
	c := *l
	c.Inputs = now
	return &c, true, nil
}

// sourcesOf covers what [Resolve] reads of a cluster file: all that decides
// which inputs are pinned. A setting that is missing here would keep old pins.
func sourcesOf(s *Spec) (layers.Digest, error) {
	roles := map[Role][]string{}
	for _, r := range Roles {
		roles[r] = s.PackageNames(r)
	}
	base := s.Base
	base.Snapshot = "" // where a pinned package may be had does not change which one it is
	b, err := yaml.Marshal(struct {
		Base       Base
		Kubernetes Kubernetes
		Components Components
		Images     []ExtraImage
		Registries []Registry
		Insecure   []string
		Mode       string
		Packages   map[Role][]string
	}{base, s.Kubernetes, s.Components, s.Images, s.Docker.Registries, s.Docker.InsecureRegistries, s.Network.Mode, roles})
	if err != nil {
		return "", fmt.Errorf("internal error: naming the sources of a cluster file: %w", err)
	}
	return layers.DigestOf(b), nil
}
