package builder

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// extraImage pins an image that the cluster file adds.
func extraImage(ctx context.Context, s *Spec, im ExtraImage, l *Lock, o Options) (LockedImage, error) {
	locked, has, err := lockImage(ctx, s, l, LockedImage{Name: im.Name, From: im.From}, o)
	if err != nil {
		return locked, imageError(locked, err)
	}
	if im.Digest != "" && !slices.Contains(has, layers.Digest(im.Digest)) {
		return locked, &InputError{What: "getting image " + im.Name + " from " + im.From, Tampered: true, Err: fmt.Errorf(
			"it has the digest %s, and the cluster file wants %s; if the change is meant, change the cluster file",
			list(has), im.Digest)}
	}
	locked.Asked = layers.Digest(im.Digest)
	return locked, nil
}

// lockImage pins an image that is in a registry or in a file, and returns the
// digests that it may be known by. What is in a file is looked at, so that one
// that cannot be used is found out before anything is built.
func lockImage(ctx context.Context, s *Spec, l *Lock, im LockedImage, o Options) (LockedImage, []layers.Digest, error) {
	if ref, ok := strings.CutPrefix(im.From, registryScheme); ok {
		r, err := registry(ctx, s, ref, o)
		if err != nil {
			return im, nil, err
		}
		pin, err := r.Resolve(ctx, importer(o), ref, im.Name)
		im.Digest = pin.Digest
		return im, []layers.Digest{pin.Digest, pin.Index}, err
	}
	_, path, _ := strings.Cut(im.From, ":")
	b, err := importer(o).Archive(ctx, under(o.Dir, path))
	if err != nil {
		return im, nil, err
	}
	im.Digest = b.Digest
	img, err := getImage(ctx, s, l, im, nil, o)
	return im, []layers.Digest{b.Digest, img.Digest, img.Index}, err
}

// list names the digests that are there, each once.
func list(ds []layers.Digest) string {
	var out []string
	for _, d := range ds {
		if d != "" && !slices.Contains(out, string(d)) {
			out = append(out, string(d))
		}
	}
	return strings.Join(out, " or ")
}
