// Package apt finds out which Debian packages a list of names stands for, and
// fetches them.
//
// [Open] reads the indexes of a Debian archive along its chain of signatures:
// InRelease is verified with OpenPGP keys, Packages with the digest that
// InRelease gives it, a .deb with the digest that Packages gives it.
// [Index.Resolve] computes a closure of dependencies. [Mirror.Fetch] downloads
// one package into the content store. [HostMirror] finds the mirror that the
// machine itself uses.
//
//	HostMirror ─► Open ─► Index.Resolve ─► []Package (into the lock) ─► Mirror.Fetch ─► deb.Layer
//
// The formats: https://wiki.debian.org/DebianRepository/Format and the Debian
// policy, chapters 5 and 7.
//
// Not supported: Recommends and Suggests, pin priorities, more than one
// architecture at once (an :any qualifier is taken for the name alone), diffs
// of indexes, detached signatures (Release.gpg), compression of indexes other
// than xz and gzip, mirrors by FTP.
package apt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// The two archives of Debian that a [Mirror] has.
const (
	Archive  = "archive"
	Security = "security"
)

// Mirror says where the archives of Debian are: base URLs with the scheme
// http, https or file, below which dists/ and pool/ lie.
type Mirror struct {
	Archive  string `json:"archive"`
	Security string `json:"security"`
}

// Check reports whether both URLs are of a kind that can be fetched from.
func (m Mirror) Check() error {
	_, err := m.url(Archive, "")
	_, err2 := m.url(Security, "")
	return errors.Join(err, err2)
}

// url returns the URL of a path in one of the archives.
func (m Mirror) url(archive, path string) (*url.URL, error) {
	base := map[string]string{Archive: m.Archive, Security: m.Security}[archive]
	if base == "" {
		return nil, fmt.Errorf("mirror: no URL is known of the %q archive", archive)
	}
	u, err := url.Parse(base)
	if err != nil {
		// The error repeats the URL, in which there may be a password.
		return nil, fmt.Errorf("mirror: the URL of the %q archive cannot be parsed", archive)
	}
	switch {
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
	default:
		return nil, fmt.Errorf("mirror: %s: want a URL like http://…, https://… or file:///…", u.Redacted())
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/")+"/"+path, ""
	return u, nil
}

// Suite is a part of an archive with an index of its own.
type Suite struct {
	Name       string   `json:"name"`       // such as "trixie-security"
	Archive    string   `json:"archive"`    // [Archive] or [Security]
	Components []string `json:"components"` // such as "main"
}

// Trixie returns the suites of Debian 13, from which a node is made.
func Trixie() []Suite {
	return []Suite{
		{"trixie", Archive, []string{"main"}},
		{"trixie-updates", Archive, []string{"main"}},
		{"trixie-security", Security, []string{"main"}},
	}
}

// Options are what may be said to [Open]. The zero value is ready for use.
type Options struct {
	Fetch  fetch.Options // a Log that is nil is set from here
	Suites []Suite       // nil means [Trixie]
	Arch   string        // "" means amd64
	Keys   []byte        // OpenPGP keys, armoured or binary; nil means Debian's, see keys/
	// IgnoreValidUntil accepts an index that is out of date: a snapshot of an
	// archive, or a mirror that has stopped. It can hide security updates.
	IgnoreValidUntil bool
	Log              *slog.Logger // nil means no log
}

func (o Options) withDefaults() Options {
	if o.Suites == nil {
		o.Suites = Trixie()
	}
	if o.Arch == "" {
		o.Arch = "amd64"
	}
	if o.Keys == nil {
		o.Keys = debianKeys()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fetch.Log == nil {
		o.Fetch.Log = o.Log
	}
	return o
}

// Package is one version of a binary package in an archive.
type Package struct {
	Name          string        `json:"name"`
	Version       string        `json:"version"`
	Arch          string        `json:"arch"` // "all" if it suits every one
	Source        string        `json:"source"`
	SourceVersion string        `json:"sourceVersion"`
	Section       string        `json:"section"`
	Archive       string        `json:"archive"`            // [Archive] or [Security]
	Suite         string        `json:"suite"`              // such as "trixie-security"
	Filename      string        `json:"filename"`           // path below the archive's base URL
	Size          int64         `json:"size"`               // of the .deb in bytes
	Digest        layers.Digest `json:"digest"`             // of the .deb
	Requires      []string      `json:"requires,omitempty"` // the packages of the closure that meet its dependencies, sorted
}

// String returns "name=version".
func (p Package) String() string { return p.Name + "=" + p.Version }

// Release is what the signed index of a suite says about itself.
type Release struct {
	Suite      string        `json:"suite"`             // the name it was asked for by
	Archive    string        `json:"archive"`           // [Archive] or [Security]
	Version    string        `json:"version,omitempty"` // of Debian, such as "13.7"
	Digest     layers.Digest `json:"digest"`            // of InRelease, which is in the store
	Date       time.Time     `json:"date"`
	ValidUntil time.Time     `json:"validUntil,omitzero"`
	Signers    []string      `json:"signers"` // fingerprints of the primary keys whose signatures are good, sorted

	acquireByHash bool
	sums          map[string]sum // by path below dists/<suite>/
}

// Index is the packages of some suites.
type Index struct {
	Releases []Release // in the order of the suites

	arch     string
	byName   map[string][]*candidate // newest first
	provides map[string][]provision
}

// Date returns the date of the newest release. Nothing in the index is newer,
// so it suits as the SOURCE_DATE_EPOCH of what is made from it.
func (x *Index) Date() time.Time {
	var t time.Time
	for _, r := range x.Releases {
		if r.Date.After(t) {
			t = r.Date
		}
	}
	return t
}

// Open reads the indexes of the suites from a mirror; now is the time for the
// validity of keys and dates. An index that is not signed by one of the keys,
// is another suite's, is from the future or out of date is a *[VerifyError]; a
// list of packages with another digest than the signed one is a
// *[cache.MismatchError].
func Open(ctx context.Context, store *cache.Store, m Mirror, now time.Time, o Options) (*Index, error) {
	o = o.withDefaults()
	if err := m.Check(); err != nil {
		return nil, err
	}
	keys, err := readKeys(o.Keys)
	if err != nil {
		return nil, err
	}
	op := opener{store, m, now, o, keys}
	found := make([]suiteIndex, len(o.Suites))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range o.Suites {
		g.Go(func() (err error) {
			if found[i], err = op.suite(ctx, s); err != nil {
				return fmt.Errorf("reading suite %s of the %s archive: %w", s.Name, s.Archive, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return newIndex(found, o.Arch)
}

type opener struct {
	store  *cache.Store
	mirror Mirror
	now    time.Time
	o      Options
	keys   keyring
}

// suiteIndex is what was read of one suite.
type suiteIndex struct {
	release  Release
	packages []*candidate
}

func (op opener) suite(ctx context.Context, s Suite) (suiteIndex, error) {
	r, err := op.release(ctx, s)
	if err != nil {
		return suiteIndex{}, err
	}
	out := suiteIndex{release: r}
	for _, c := range s.Components {
		ps, err := op.packages(ctx, s, r, c)
		if err != nil {
			return suiteIndex{}, fmt.Errorf("reading packages of %s: %w", c, err)
		}
		out.packages = append(out.packages, ps...)
	}
	op.o.Log.Info("read package index", "suite", s.Name, "date", r.Date, "packages", len(out.packages))
	return out, nil
}
