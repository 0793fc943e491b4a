package builder

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/kscratch/kscratch/builder/format"
)

// Rebuild builds an image anew from its own cluster file and lock and writes it
// to dir as a raw disk, whose path it returns. Unlike [Make], it takes nothing
// over from an image that is there. Another kscratch than the one that the lock
// names would make another image: that is an *[InputError].
func Rebuild(ctx context.Context, s *Spec, l *Lock, role Role, dir string, o Options) (string, error) {
	own, err := ownDigest()
	if err != nil {
		return "", err
	}
	if l.Inputs.Kscratch != own {
		return "", &InputError{What: "rebuilding the image", Err: fmt.Errorf(
			"it was built by the kscratch with the digest %s, and this one has %s; use the kscratch that built it", l.Inputs.Kscratch, own)}
	}
	img, err := Build(ctx, s, l, role, o)
	if err != nil {
		return "", err
	}
	o.Formats, o.SBOM = format.All[:1], false
	if _, err := Pack(ctx, img, dir, o); err != nil {
		return "", err
	}
	return filepath.Join(dir, string(role)+format.All[0].Ext), nil
}
