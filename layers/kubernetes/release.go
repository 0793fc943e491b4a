package kubernetes

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// defaultBase is where Kubernetes is released
// (https://kubernetes.io/releases/download/).
const defaultBase = "https://dl.k8s.io"

// ChecksumError says that a download does not have the checksum that was
// published beside it.
type ChecksumError struct{ URL, Want, Got string }

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("checking %s: it has SHA-512 %s, want %s", e.URL, e.Got, e.Want)
}

// releaseSource is a published release: <base>/<version>/<file> with its
// checksum in <file>.sha512.
type releaseSource struct {
	store *cache.Store
	o     Options
}

func (releaseSource) Name() string { return "release" }

func (s releaseSource) base() string {
	if s.o.BaseURL == "" {
		return defaultBase
	}
	return strings.TrimRight(s.o.BaseURL, "/")
}

func (s releaseSource) url(version string) string {
	return s.base() + "/" + url.PathEscape(version) + "/" + FileName(s.o.arch())
}

func (s releaseSource) key(version string) string { return key("release", "1", s.url(version)) }

func (s releaseSource) Get(ctx context.Context, version string) (Tarball, error) {
	from := s.url(version)
	b, err := s.store.Compute(ctx, tarballKind, s.key(version), func(ctx context.Context, w io.Writer) error {
		return checked(ctx, from, w, s.o)
	})
	if err != nil {
		return Tarball{}, err
	}
	return found(ctx, s.store, b, version, s.Name())
}

// Bounds on downloads, in bytes.
const (
	maxTarball = 4 << 30
	maxSum     = 4096 // of a checksum file
)

// download writes the content of a URL to w.
func download(ctx context.Context, from string, w io.Writer, limit int64, o Options) error {
	u, err := parseURL(from)
	if err != nil {
		return err
	}
	return fetch.Get(ctx, u, w, limit, o.fetch())
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The error repeats the URL, in which there may be a password.
		return nil, errors.New("the base URL of the release cannot be parsed")
	}
	return u, nil
}

// checked downloads a file into w and compares it with its published checksum.
func checked(ctx context.Context, from string, w io.Writer, o Options) error {
	var sum bytes.Buffer
	if err := download(ctx, from+".sha512", &sum, maxSum, o); err != nil {
		return err
	}
	want, err := parseSHA512(sum.Bytes())
	if err != nil {
		return fmt.Errorf("reading %s.sha512: %w", from, err)
	}
	h := sha512.New()
	if err := download(ctx, from, io.MultiWriter(w, h), maxTarball, o); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return &ChecksumError{URL: from, Want: want, Got: got}
	}
	return nil
}

// parseSHA512 reads a checksum file: the digits alone, as releases have it, or
// with a file name after them, as sha512sum writes it.
func parseSHA512(b []byte) (string, error) {
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return "", errors.New("it is empty")
	}
	sum := strings.ToLower(fields[0])
	if _, err := hex.DecodeString(sum); err != nil || len(sum) != 2*sha512.Size || len(fields) > 2 {
		return "", errors.New("it holds no SHA-512 sum")
	}
	return sum, nil
}
