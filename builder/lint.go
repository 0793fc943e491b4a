package builder

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers/cache"
)

// LintError is every finding that stops a build.
type LintError struct{ Findings []lint.Finding }

// Error has a line for each finding.
func (e *LintError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Lint says what would go wrong with the image of a role, without making it:
// what is judged is what [Build] would put together. An error is an input that
// cannot be had, or a bad cluster file; findings are no error.
func Lint(ctx context.Context, s *Spec, l *Lock, role Role, o Options) ([]lint.Finding, error) {
	p, err := collect(ctx, s, l, role, o)
	if err != nil {
		return nil, err
	}
	b, err := p.basis(l)
	if err != nil {
		return nil, err
	}
	return b.lint(s, p.told)
}

// judge fails if the image would not work, and notes what a build that takes
// over the root has to know.
func (p pieces) judge(ctx context.Context, s *Spec, l *Lock, role Role, o Options) error {
	b, err := p.basis(l)
	if err != nil {
		return err
	}
	if err := b.judge(s, p.told, o); err != nil {
		return err
	}
	key, ok := rootKey(l, role)
	if !ok {
		return nil
	}
	if _, ok := cache.Recall[basis](o.Store, kindBasis, key); ok {
		return nil
	}
	if err := cache.Remember(ctx, o.Store, kindBasis, key, b); err != nil {
		o.log().Debug("the next build will make the root again", "because", err)
	}
	return nil
}

// kindBasis is what the content store remembers of a root for [basis.judge].
const kindBasis = "lint-basis"

// basis is what is judged and only a lock decides, not the cluster file.
type basis struct {
	Files    lint.Files
	Images   []lint.Image
	Versions map[string]string
}

func (p pieces) basis(l *Lock) (basis, error) {
	files, err := lint.Root(p.root, bakedStore)
	if err != nil {
		return basis{}, err
	}
	b := basis{Files: files, Versions: p.versions(l)}
	for _, img := range p.parts.baked {
		im, err := lintImage(img)
		if err != nil {
			return basis{}, err
		}
		b.Images = append(b.Images, im)
	}
	return b, nil
}

// versions returns those of the programs that are judged, by name. The API
// server is that of the cluster, whether it is in this image or not.
func (p pieces) versions(l *Lock) map[string]string {
	t, _ := l.File(serverTarball)
	cri, _ := l.File("cri-dockerd")
	out := map[string]string{
		"kube-apiserver": t.Version, "kubelet": t.Version, "kube-proxy": t.Version, "kubectl": t.Version, "cri-dockerd": cri.Version,
	}
	for _, pkg := range p.parts.pkgs {
		if pkg.Name == "docker.io" {
			out["docker"] = upstreamVersion(pkg.Version)
		}
	}
	return out
}

// judge fails if there are errors, and tells the log of what may be meant.
func (b basis) judge(s *Spec, t told, o Options) error {
	all, err := b.lint(s, t)
	if err != nil {
		return err
	}
	if bad := lint.Errors(all); len(bad) > 0 {
		return &LintError{bad}
	}
	for _, f := range all {
		o.log().Warn(f.String())
	}
	return nil
}

func (b basis) lint(s *Spec, t told) ([]lint.Finding, error) {
	network, err := ignitionNetwork(s.Network)
	if err != nil {
		return nil, err
	}
	files, err := b.Files.With(t.report, t.butane)
	if err != nil {
		return nil, err
	}
	return lint.Run(lint.Input{Files: files, Images: b.Images, Versions: b.Versions, Network: network}), nil
}

func lintImage(img images.Image) (lint.Image, error) {
	c, err := img.Config()
	if err != nil {
		return lint.Image{}, err
	}
	programs, err := programsOf(img)
	return lint.Image{
		Name: img.Ref, Digest: img.Digest, Index: img.Index, OS: c.OS, Arch: c.Architecture,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env, Programs: programs,
	}, err
}

// programsOf lists what can be executed in an image, and symbolic links, its
// layers one over the other. What an upper layer removes from a lower one is
// still in the list.
func programsOf(img images.Image) (lint.Files, error) {
	out := lint.Files{}
	for _, l := range img.Layers() {
		for f, err := range l.Tar(img.Ref).Files() {
			if err != nil {
				return nil, fmt.Errorf("checking image %s: %w", img.Ref, err)
			}
			if f.Mode.IsRegular() && f.Mode&0o111 != 0 || f.Mode.Type() == fs.ModeSymlink {
				out["/"+f.Path] = lint.File{Mode: f.Mode, Link: f.Link}
			}
		}
	}
	return out, nil
}
