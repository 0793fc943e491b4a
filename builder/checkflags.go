package builder

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/kscratch/kscratch/builder/flags"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// checkFlags asks the programs of a role's image whether they take the flags
// that the cluster file gives them. Without such flags no program is run.
func checkFlags(ctx context.Context, s *Spec, l *Lock, role Role, files map[string]cache.Blob, baked []images.Image, o Options) error {
	var problems []Problem
	for _, set := range s.flagSets() {
		if len(set.flags) == 0 || set.masters && role != Master {
			continue
		}
		p, err := askable(s, l, set, files, baked)
		if err != nil {
			return err
		}
		bad, err := flags.Asker{Store: o.Store}.Check(ctx, p, set.flags)
		var host *flags.HostError
		switch {
		case errors.As(err, &host):
			problems = append(problems, s.Where.Problem(set.path, "cannot be checked: "+host.Error(), "build on a machine that runs it, or do without"))
		case err != nil:
			return err
		}
		for _, b := range bad {
			b = b.Below(set.path)
			problems = append(problems, s.Where.Problem(b.Path, b.Msg, b.Fix))
		}
	}
	if len(problems) > 0 {
		return &SpecError{problems}
	}
	return nil
}

// askable finds the program that a set of flags is for, in the root or in the
// image that a static pod runs.
func askable(s *Spec, l *Lock, set flagSet, files map[string]cache.Blob, baked []images.Image) (flags.Program, error) {
	t, _ := l.File(serverTarball)
	p := flags.Program{Name: set.program, Version: t.Version}
	if !set.masters {
		b := files[set.program]
		p.Digest, p.Open = b.Digest, b.ReadCloser
		return p, nil
	}
	ref := kubeRef(set.program, s)
	if set.program == "etcd" {
		ref, p.Version = componentRef("etcd", s.Components.Etcd), s.Components.Etcd.Version
	}
	// Docker has names of its own for some images, the lock does not.
	i := slices.IndexFunc(l.images(Master), func(im LockedImage) bool { return im.Name == ref })
	if i < 0 {
		return p, fmt.Errorf("internal error: no image %s to check the flags of %s", ref, set.program)
	}
	f, err := programIn(baked[i], set.program)
	p.Digest, p.Open = baked[i].ID, f.Open
	return p, err
}

// programIn finds a program in an image by its name, in the topmost layer that
// has it.
func programIn(img images.Image, name string) (layers.File, error) {
	for _, l := range slices.Backward(img.Layers()) {
		for f, err := range l.Tar(img.Ref).Files() {
			if err != nil {
				return f, err
			}
			if path.Base(f.Path) == name && f.Mode.IsRegular() && f.Mode&0o111 != 0 {
				return f, nil
			}
		}
	}
	return layers.File{}, fmt.Errorf("checking the flags of %s: image %s has no program of that name in its %d layers", name, img.Ref, len(img.Layers()))
}
