//go:build foreign

package images

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gcompression "github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// registryConfig is for the program docker-registry, Debian's package of that
// name: the registry that most of the world runs.
const registryConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: "%[2]s"%[3]s}
`

// Parts of its configuration. The user is "me" with the password "secret".
const (
	withTLS   = `, tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem}`
	withLogin = `auth: {htpasswd: {realm: test, path: %[1]s/htpasswd}}
`
	htpasswd = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
)

// selfSigned writes a key and a certificate for 127.0.0.1 and returns the
// certificate.
func selfSigned(t *testing.T, dir string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for n, b := range map[string][]byte{"cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kb})} {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert
}

// distribution is a docker-registry that runs.
type distribution struct {
	addr string
	dir  string // with its files below data
	ca   []byte // nil without TLS
	stop func()
}

func startRegistry(t *testing.T, secure bool) distribution {
	t.Helper()
	d := distribution{dir: t.TempDir()}
	tls, login := "", ""
	if secure {
		d.ca = selfSigned(t, d.dir)
		tls, login = fmt.Sprintf(withTLS, d.dir), fmt.Sprintf(withLogin, d.dir)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	l.Close()
	for n, s := range map[string]string{"htpasswd": htpasswd, "config.yml": fmt.Sprintf(registryConfig, d.dir, d.addr, tls) + login} {
		if err := os.WriteFile(filepath.Join(d.dir, n), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(d.dir, "config.yml"))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(d.stop)
	for range 200 {
		if c, err := net.Dial("tcp", d.addr); err == nil {
			c.Close()
			return d
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not come up")
	return d
}

// registry returns what reaches d.
func (d distribution) registry() Registry {
	if d.ca == nil {
		return Registry{Insecure: true, Wait: time.Millisecond}
	}
	return Registry{CA: d.ca, Keychain: Login{"me", "secret"}, Wait: time.Millisecond}
}

// push pushes images and indexes by name.
func (d distribution) push(t *testing.T, what map[string]remote.Taggable) {
	t.Helper()
	r := d.registry()
	rt, err := r.transport()
	if err != nil {
		t.Fatal(err)
	}
	opts := []remote.Option{remote.WithTransport(rt)}
	if r.Keychain != nil {
		opts = append(opts, remote.WithAuthFromKeychain(r.Keychain))
	}
	for n, v := range what {
		ref, err := name.ParseReference(d.addr+"/"+n, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		switch v := v.(type) {
		case v1.ImageIndex:
			err = remote.WriteIndex(ref, v, opts...)
		case v1.Image:
			err = remote.Write(ref, v, opts...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// blob returns the file in which d keeps a blob.
func (d distribution) blob(digest layers.Digest) string {
	return filepath.Join(d.dir, "data/docker/registry/v2/blobs/sha256", digest.Hex()[:2], digest.Hex(), "data")
}

// layered returns an image with one layer more, in a compression.
func layered(t *testing.T, tar []byte, c gcompression.Compression, mt types.MediaType) (v1.Image, v1.Layer) {
	t.Helper()
	l := static.NewLayer(tar, mt)
	if c != gcompression.None {
		var err error
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil }
		if l, err = tarball.LayerFromOpener(open, tarball.WithCompression(c), tarball.WithMediaType(mt)); err != nil {
			t.Fatal(err)
		}
	}
	img, err := mutate.Append(platform(t, "amd64"), mutate.Addendum{Layer: l, MediaType: mt})
	if err != nil {
		t.Fatal(err)
	}
	return img, l
}

// Plain HTTP, and TLS with an authority of its own and a password: both give
// the same images, and refuse in the same way.
func TestRealRegistry(t *testing.T) {
	ctx := context.Background()
	tar := tarOf(t, member{name: "app", body: strings.Repeat("layer ", 1000), mode: 0o755})
	for _, secure := range []bool{false, true} {
		d := startRegistry(t, secure)
		plain, _ := layered(t, tar, gcompression.None, types.OCIUncompressedLayer)
		gz, _ := layered(t, tar, gcompression.GZip, types.DockerLayer)
		zst, _ := layered(t, tar, gcompression.ZStd, types.OCILayerZStd)
		d.push(t, map[string]remote.Taggable{
			"a/app:v1": platform(t, "amd64"), "a/multi:v1": index(t, "arm64", "amd64"), "a/arm:v1": platform(t, "arm64"),
			"a/others:v1": index(t, "arm64", "s390x"), "a/plain:v1": plain, "a/gzip:v1": gz, "a/zstd:v1": zst,
			"a/chart:v1": mutate.ConfigMediaType(platform(t, "amd64"), "application/vnd.cncf.helm.config.v1+json"),
		})
		for _, c := range []struct {
			from, err string
			kind      Trouble
		}{
			{"a/app:v1", "", 0}, {"a/multi:v1", "", 0}, {"a/plain:v1", "", 0}, {"a/gzip:v1", "", 0}, {"a/zstd:v1", "", 0},
			{"a/arm:v1", "is for linux/arm64, want linux/amd64", 0},
			{"a/others:v1", "is for linux/arm64, linux/s390x, want linux/amd64", 0},
			{"a/chart:v1", "an artifact, not an image", 0},
			{"a/app:v2", "MANIFEST_UNKNOWN", Absent},
			{"b/app:v1", "", Absent},
			{"a/app@" + string(layers.DigestOf(nil)), "MANIFEST_UNKNOWN", Absent},
		} {
			t.Run(fmt.Sprintf("secure=%v %s", secure, c.from), func(t *testing.T) {
				m, r := importer(t), d.registry()
				pin, err := r.Resolve(ctx, m, d.addr+"/"+c.from, "x:1")
				wantTrouble(t, err, c.kind, c.err)
				if err != nil {
					return
				}
				img, err := r.Pull(ctx, m, pin)
				if err != nil {
					t.Fatal(err)
				}
				checked(t, img)
			})
		}
	}
}

// wantTrouble wants an error of a kind with a text in it, or none.
func wantTrouble(t *testing.T, err error, kind Trouble, text string) {
	t.Helper()
	var re *RegistryError
	if errors.As(err, &re); re != nil && re.Kind != kind || re == nil && kind != 0 {
		t.Errorf("error %v, want one of kind %d", err, kind)
	}
	if kind == 0 || text != "" {
		wantErr(t, err, text)
	}
}

// Who does not say what the registry wants is refused, and told why.
func TestRealRegistryRefuses(t *testing.T) {
	plain, secure := startRegistry(t, false), startRegistry(t, true)
	gone := startRegistry(t, false)
	gone.stop()
	for _, c := range []struct {
		name string
		d    distribution
		r    Registry
		kind Trouble
	}{
		{"no password", secure, Registry{CA: secure.ca}, Denied},
		{"wrong password", secure, Registry{CA: secure.ca, Keychain: Login{"me", "?"}}, Denied},
		{"no authority", secure, Registry{Keychain: Login{"me", "secret"}}, Untrusted},
		{"other authority", secure, Registry{CA: []byte(otherCA)}, Untrusted},
		{"plain HTTP", plain, Registry{}, PlainHTTP},
		{"down", gone, Registry{Insecure: true}, Down},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.r.Wait = time.Millisecond
			_, err := c.r.Resolve(context.Background(), importer(t), c.d.addr+"/a:v1", "")
			wantTrouble(t, err, c.kind, "")
		})
	}
}

// A tag that moves does not move what was pinned.
func TestRealRegistryTagMoves(t *testing.T) {
	ctx, d := context.Background(), startRegistry(t, true)
	r := d.registry()
	d.push(t, map[string]remote.Taggable{"a:v1": platform(t, "amd64")})
	old, err := r.Resolve(ctx, importer(t), d.addr+"/a:v1", "")
	if err != nil {
		t.Fatal(err)
	}
	d.push(t, map[string]remote.Taggable{"a:v1": platform(t, "amd64")})
	now, err := r.Resolve(ctx, importer(t), d.addr+"/a:v1", "")
	if err != nil || now.Digest == old.Digest {
		t.Errorf("resolved to %s, %v, before to %s", now.Digest, err, old.Digest)
	}
	if img, err := r.Pull(ctx, importer(t), old); err != nil || img.Digest != old.Digest {
		t.Errorf("pulled %s, %v, want %s", img.Digest, err, old.Digest)
	}
}

// What a registry keeps badly is refused, and nothing of it stays.
func TestRealRegistryDamaged(t *testing.T) {
	ctx := context.Background()
	tar := tarOf(t, member{name: "app", body: strings.Repeat("layer ", 1<<16)})
	for _, c := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"a bit", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"cut short", func(b []byte) []byte { return b[:len(b)/2] }},
		{"too long", func(b []byte) []byte { return append(b, 0) }},
		{"empty", func([]byte) []byte { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startRegistry(t, false)
			img, l := layered(t, tar, gcompression.None, types.OCIUncompressedLayer)
			d.push(t, map[string]remote.Taggable{"a:v1": img})
			h, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			at := d.blob(layers.Digest(h.String()))
			b, err := os.ReadFile(at)
			if err == nil {
				err = os.WriteFile(at, c.damage(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			m, r := importer(t), d.registry()
			pin, err := r.Resolve(ctx, m, d.addr+"/a:v1", "")
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Pull(ctx, m, pin)
			if mismatch := (*cache.MismatchError)(nil); !errors.As(err, &mismatch) || string(mismatch.Want) != h.String() {
				t.Errorf("error %v, want a mismatch of %s", err, h)
			}
			onlySound(t, m.Store)
		})
	}
}

// onlySound wants a store in which every file is what its name says.
func onlySound(t *testing.T, s *cache.Store) {
	t.Helper()
	err := filepath.WalkDir(s.Dir(), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(p, "lock") {
			return err
		}
		b, err := os.ReadFile(p)
		if err == nil && layers.DigestOf(b).Hex() != filepath.Base(p) {
			t.Errorf("%s is left behind, %d bytes", p, len(b))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// cutter passes requests on to a registry, and breaks the first answers with a
// blob off: those that are longer than after, each at that many bytes.
type cutter struct {
	after, times int

	mu     sync.Mutex
	ranges []string // asked for, of the blobs that were long enough
	sent   int64    // bytes of them
}

func (c *cutter) serve(t *testing.T, d distribution) string {
	t.Helper()
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: d.addr})
	p.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.ModifyResponse = func(resp *http.Response) error {
		if !strings.Contains(resp.Request.URL.Path, "/blobs/") || resp.Request.Method != http.MethodGet || resp.ContentLength < int64(c.after) {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ranges = append(c.ranges, strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Request.Header.Get("Range"))))
		limit := resp.ContentLength
		if len(c.ranges) <= c.times {
			limit = int64(c.after)
		}
		c.sent += limit
		resp.Body = cutBody{io.LimitReader(resp.Body, limit), resp.Body}
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: p, ErrorLog: nil}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

type cutBody struct {
	io.Reader
	io.Closer
}

// A layer whose connection breaks off goes on where it stopped: the registry
// sends every byte once.
func TestRealRegistryResumes(t *testing.T) {
	const size, part = 4 << 20, 1 << 20
	noise := make([]byte, size)
	mrand.NewChaCha8([32]byte{}).Read(noise)
	img, _ := layered(t, tarOf(t, member{name: "noise", body: string(noise)}), gcompression.None, types.OCIUncompressedLayer)
	d := startRegistry(t, false)
	d.push(t, map[string]remote.Taggable{"a:v1": img})
	for _, c := range []struct {
		name  string
		times int    // answers that break off
		want  string // status and range of every answer
	}{
		{"never", 0, "200"},
		{"twice", 2, "200; 206 bytes=1048576-; 206 bytes=2097152-"},
		{"three times", 3, "200; 206 bytes=1048576-; 206 bytes=2097152-; 206 bytes=3145728-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cut := &cutter{after: part, times: c.times}
			addr := cut.serve(t, d)
			m, r := importer(t), d.registry()
			pin, err := r.Resolve(context.Background(), m, addr+"/a:v1", "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Pull(context.Background(), m, pin)
			if err != nil {
				t.Fatal(err)
			}
			checked(t, got)
			cut.mu.Lock()
			defer cut.mu.Unlock()
			if asked := strings.Join(cut.ranges, "; "); asked != c.want {
				t.Errorf("asked for %s, want %s", asked, c.want)
			}
			ls := got.Layers()
			if want := ls[len(ls)-1].Blob.Size; cut.sent != want {
				t.Errorf("%d bytes were sent, the layer has %d", cut.sent, want)
			}
		})
	}
}
