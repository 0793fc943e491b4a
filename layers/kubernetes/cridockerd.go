package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// CRIDockerdBase is where cri-dockerd is released
// (https://github.com/Mirantis/cri-dockerd/releases).
const CRIDockerdBase = "https://github.com/Mirantis/cri-dockerd/releases/download"

// criDockerdLayout is that of packaging/static/Makefile in cri-dockerd's
// source. Releases have archives of 20 MB with a program of 50 MB.
var criDockerdLayout = layout{
	kind: "cri-dockerd-member", what: "archive of cri-dockerd", dir: "cri-dockerd", limit: 1 << 30, unpacked: 1 << 30, unsure: true,
}

// maxDownload bounds a program's release, in bytes.
const maxDownload = 512 << 20

// CRIDockerd returns the program of a release of cri-dockerd, such as v0.3.17:
// the member cri-dockerd/cri-dockerd of
// <base>/<version>/cri-dockerd-<version without v>.<arch>.tgz. An empty
// o.BaseURL means [CRIDockerdBase]; of o, only Fetch, Arch and Log count besides.
//
// Upstream publishes neither checksums nor signatures. An archive with another
// digest than want is a *[cache.MismatchError]; if want is empty, whoever the
// TLS certificate names is trusted, which a warning says. The store keeps the
// program, so that this is done once.
func CRIDockerd(ctx context.Context, store *cache.Store, version string, want layers.Digest, o Options) (cache.Blob, error) {
	if semver.Canonical(version) != version {
		return cache.Blob{}, fmt.Errorf("getting cri-dockerd: version %q: want one such as v0.3.17", version)
	}
	from, err := criDockerdURL(version, o)
	if err != nil {
		return cache.Blob{}, err
	}
	return store.Compute(ctx, "cri-dockerd", key("1", from.String(), string(want), o.arch()), func(ctx context.Context, w io.Writer) error {
		archive, err := unsigned(ctx, store, from, want, o)
		if err != nil {
			return err
		}
		got, err := extract(ctx, store, archive, criDockerdLayout, o.arch(), "cri-dockerd")
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", from.Redacted(), err)
		}
		if want == "" {
			warnUnchecked(o, from, archive)
		}
		f, err := got["cri-dockerd"].Open()
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, layers.WithContext(ctx, f))
		return err
	})
}

func criDockerdURL(version string, o Options) (*url.URL, error) {
	base := o.BaseURL
	if base == "" {
		base = CRIDockerdBase
	}
	u, err := parseURL(base)
	if err != nil {
		return nil, err
	}
	return u.JoinPath(version, "cri-dockerd-"+strings.TrimPrefix(version, "v")+"."+o.arch()+".tgz"), nil
}

func warnUnchecked(o Options, from *url.URL, b cache.Blob) {
	o.log().Warn("trusting a download for its TLS certificate alone, as no checksum is given; the lock pins it from now on",
		"url", from.Redacted(), "sha256", b.Digest.Hex())
}

// unsigned gets a file of a release, which has the digest want if that is not
// empty.
func unsigned(ctx context.Context, store *cache.Store, from *url.URL, want layers.Digest, o Options) (cache.Blob, error) {
	get := func(ctx context.Context, w io.Writer) error { return fetch.Get(ctx, from, w, maxDownload, o.fetch()) }
	if want != "" {
		b, err := store.Fetch(ctx, want, get)
		if mismatch := (*cache.MismatchError)(nil); errors.As(err, &mismatch) {
			err = fmt.Errorf("checking %s: %w", from.Redacted(), err)
		}
		return b, err
	}
	return store.Put(ctx, get)
}
