package builder

import (
	"context"
	"strings"

	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/images"
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
	return p.lint(s, l)
}

// judge fails if the image would not work, and tells the log of what may be
// meant.
func (p pieces) judge(s *Spec, l *Lock, o Options) error {
	all, err := p.lint(s, l)
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

func (p pieces) lint(s *Spec, l *Lock) ([]lint.Finding, error) {
	network, err := ignitionNetwork(s.Network)
	if err != nil {
		return nil, err
	}
	files, err := lint.Gather(p.root, bakedStore, p.told.report, p.told.butane)
	if err != nil {
		return nil, err
	}
	in := lint.Input{Files: files, Versions: p.versions(l), Network: network}
	for _, img := range p.parts.baked {
		im, err := lintImage(img)
		if err != nil {
			return nil, err
		}
		in.Images = append(in.Images, im)
	}
	return lint.Run(in)
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

func lintImage(img images.Image) (lint.Image, error) {
	c, err := img.Config()
	if err != nil {
		return lint.Image{}, err
	}
	return lint.Image{
		Name: img.Ref, Digest: img.Digest, Index: img.Index, OS: c.OS, Arch: c.Architecture,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env,
		List: func() (lint.Files, error) { return imageFiles(img) },
	}, nil
}

// imageFiles lists an image, its layers one over the other. What an upper
// layer removes from a lower one is still in the list.
func imageFiles(img images.Image) (lint.Files, error) {
	out := lint.Files{}
	for _, l := range img.Layers() {
		for f, err := range l.Tar(img.Ref).Files() {
			if err != nil {
				return nil, err
			}
			out["/"+f.Path] = lint.File{Mode: f.Mode, Link: f.Link}
		}
	}
	return out, nil
}
