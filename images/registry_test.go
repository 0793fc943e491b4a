package images

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
)

// server is a registry on the loopback; between may look at a request first
// and answer it by itself, which it says.
type server struct {
	*httptest.Server
	between func(http.ResponseWriter, *http.Request) bool
	blobs   atomic.Int64 // blobs asked for
	writing bool         // what we push is nobody's business
}

func serve(t testing.TB, secure bool) *server {
	t.Helper()
	s := &server{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !s.writing && strings.Contains(q.URL.Path, "/blobs/") {
			s.blobs.Add(1)
		}
		if !s.writing && s.between != nil && s.between(w, q) {
			return
		}
		next.ServeHTTP(w, q)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *server) ref(nameTag string) string { return s.Listener.Addr().String() + "/" + nameTag }

func (s *server) push(t testing.TB, nameTag string, v remote.Taggable) {
	t.Helper()
	s.writing = true
	defer func() { s.writing = false }()
	ref, err := name.ParseReference(s.ref(nameTag))
	if err != nil {
		t.Fatal(err)
	}
	opt := remote.WithTransport(s.Client().Transport)
	switch v := v.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, v, opt)
	case v1.Image:
		err = remote.Write(ref, v, opt)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// locked resolves the image app:v1.
func (s *server) locked(t testing.TB, r Registry) (Importer, Registry, Pin) {
	t.Helper()
	m := importer(t)
	r = patient(s, r)
	pin, err := r.Resolve(context.Background(), m, s.ref("app:v1"), "")
	if err != nil {
		t.Fatal(err)
	}
	return m, r, pin
}

// patient retries at once.
func patient(s *server, r Registry) Registry {
	r.Wait = time.Millisecond
	if s.Certificate() != nil && r.CA == nil {
		r.CA = pemOf(s.Certificate())
	}
	return r
}

func TestRegistry(t *testing.T) {
	guarded := func(w http.ResponseWriter, q *http.Request) bool {
		if u, p, _ := q.BasicAuth(); u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	secure, plain := serve(t, true), serve(t, false)
	plain.push(t, "app:v1", platform(t, "amd64"))
	secure.push(t, "app:v1", platform(t, "amd64"))
	secure.push(t, "arm:v1", platform(t, "arm64"))
	secure.push(t, "multi:v1", index(t, "arm64", "amd64"))
	secure.push(t, "others:v1", index(t, "arm64", "s390x"))
	secure.push(t, "artifact:v1", mutate.ConfigMediaType(platform(t, "amd64"), "application/vnd.oci.empty.v1+json"))
	for _, c := range []struct {
		name    string
		plain   bool
		between func(http.ResponseWriter, *http.Request) bool
		r       Registry
		from    string
		err     string
	}{
		{name: "image", from: "app:v1"},
		{name: "index", from: "multi:v1"},
		{name: "wrong arch", from: "arm:v1", err: "is for linux/arm64, want linux/amd64"},
		{name: "wrong arches", from: "others:v1", err: "is for linux/arm64, linux/s390x, want linux/amd64"},
		{name: "missing tag", from: "app:v9", err: "MANIFEST_UNKNOWN"},
		{name: "missing repository", from: "nothing:v1", err: "NAME_UNKNOWN"},
		{name: "bad name", from: "APP:v1", err: "parsing image name"},
		{name: "bad digest", from: "app:v1@sha256:12", err: "64 lower-case hex digits"},
		{name: "unknown authority", from: "app:v1", r: Registry{CA: []byte(otherCA)}, err: "certificate signed by unknown authority"},
		{name: "CA is none", from: "app:v1", r: Registry{CA: []byte("x")}, err: "no certificate in them"},
		{name: "basic auth", from: "app:v1", between: guarded, r: Registry{Keychain: Login{"me", "secret"}}},
		{name: "wrong password", from: "app:v1", between: guarded, r: Registry{Keychain: Login{"me", "?"}}, err: "401"},
		{name: "no password", from: "app:v1", between: guarded, err: "401"},
		{name: "plain HTTP allowed", from: "app:v1", plain: true, r: Registry{Insecure: true}},
		{name: "plain HTTP", from: "app:v1", plain: true, err: "http: server gave HTTP response to HTTPS client"},
		{name: "artifact", from: "artifact:v1", err: "an artifact, not an image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := secure
			if c.plain {
				s = plain
			}
			s.between = c.between
			m, r := importer(t), patient(s, c.r)
			pin, err := r.Resolve(context.Background(), m, s.ref(c.from), "registry.k8s.io/x:1")
			wantErr(t, err, c.err)
			if err != nil {
				return
			}
			img, err := r.Pull(context.Background(), m, pin)
			if err != nil || img.Ref != "registry.k8s.io/x:1" || img.Digest != pin.Digest || img.Index != pin.Index {
				t.Fatalf("got %+v, %v for %+v", img, err, pin)
			}
			checked(t, img)
		})
	}
}

func TestTagMoves(t *testing.T) {
	ctx, s := context.Background(), serve(t, true)
	s.push(t, "app:v1", platform(t, "amd64"))
	m, r := importer(t), patient(s, Registry{})
	old, err := r.Resolve(ctx, m, s.ref("app:v1"), "")
	if err != nil {
		t.Fatal(err)
	}
	s.push(t, "app:v1", platform(t, "amd64"))
	now, err := r.Resolve(ctx, m, s.ref("app:v1"), "")
	if err != nil || now.Digest == old.Digest {
		t.Fatalf("still %s, %v", now.Digest, err)
	}
	img, err := r.Pull(ctx, importer(t), old)
	if err != nil || img.Digest != old.Digest {
		t.Fatalf("pulled %s, %v, want %s", img.Digest, err, old.Digest)
	}
	// A reference with a digest goes by the digest, whatever the tag says.
	pinned, err := r.Resolve(ctx, m, s.ref("app:v1")+"@"+string(old.Digest), "")
	if err != nil || pinned.Digest != old.Digest || pinned.Ref != old.Ref {
		t.Errorf("got %+v, %v, want %+v", pinned, err, old)
	}
	_, err = r.Pull(ctx, importer(t), Pin{From: s.ref("app:v1"), Ref: "x:1", Digest: layers.DigestOf(nil)})
	wantErr(t, err, "MANIFEST_UNKNOWN")
}

func TestPullTwiceFetchesOnce(t *testing.T) {
	ctx, s := context.Background(), serve(t, true)
	s.push(t, "app:v1", platform(t, "amd64"))
	m, r, pin := s.locked(t, Registry{})
	if _, err := r.Pull(ctx, m, pin); err != nil {
		t.Fatal(err)
	}
	if n := s.blobs.Load(); n != 3 { // a configuration and two layers
		t.Errorf("%d blobs asked for, want 3", n)
	}
	s.Close() // everything is there
	if _, err := r.Pull(ctx, m, pin); err != nil {
		t.Error(err)
	}
}

func TestBadConnections(t *testing.T) {
	layer := tarOf(t, member{name: "x", body: strings.Repeat("layer ", 1<<16)})
	digest := string(layers.DigestOf(layer))
	for _, c := range []struct {
		name   string
		answer func(n int64, w http.ResponseWriter) bool // to the n-th request for the layer
		r      Registry
		err    string
	}{
		{"breaks off twice", func(n int64, w http.ResponseWriter) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
			w.Write(layer[:int(n)*1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, Registry{}, ""},
		{"always breaks off", func(n int64, w http.ResponseWriter) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
			w.Write(layer[:1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, Registry{Retries: 2}, "after 3 attempts: "},
		{"busy at first", func(n int64, w http.ResponseWriter) bool {
			if n > 2 {
				return false
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, Registry{}, ""},
		{"always busy", func(n int64, w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, Registry{Retries: 2}, "503"},
		{"corrupt layer", func(n int64, w http.ResponseWriter) bool {
			bad := append([]byte{}, layer...)
			bad[600] ^= 1
			w.Write(bad)
			return true
		}, Registry{}, "want " + digest},
		{"other layer", func(n int64, w http.ResponseWriter) bool {
			w.Write([]byte("gone"))
			return true
		}, Registry{}, "(4 bytes), want " + digest},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, true)
			img, err := mutate.AppendLayers(platform(t, "amd64"), static.NewLayer(layer, types.DockerUncompressedLayer))
			if err != nil {
				t.Fatal(err)
			}
			s.push(t, "app:v1", img)
			var n atomic.Int64
			s.between = func(w http.ResponseWriter, q *http.Request) bool {
				return q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, digest) && c.answer(n.Add(1), w)
			}
			m, r, pin := s.locked(t, c.r)
			got, err := r.Pull(context.Background(), m, pin)
			wantErr(t, err, c.err)
			if err == nil {
				checked(t, got)
			}
			if _, ok := m.Store.Lookup(layers.Digest(digest)); ok != (err == nil) {
				t.Errorf("layer in the store: %v, error %v", ok, err)
			}
			if n.Load() > 8 {
				t.Errorf("%d requests for the layer", n.Load())
			}
		})
	}
}

func TestManifestIsVerified(t *testing.T) {
	s := serve(t, true)
	s.push(t, "app:v1", platform(t, "amd64"))
	_, r, pin := s.locked(t, Registry{})
	s.between = func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		fmt.Fprint(w, `{"schemaVersion":2}`)
		return true
	}
	_, err := r.Pull(context.Background(), importer(t), pin)
	wantErr(t, err, "does not match requested digest")
}

func TestPullCanBeCancelled(t *testing.T) {
	s := serve(t, true)
	s.push(t, "app:v1", platform(t, "amd64"))
	m, r, pin := s.locked(t, Registry{})
	ctx, cancel := context.WithCancel(context.Background())
	s.between = func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			cancel()
			<-q.Context().Done()
			return true
		}
		return false
	}
	if _, err := r.Pull(ctx, m, pin); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
