package kubernetes

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
	"github.com/kscratch/kscratch/layers/gomod"
)

// Tarball is a server tarball in the content store.
type Tarball struct {
	Blob    cache.Blob
	Version string // of Kubernetes, such as v1.36.3
	Source  string // which source served it: path, cache, release, modules
	Origin  string // where the content store has it from: path, release, modules
	SHA512  string // 128 hex digits, as releases publish it
}

// Source is a place to get a tarball from.
type Source interface {
	Name() string
	Get(ctx context.Context, version string) (Tarball, error)
}

// Options are what sources need. The zero value works for "release".
type Options struct {
	Path    string        // the file of the source "path"
	BaseURL string        // of the source "release"; empty means upstream's
	Fetch   fetch.Options // for the source "release"; its Log is set from here
	Go      gomod.Options // for the source "modules"; its Arch and Log are set from here
	Epoch   time.Time     // build date and file times of the source "modules"; zero means 1970
	Arch    string        // a GOARCH; empty means amd64
	Log     *slog.Logger  // nil discards
}

func (o Options) arch() string { return WriteOptions{Arch: o.Arch}.arch() }

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

func (o Options) fetch() fetch.Options {
	f := o.Fetch
	f.Log = o.log()
	return f
}

func (o Options) gomod() gomod.Options {
	g := o.Go
	g.Arch, g.Log = o.arch(), o.log()
	return g
}

// SourceNames are the names that [Sources] knows.
var SourceNames = []string{"path", "cache", "release", "modules"}

// Sources returns sources by name, in order. The source "cache" finds what the
// others in the list have brought earlier.
func Sources(store *cache.Store, names []string, o Options) ([]Source, error) {
	var out []Source
	for _, n := range names {
		switch n {
		case "path":
			out = append(out, pathSource{store, o})
		case "cache":
			out = append(out, cacheSource{store, o, names})
		case "release":
			out = append(out, releaseSource{store, o})
		case "modules":
			out = append(out, moduleSource{store, o})
		default:
			return nil, fmt.Errorf("reading Kubernetes sources: unknown source %q, want one of %s", n, strings.Join(SourceNames, ", "))
		}
	}
	return out, nil
}

// Get returns the tarball of a version from the first source that has it, and
// logs in one line which that was and why earlier ones were not. A checksum
// that does not match ends the search: it may be an attack.
func Get(ctx context.Context, version string, log *slog.Logger, sources ...Source) (Tarball, error) {
	if semver.Canonical(version) != version {
		return Tarball{}, fmt.Errorf("getting Kubernetes: version %q: want one such as v1.36.3", version)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	failed := &SourcesError{Version: version}
	for _, s := range sources {
		t, err := s.Get(ctx, version)
		if err == nil {
			attrs := []any{"version", version, "source", t.Source, "sha256", t.Blob.Digest.Hex()}
			if why := failed.reasons(); why != "" {
				attrs = append(attrs, "not", why)
			}
			log.Info("got Kubernetes", attrs...)
			return t, nil
		}
		if sum := (*ChecksumError)(nil); ctx.Err() != nil || errors.As(err, &sum) {
			return Tarball{}, fmt.Errorf("getting Kubernetes %s from %s: %w", version, s.Name(), err)
		}
		failed.Names, failed.Errs = append(failed.Names, s.Name()), append(failed.Errs, err)
	}
	return Tarball{}, failed
}

// SourcesError says why no source served a version.
type SourcesError struct {
	Version string
	Names   []string // of the sources, in the order tried
	Errs    []error  // the reason of each
}

func (e *SourcesError) Error() string {
	if len(e.Names) == 0 {
		return fmt.Sprintf("getting Kubernetes %s: no sources are given", e.Version)
	}
	return fmt.Sprintf("getting Kubernetes %s: no source has it: %s", e.Version, e.reasons())
}

// Unwrap returns the reasons.
func (e *SourcesError) Unwrap() []error { return e.Errs }

func (e *SourcesError) reasons() string {
	var out []string
	for i, n := range e.Names {
		out = append(out, n+": "+e.Errs[i].Error())
	}
	return strings.Join(out, "; ")
}

// Kinds of keys in the content store.
const (
	tarballKind = "kubernetes-tarball"        // a tarball
	digestKind  = "kubernetes-tarball-digest" // the digest of one, as text
	sha512Kind  = "sha512"                    // the SHA-512 of a blob, as text
)

func key(parts ...string) string {
	for i, p := range parts {
		parts[i] = strconv.Quote(p)
	}
	return strings.Join(parts, " ")
}

// found completes the answer of a source.
func found(ctx context.Context, store *cache.Store, b cache.Blob, version, source string) (Tarball, error) {
	sum, err := store.Compute(ctx, sha512Kind, key("1", string(b.Digest)), func(ctx context.Context, w io.Writer) error {
		f, err := b.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha512.New()
		if _, err := io.Copy(h, layers.WithContext(ctx, f)); err != nil {
			return err
		}
		_, err = io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
		return err
	})
	if err != nil {
		return Tarball{}, fmt.Errorf("hashing tarball: %w", err)
	}
	text, err := os.ReadFile(sum.Path)
	if err != nil {
		return Tarball{}, fmt.Errorf("hashing tarball: %w", err)
	}
	return Tarball{Blob: b, Version: version, Source: source, Origin: source, SHA512: string(text)}, nil
}

// pathSource is a file that the user names. Its version is what the user says.
type pathSource struct {
	store *cache.Store
	o     Options
}

func (pathSource) Name() string { return "path" }

func (s pathSource) Get(ctx context.Context, version string) (Tarball, error) {
	if s.o.Path == "" {
		return Tarball{}, errors.New("no path is given")
	}
	f, err := os.Open(s.o.Path)
	if err != nil {
		return Tarball{}, err
	}
	defer f.Close()
	b, err := s.store.Put(ctx, func(ctx context.Context, w io.Writer) error {
		_, err := io.Copy(w, layers.WithContext(ctx, f))
		return err
	})
	if err != nil {
		return Tarball{}, fmt.Errorf("reading %s: %w", s.o.Path, err)
	}
	return found(ctx, s.store, b, version, s.Name())
}

// cacheSource is what other sources have brought earlier.
type cacheSource struct {
	store *cache.Store
	o     Options
	names []string // of all sources, in the order of the spec
}

func (cacheSource) Name() string { return "cache" }

func (s cacheSource) Get(ctx context.Context, version string) (Tarball, error) {
	for _, n := range s.names {
		var b cache.Blob
		var ok bool
		switch n {
		case "release":
			b, ok = s.store.Computed(tarballKind, releaseSource{s.store, s.o}.key(version))
		case "modules":
			b, ok = s.modules(ctx, version)
		}
		if ok {
			t, err := found(ctx, s.store, b, version, s.Name())
			t.Origin = n
			return t, err
		}
	}
	return Tarball{}, fmt.Errorf("%s is not in the content store", version)
}

// modules finds a tarball made by the go command at hand, or by any when there
// is none.
func (s cacheSource) modules(ctx context.Context, version string) (cache.Blob, bool) {
	goVersion := ""
	if v, err := gomod.Version(ctx, s.store, s.o.gomod()); err == nil {
		goVersion = v
	}
	note, ok := s.store.Computed(digestKind, moduleSource{s.store, s.o}.key(version, goVersion))
	if !ok {
		return cache.Blob{}, false
	}
	d, err := os.ReadFile(note.Path)
	if err != nil {
		return cache.Blob{}, false
	}
	return s.store.Lookup(layers.Digest(d))
}

// moduleSource builds the programs from Go modules.
type moduleSource struct {
	store *cache.Store
	o     Options
}

func (moduleSource) Name() string { return "modules" }

// key names a tarball by what is known before anything is built.
func (s moduleSource) key(version, goVersion string) string {
	return key(writeRevision, version, s.o.arch(), WriteOptions{Epoch: s.o.Epoch}.epoch().Format(time.RFC3339), goVersion)
}

func (s moduleSource) Get(ctx context.Context, version string) (Tarball, error) {
	r, err := gomod.Kubernetes(version, s.o.Epoch)
	if err != nil {
		return Tarball{}, err
	}
	programs, err := gomod.Build(ctx, s.store, r, s.o.gomod())
	if err != nil {
		return Tarball{}, err
	}
	w := WriteOptions{Version: version, Arch: s.o.arch(), Epoch: s.o.Epoch}
	b, err := s.store.Compute(ctx, tarballKind, s.contentKey(version, programs), func(ctx context.Context, out io.Writer) error {
		return Write(ctx, out, programs, w)
	})
	if err != nil {
		return Tarball{}, err
	}
	if err := s.note(ctx, version, b); err != nil {
		return Tarball{}, err
	}
	return found(ctx, s.store, b, version, s.Name())
}

// contentKey names a tarball by the digests of all that is in it.
func (s moduleSource) contentKey(version string, programs map[string]cache.Blob) string {
	parts := []string{"modules", s.key(version, "")}
	for _, n := range slices.Sorted(maps.Keys(programs)) {
		parts = append(parts, n, string(programs[n].Digest))
	}
	return key(parts...)
}

// note lets the source "cache" find a tarball, with and without a go command.
func (s moduleSource) note(ctx context.Context, version string, b cache.Blob) error {
	v, err := gomod.Version(ctx, s.store, s.o.gomod())
	if err != nil {
		return err
	}
	for _, goVersion := range []string{v, ""} {
		if _, err := s.store.Compute(ctx, digestKind, s.key(version, goVersion), func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, string(b.Digest))
			return err
		}); err != nil {
			return fmt.Errorf("noting tarball: %w", err)
		}
	}
	return nil
}
