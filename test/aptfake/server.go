package aptfake

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Archive is an archive that an HTTP server on the loopback interface serves
// until the test ends. Its methods make it misbehave; paths begin with
// "debian/" or "debian-security/".
type Archive struct {
	Main     string // base URL of the main archive
	Security string // base URL of the security archive
	Keys     []byte // the public key, armoured

	mu       sync.Mutex
	files    map[string][]byte
	faults   map[string][]fault
	requests []string
}

// fault is what happens once instead of an answer.
type fault struct {
	status int // answer with this status; zero for
	cut    int // so many bytes of the full answer and then a lost connection
}

// New serves an archive with packages.
func New(t testing.TB, debs ...Deb) *Archive {
	t.Helper()
	return Serve(t, Settings{Debs: debs})
}

// Serve is [New] for an archive with settings of its own.
func Serve(t testing.TB, s Settings) *Archive {
	t.Helper()
	files, err := s.Files()
	if err != nil {
		t.Fatalf("making archive: %v", err)
	}
	keys, err := Keys()
	if err != nil {
		t.Fatalf("making archive: %v", err)
	}
	a := &Archive{Keys: keys, files: files, faults: map[string][]fault{}}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.Main, a.Security = srv.URL+"/debian", srv.URL+"/debian-security"
	return a
}

// ServeHTTP answers GET and HEAD, ranges included.
func (a *Archive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.TrimPrefix(r.URL.Path, "/")
	b, f, ok := a.take(p, strings.TrimSpace(r.Method+" "+p+" "+r.Header.Get("Range")))
	switch {
	case f.status != 0:
		http.Error(w, "a fault of the test", f.status)
	case !ok:
		http.NotFound(w, r)
	case f.cut > 0:
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:min(f.cut, len(b))])
		http.NewResponseController(w).Flush() // else nothing may leave at all
		panic(http.ErrAbortHandler)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func (a *Archive) take(p, request string) (b []byte, f fault, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, request)
	if q := a.faults[p]; len(q) > 0 {
		f, a.faults[p] = q[0], q[1:]
	}
	b, ok = a.files[p]
	return b, f, ok
}

// Requests returns what was asked so far, as "GET <path>", with the Range
// header if there was one, in the order of arrival.
func (a *Archive) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// Tamper replaces the file at path by what change makes of it. The index and
// the signature stay as they are.
func (a *Archive) Tamper(path string, change func([]byte) []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.files[path]
	if !ok {
		panic("aptfake: no file " + path)
	}
	a.files[path] = change(slices.Clone(b))
}

// TamperDeb flips a bit in the middle of a package of the main archive.
func (a *Archive) TamperDeb(d Deb) {
	a.Tamper(a.Path(d), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
}

// Remove deletes the file at path.
func (a *Archive) Remove(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.files, path)
}

// Fail makes the next times requests for path end with an HTTP status.
func (a *Archive) Fail(path string, status, times int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults[path] = append(a.faults[path], slices.Repeat([]fault{{status: status}}, times)...)
}

// Cut makes the next request for path lose its connection after n bytes, n > 0.
func (a *Archive) Cut(path string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults[path] = append(a.faults[path], fault{cut: n})
}

// Path returns the path of a package on the server.
func (a *Archive) Path(d Deb) string {
	return rootOf(d.withDefaults().Suite) + "/" + d.Filename()
}
