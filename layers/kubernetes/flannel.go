package kubernetes

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/semver"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// FlannelBase is where flannel is released
// (https://github.com/flannel-io/flannel/releases).
const FlannelBase = "https://github.com/flannel-io/flannel/releases/download"

// Flannel returns the program of a release of flannel, such as v0.28.0:
// <base>/<version>/flanneld-<arch>, a program of 40 MB and no archive. An empty
// o.BaseURL means [FlannelBase]; of o, only Fetch, Arch and Log count besides.
// Checksums are as with [CRIDockerd]: upstream publishes none.
func Flannel(ctx context.Context, store *cache.Store, version string, want layers.Digest, o Options) (cache.Blob, error) {
	if semver.Canonical(version) != version {
		return cache.Blob{}, fmt.Errorf("getting flanneld: version %q: want one such as v0.28.0", version)
	}
	base := o.BaseURL
	if base == "" {
		base = FlannelBase
	}
	from, err := parseURL(base)
	if err != nil {
		return cache.Blob{}, err
	}
	from = from.JoinPath(version, "flanneld-"+o.arch())
	return store.Compute(ctx, "flanneld", key("1", from.String(), string(want), o.arch()), func(ctx context.Context, w io.Writer) error {
		b, err := unsigned(ctx, store, from, want, o)
		if err != nil {
			return err
		}
		f, err := b.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		if err := checkProgram(f, from.Redacted(), o.arch()); err != nil {
			return err
		}
		if want == "" {
			warnUnchecked(o, from, b)
		}
		_, err = io.Copy(w, layers.WithContext(ctx, f))
		return err
	})
}

// checkProgram looks at the head of a program and goes back to its start.
func checkProgram(f *os.File, name, arch string) error {
	head := make([]byte, elfHead)
	if _, err := io.ReadFull(f, head); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if found := machine(head); found != machines[arch].String() {
		return &ArchError{Tarball: name, File: "it", Want: machines[arch].String(), Found: found}
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}
