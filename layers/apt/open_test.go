package apt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/fetch"
	"github.com/kscratch/kscratch/test/aptfake"
)

var now = aptfake.Date.Add(48 * time.Hour)

// The packages of the tests: what is asked for, and in other suites.
var (
	tool   = aptfake.Deb{Name: "tool", Depends: "libtool1 (>= 2)", Files: []layers.File{layers.Regular("usr/bin/tool", 0o755, "t", bytes.Repeat([]byte("tool"), 5000))}}
	old    = aptfake.Deb{Name: "libtool1", Version: "2.0-1", Source: "tool-src (1:2.0-1)"}
	newer  = aptfake.Deb{Name: "libtool1", Version: "2.0-1+deb13u1", Source: "tool-src (1:2.0-1)", Suite: aptfake.Security}
	update = aptfake.Deb{Name: "tzdata", Version: "2026a", Arch: "all", Suite: aptfake.Updates}
	debs   = []aptfake.Deb{tool, old, newer, update}
)

func newStore(t testing.TB) *cache.Store {
	t.Helper()
	s, err := cache.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mirror(a *aptfake.Archive) apt.Mirror { return apt.Mirror{Archive: a.Main, Security: a.Security} }

var quick = fetch.Options{Wait: time.Millisecond, Stall: 10 * time.Second}

func open(t *testing.T, s *cache.Store, a *aptfake.Archive) (*apt.Index, error) {
	t.Helper()
	return apt.Open(t.Context(), s, mirror(a), now, apt.Options{Keys: a.Keys, Fetch: quick})
}

// TestChain goes all the way from a name to files.
func TestChain(t *testing.T) {
	for _, compress := range []string{"", ".gz", ".xz"} {
		t.Run("Packages"+compress, func(t *testing.T) {
			a := aptfake.Serve(t, aptfake.Settings{Debs: debs, Compress: []string{compress}})
			s := newStore(t)
			x, err := open(t, s, a)
			if err != nil {
				t.Fatal(err)
			}
			checkChain(t, s, mirror(a), x)
			for _, r := range a.Requests() {
				if strings.Contains(r, "binary-amd64") && !strings.Contains(r, "by-hash") {
					t.Errorf("not asked for by its hash: %s", r)
				}
			}
		})
	}
	t.Run("file URLs", func(t *testing.T) {
		dir := t.TempDir()
		keys, err := aptfake.Write(dir, debs...)
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(t)
		m := apt.Mirror{Archive: "file://" + dir + "/debian", Security: "file://" + dir + "/debian-security/"}
		x, err := apt.Open(t.Context(), s, m, now, apt.Options{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		checkChain(t, s, m, x)
	})
}

func checkChain(t *testing.T, s *cache.Store, m apt.Mirror, x *apt.Index) {
	t.Helper()
	for i, suite := range apt.Trixie() {
		r := x.Releases[i]
		if _, ok := s.Lookup(r.Digest); !ok || r.Suite != suite.Name || !r.Date.Equal(aptfake.Date) || len(r.Signers) != 1 {
			t.Errorf("release %d: %+v, in the store: %v", i, r, ok)
		}
	}
	if !x.Date().Equal(aptfake.Date) {
		t.Errorf("date: got %v", x.Date())
	}
	ps, err := x.Resolve([]string{"tool", "tzdata"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ps {
		b, err := m.Fetch(t.Context(), quick, s, p)
		if err != nil {
			t.Fatal(err)
		}
		d, err := deb.Layer(t.Context(), s, b, p.String(), deb.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range d.Layer.Files() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		got = append(got, fmt.Sprintf("%s %s of %s=%s in %s/%s: %s, %d files", p, p.Arch, p.Source, p.SourceVersion, p.Archive, p.Suite, p.Filename, n))
	}
	want := `libtool1=2.0-1+deb13u1 amd64 of tool-src=1:2.0-1 in security/trixie-security: pool/main/t/tool-src/libtool1_2.0-1+deb13u1_amd64.deb, 1 files
tool=1.0-1 amd64 of tool=1.0-1 in archive/trixie: pool/main/t/tool/tool_1.0-1_amd64.deb, 4 files
tzdata=2026a all of tzdata=2026a in archive/trixie-updates: pool/main/t/tzdata/tzdata_2026a_all.deb, 1 files`
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("got:\n%s\nwant:\n%s", g, want)
	}
}

// What is in the store is not fetched again; only InRelease, which says what
// is current, is.
func TestOpenAgain(t *testing.T) {
	a, s := aptfake.New(t, debs...), newStore(t)
	if _, err := open(t, s, a); err != nil {
		t.Fatal(err)
	}
	first := len(a.Requests())
	if _, err := open(t, s, a); err != nil {
		t.Fatal(err)
	}
	for _, r := range a.Requests()[first:] {
		if !strings.HasSuffix(r, "/InRelease") {
			t.Errorf("fetched again: %s", r)
		}
	}
}

func TestByHashMissing(t *testing.T) {
	a, s := aptfake.New(t, debs...), newStore(t)
	for p := range must(t, aptfake.Settings{Debs: debs}.Files) {
		if strings.Contains(p, "by-hash") {
			a.Remove(p)
		}
	}
	if _, err := open(t, s, a); err != nil {
		t.Error(err)
	}
}

func must[T any](t *testing.T, f func() (T, error)) T {
	t.Helper()
	v, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const inRelease = "debian/dists/trixie/InRelease"

func TestOpenRefuses(t *testing.T) {
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				panic("no " + old)
			}
			return bytes.Replace(b, []byte(old), []byte(new), 1)
		}
	}
	resign := func(old, new string) aptfake.Settings {
		return aptfake.Settings{Debs: debs, Release: func(suite, text string) string {
			if suite != aptfake.Trixie {
				return text
			}
			return string(replace(old, new)([]byte(text)))
		}}
	}
	unsigned := func(b []byte) []byte {
		_, b, _ = bytes.Cut(b, []byte("\n\n"))
		b, _, _ = bytes.Cut(b, []byte("-----BEGIN PGP SIGNATURE"))
		return b
	}
	for _, c := range []struct {
		name     string
		settings aptfake.Settings
		tamper   func([]byte) []byte // of InRelease
		change   func(*apt.Options)
		want     string // in the error; "" for none
		verify   bool   // want a *VerifyError
	}{
		{name: "nothing", settings: aptfake.Settings{Debs: debs}},
		{name: "empty archive", settings: aptfake.Settings{}},
		{name: "one byte changed", tamper: replace("Label: Debian", "Label: Debiam"), want: "invalid signature", verify: true},
		{name: "unsigned", tamper: unsigned, want: "is not a clear-signed OpenPGP message", verify: true},
		{name: "empty", tamper: func([]byte) []byte { return nil }, want: "is not a clear-signed OpenPGP message", verify: true},
		{name: "text before", tamper: func(b []byte) []byte { return append([]byte("Suite: x\n"), b...) }, want: "outside of the signed part", verify: true},
		{name: "text after", tamper: func(b []byte) []byte { return append(b, "Suite: x\n"...) }, want: "outside of the signed part", verify: true},
		{name: "signed twice over", tamper: func(b []byte) []byte { return append(b, b...) }, want: "outside of the signed part", verify: true},
		{name: "cut off", tamper: func(b []byte) []byte { return b[:len(b)-60] }, want: "", verify: true},
		{name: "too large", tamper: func([]byte) []byte { return make([]byte, 17<<20) }, want: "larger than expected: more than 16777216 bytes"},
		{name: "unknown key", change: func(o *apt.Options) { o.Keys = nil }, want: "no good signature by a known key", verify: true},
		{name: "no keys", change: func(o *apt.Options) { o.Keys = []byte("junk") }, want: "reading OpenPGP keys"},
		{name: "another suite", settings: resign("Codename: trixie", "Codename: sid"), want: `is of the suite "sid"`, verify: true},
		{name: "no date", settings: resign("Date:", "Day:"), want: `reading Date: "" is not a date`, verify: true},
		{name: "from the future", settings: aptfake.Settings{Date: now.Add(2 * time.Hour)}, want: "lies in the future", verify: true},
		{name: "clocks a little apart", settings: aptfake.Settings{Date: now.Add(time.Minute)}},
		{name: "still valid", settings: aptfake.Settings{ValidUntil: now.Add(time.Hour)}},
		{name: "out of date", settings: aptfake.Settings{ValidUntil: now.Add(-time.Hour)}, want: "it was valid until 2026-01-04T02:04:05Z (now is 2026-01-04T03:04:05Z)", verify: true},
		{name: "out of date, on purpose", settings: aptfake.Settings{ValidUntil: now.Add(-time.Hour)}, change: func(o *apt.Options) { o.IgnoreValidUntil = true }},
		{name: "no sums", settings: resign("SHA256:", "SHA512:"), want: "the release has no main/binary-amd64/Packages as .xz, .gz or uncompressed"},
		{name: "bad sums", settings: resign("SHA256:\n", "SHA256:\n zz 1 x\n"), want: "not a digest, a size and a path", verify: true},
		{name: "no such component", change: func(o *apt.Options) { o.Suites = []apt.Suite{{"trixie", apt.Archive, []string{"contrib"}}} }, want: "no contrib/binary-amd64/Packages"},
		{name: "no such suite", change: func(o *apt.Options) { o.Suites = []apt.Suite{{"sid", apt.Archive, []string{"main"}}} }, want: "reading suite sid of the archive archive: fetching InRelease: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := aptfake.Serve(t, c.settings)
			if c.tamper != nil {
				a.Tamper(inRelease, c.tamper)
			}
			o := apt.Options{Keys: a.Keys, Fetch: quick}
			if c.change != nil {
				c.change(&o)
			}
			_, err := apt.Open(t.Context(), newStore(t), mirror(a), now, o)
			var v *apt.VerifyError
			switch {
			case err == nil && (c.want != "" || c.verify):
				t.Errorf("got no error, want one with %q", c.want)
			case err != nil && (c.want == "" && !c.verify || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got error %v, want one with %q", err, c.want)
			case errors.As(err, &v) != c.verify:
				t.Errorf("got error %v (%T), a VerifyError: want %v", err, err, c.verify)
			}
		})
	}
}

func TestTamperedPackages(t *testing.T) {
	a := aptfake.New(t, debs...)
	for p := range must(t, aptfake.Settings{Debs: debs}.Files) {
		if strings.HasPrefix(p, "debian/dists/trixie/main") {
			a.Tamper(p, func(b []byte) []byte { return bytes.Replace(b, []byte("libtool1"), []byte("libtool2"), 1) })
		}
	}
	_, err := open(t, newStore(t), a)
	var m *cache.MismatchError
	if !errors.As(err, &m) || !strings.Contains(err.Error(), "reading suite trixie of the archive archive: reading packages of main: fetching main/binary-amd64/Packages") {
		t.Errorf("got %v", err)
	}
}

func TestFetch(t *testing.T) {
	path := aptfake.New(t).Path(tool)
	size := len(must(t, tool.Bytes))
	full := "GET " + path
	from := func(n int) string { return fmt.Sprintf("GET %s bytes=%d-", path, n) }
	for _, c := range []struct {
		name     string
		do       func(*aptfake.Archive)
		want     string   // in the error; "" for none
		mismatch bool     // want a *cache.MismatchError
		requests []string // for the package
	}{
		{name: "at once", do: func(*aptfake.Archive) {}, requests: []string{full}},
		{name: "server busy", do: func(a *aptfake.Archive) { a.Fail(path, 503, 2) }, requests: []string{full, full, full}},
		{name: "server broken", do: func(a *aptfake.Archive) { a.Fail(path, 500, 9) }, want: "after 4 attempts", requests: []string{full, full, full, full}},
		{name: "forbidden", do: func(a *aptfake.Archive) { a.Fail(path, 403, 9) }, want: "the server says 403 Forbidden", requests: []string{full}},
		{name: "gone", do: func(a *aptfake.Archive) { a.Remove(path) }, want: "the mirror may have a newer version by now: resolve again", requests: []string{full}},
		{name: "connection lost", do: func(a *aptfake.Archive) { a.Cut(path, 4096) }, requests: []string{full, from(4096)}},
		{name: "connection lost at the last byte", do: func(a *aptfake.Archive) { a.Cut(path, size-1) }, requests: []string{full, from(size - 1)}},
		{name: "lost and busy", do: func(a *aptfake.Archive) { a.Cut(path, 4096); a.Fail(path, 503, 1) }, requests: []string{full, from(4096), from(4096)}},
		{name: "tampered", do: func(a *aptfake.Archive) { a.TamperDeb(tool) }, want: "content has digest", mismatch: true, requests: []string{full}},
		{name: "too short", do: func(a *aptfake.Archive) { a.Tamper(path, func(b []byte) []byte { return b[:100] }) }, want: "content has digest", mismatch: true, requests: []string{full}},
		{name: "too long", do: func(a *aptfake.Archive) {
			a.Tamper(path, func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		}, want: fmt.Sprintf("(%d bytes)", size+1), mismatch: true, requests: []string{full}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, s := aptfake.New(t, debs...), newStore(t)
			x, err := open(t, s, a)
			if err != nil {
				t.Fatal(err)
			}
			ps, err := x.Resolve([]string{"tool"})
			if err != nil {
				t.Fatal(err)
			}
			c.do(a)
			b, err := mirror(a).Fetch(t.Context(), quick, s, ps[1])
			var m *cache.MismatchError
			const prefix = "fetching package tool=1.0-1 (pool/main/t/tool/tool_1.0-1_amd64.deb): "
			switch {
			case c.want == "" && (err != nil || b.Size != int64(size)):
				t.Errorf("got %v, %v", b, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), prefix)):
				t.Errorf("got error %v, want one with %q", err, c.want)
			case errors.As(err, &m) != c.mismatch:
				t.Errorf("got error %v (%T), a MismatchError: want %v", err, err, c.mismatch)
			}
			got := slices.DeleteFunc(a.Requests(), func(r string) bool { return !strings.HasPrefix(r, full) })
			if !slices.Equal(got, c.requests) {
				t.Errorf("requests:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.requests, "\n"))
			}
			if left, _ := filepath.Glob(filepath.Join(s.Dir(), "tmp", "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Servers answer in ways that the archive of the tests does not; package fetch
// has more of them.
func TestFetchOddServers(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	p := apt.Package{
		Name: "odd", Version: "1", Arch: "all", Source: "odd", SourceVersion: "1", Archive: apt.Archive,
		Filename: "pool/odd~1+x.deb", Size: int64(len(body)), Digest: layers.DigestOf(body),
	}
	for _, c := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request, n int)
		want  string
	}{
		{"no length and no rest", func(w http.ResponseWriter, r *http.Request, n int) {
			if n > 1 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Write(body[:5000])
			w.(http.Flusher).Flush()
		}, "content has digest"},
		{"path", func(w http.ResponseWriter, r *http.Request, n int) {
			if r.URL.Path == "/a b/pool/odd~1+x.deb" {
				w.Write(body)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n++; c.serve(w, r, n) }))
			defer srv.Close()
			o := fetch.Options{Client: srv.Client(), Attempts: 2, Wait: time.Millisecond}
			_, err := apt.Mirror{Archive: srv.URL + "/a%20b/"}.Fetch(t.Context(), o, newStore(t), p)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestFetchCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }))
	defer srv.Close()
	_, err := apt.Open(ctx, newStore(t), apt.Mirror{Archive: srv.URL, Security: srv.URL}, now, apt.Options{Fetch: quick})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	url := strings.Replace(srv.URL, "http://", "http://user:secret@", 1)
	srv.Close()
	_, err := apt.Open(t.Context(), newStore(t), apt.Mirror{Archive: url, Security: url}, now, apt.Options{Fetch: quick})
	if err == nil || !strings.Contains(err.Error(), "after 4 attempts") || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestMirrorCheck(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"http://mirror.example/debian", ""},
		{"https://u:p@mirror.example", ""},
		{"file:///srv/debian", ""},
		{"", `mirror: no URL is known of the "archive" archive`},
		{"ftp://mirror.example/debian", "mirror: ftp://mirror.example/debian: want a URL like http://…, https://… or file:///…"},
		{"mirror.example/debian", "mirror: mirror.example/debian: want a URL like http://…, https://… or file:///…"},
		{"file://host/debian", "mirror: file://host/debian: want a URL like http://…, https://… or file:///…"},
		{"http://u:secret@x:y/", `mirror: the URL of the "archive" archive cannot be parsed`},
	} {
		got := ""
		if err := (apt.Mirror{Archive: c.url, Security: "file:///x"}).Check(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.url, got, c.want)
		}
	}
}
