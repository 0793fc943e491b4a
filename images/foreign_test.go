//go:build foreign

package images

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registryConfig is for the program docker-registry (Debian's package of that
// name); the user is "me" with the password "secret".
const registryConfig = `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: "%[2]s", tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem}}
auth: {htpasswd: {realm: test, path: %[1]s/htpasswd}}
`

const htpasswd = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"

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

func startRegistry(t *testing.T) (addr string, ca []byte) {
	t.Helper()
	dir := t.TempDir()
	ca = selfSigned(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	for n, s := range map[string]string{"htpasswd": htpasswd, "config.yml": fmt.Sprintf(registryConfig, dir, addr)} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr, ca
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not come up")
	return "", nil
}

// The registry that most of the world runs agrees with what we ask of it.
func TestRealRegistry(t *testing.T) {
	ctx := context.Background()
	addr, ca := startRegistry(t)
	r := Registry{CA: ca, Keychain: basic{"me", "secret"}}
	rt, err := r.transport()
	if err != nil {
		t.Fatal(err)
	}
	opts := []remote.Option{remote.WithTransport(rt), remote.WithAuthFromKeychain(r.Keychain)}
	img, idx := platform(t, "amd64"), index(t, "arm64", "amd64")
	for ref, push := range map[string]func(name.Reference) error{
		"/a/app:v1":   func(n name.Reference) error { return remote.Write(n, img, opts...) },
		"/a/multi:v1": func(n name.Reference) error { return remote.WriteIndex(n, idx, opts...) },
	} {
		n, err := name.ParseReference(addr + ref)
		if err == nil {
			err = push(n)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := importer(t)
		pin, err := r.Resolve(ctx, m, addr+ref, "x:1")
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Pull(ctx, m, pin)
		if err != nil {
			t.Fatal(err)
		}
		checked(t, got)
	}
	_, err = r.Resolve(ctx, importer(t), addr+"/a/app:v2", "")
	wantErr(t, err, "MANIFEST_UNKNOWN")
	_, err = Registry{CA: ca}.Resolve(ctx, importer(t), addr+"/a/app:v1", "")
	wantErr(t, err, "UNAUTHORIZED")
	_, err = Registry{Keychain: r.Keychain, Retries: -1}.Resolve(ctx, importer(t), addr+"/a/app:v1", "")
	wantErr(t, err, "certificate signed by unknown authority")
}
