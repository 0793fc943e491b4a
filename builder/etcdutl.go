package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/kscratch/kscratch/layers/gomod"
)

// Etcdutl writes the program etcdutl, of the version of the cluster's etcd, to
// a file that must not exist. It is built from Go modules for this machine, or
// comes from the store.
func Etcdutl(ctx context.Context, s *Spec, to string, o Options) (err error) {
	// Debian's versions have more to their ends, and no v.
	version, _, _ := strings.Cut(strings.TrimPrefix(s.Components.Etcd.Version, "v"), "+")
	version, _, _ = strings.Cut(version, "-")
	g := goOptions(o)
	g.Arch = runtime.GOARCH
	blobs, err := gomod.Build(ctx, o.Store, gomod.Etcdutl("v"+version), g)
	if err != nil {
		return &InputError{What: "building etcdutl", Err: err}
	}
	r, err := blobs["etcdutl"].Open()
	if err != nil {
		return fmt.Errorf("installing etcdutl: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return &OutputError{Path: to, Err: err}
	}
	_, err = io.Copy(w, r)
	if err = errors.Join(err, w.Close()); err != nil {
		return &OutputError{Path: to, Err: err}
	}
	return nil
}
