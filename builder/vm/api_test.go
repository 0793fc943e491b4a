package vm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// identity is a certificate that is its own CA, and its key.
type identity struct{ cert, key []byte }

func newIdentity(t testing.TB) identity {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb}),
	}
}

func (i identity) kubeconfig() []byte {
	e := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {server: "https://nowhere.invalid:1", certificate-authority-data: %s}
users:
- name: u
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: x
  context: {cluster: c, user: u}
current-context: x
`, e(i.cert), e(i.cert), e(i.key))
}

// serve runs an API server that wants the identity as a client certificate.
func serve(t *testing.T, i identity, h http.Handler) (addr string) {
	t.Helper()
	pair, err := tls.X509KeyPair(i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(i.cert)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

const nodesJSON = `{"kind": "NodeList", "items": [{"metadata": {"name": "master-10-244-1-0"}, "status": {
	"addresses": [{"type": "InternalIP", "address": "10.0.2.15"}, {"type": "Hostname", "address": "m"}],
	"conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "%s", "message": "because"}],
	"nodeInfo": {"kubeletVersion": "v1.36.3", "containerRuntimeVersion": "docker://26.1.5"}}}]}`

// machine is a VM without QEMU behind it.
func machine() *VM {
	v := &VM{clock: time.Now, start: time.Now(), done: make(chan struct{})}
	v.console = newConsole(v.Elapsed, nil, nil)
	return v
}

func TestWaitReady(t *testing.T) {
	id := newIdentity(t)
	var asked atomic.Int32
	addr := serve(t, id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case n == 1:
			http.Error(w, "etcd is not there", http.StatusInternalServerError)
		case r.URL.Path == "/readyz":
			fmt.Fprint(w, "ok")
		case n == 3:
			fmt.Fprint(w, `{"items": []}`)
		case n == 4:
			fmt.Fprintf(w, nodesJSON, "False")
		default:
			fmt.Fprintf(w, nodesJSON, "True")
		}
	}))
	api, err := NewAPI(id.kubeconfig(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	r, err := machine().WaitReady(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %v %s %s %v", r.Name, r.Addresses, r.Version, r.Runtime, r.APIAfter > 0 && r.After > r.APIAfter)
	if want := "master-10-244-1-0 [InternalIP 10.0.2.15 Hostname m] v1.36.3 docker://26.1.5 true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWaitReadyFails(t *testing.T) {
	id := newIdentity(t)
	addr := serve(t, id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			fmt.Fprint(w, "ok")
			return
		}
		fmt.Fprintf(w, nodesJSON, "False")
	}))
	for _, tc := range []struct {
		name string
		do   func(*VM, context.CancelFunc)
		want []string
	}{
		{"time is up", func(_ *VM, cancel context.CancelFunc) { time.AfterFunc(time.Second, cancel) },
			[]string{"context canceled", "master-10-244-1-0 is not Ready: because", "hello from the console"}},
		{"machine off", func(v *VM, _ context.CancelFunc) { close(v.done) }, []string{"the machine went off"}},
		{"panic", func(v *VM, _ context.CancelFunc) { v.console.Write([]byte("Kernel panic - not syncing: x\n")) },
			[]string{"kernel panic", "not syncing"}},
	} {
		api, err := NewAPI(id.kubeconfig(), addr)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		v := machine()
		v.console.Write([]byte("hello from the console\n"))
		tc.do(v, cancel)
		_, err = v.WaitReady(ctx, api)
		cancel()
		api.Close()
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want %q in it", tc.name, err, w)
			}
		}
	}
}

func TestAPIRefuses(t *testing.T) {
	id, other := newIdentity(t), newIdentity(t)
	addr := serve(t, id, http.NotFoundHandler())
	for _, tc := range []struct {
		name, addr string
		config     []byte
		want       string
	}{
		{"address beyond loopback", "192.0.2.1:6443", id.kubeconfig(), "not a loopback address"},
		{"host name", "localhost:6443", id.kubeconfig(), "not a loopback address"},
		{"no port", "127.0.0.1", id.kubeconfig(), "missing port"},
		{"not YAML", addr, []byte("\t{"), "reading kubeconfig"},
		{"empty", addr, nil, "want an embedded CA"},
		{"another cluster's CA", addr, other.kubeconfig(), "unknown authority"},
		{"not found", addr, id.kubeconfig(), "status 404"},
	} {
		api, err := NewAPI(tc.config, tc.addr)
		if err == nil {
			_, err = api.Get(t.Context(), "/nothing")
			api.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	var se *StatusError
	api, err := NewAPI(id.kubeconfig(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if _, err := api.Get(t.Context(), "/x"); !errors.As(err, &se) || se.Code != 404 {
		t.Errorf("got %v, want a StatusError", err)
	}
}

func FuzzParseKubeconfig(f *testing.F) {
	f.Add(identity{[]byte("c"), []byte("k")}.kubeconfig())
	f.Add([]byte("contexts: [{}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseKubeconfig(b)
		if err == nil && (len(c.ca) == 0 || len(c.cert) == 0 || len(c.key) == 0) {
			t.Error("accepted without all three parts")
		}
	})
}

func FuzzParseNodes(f *testing.F) {
	f.Add(fmt.Appendf(nil, nodesJSON, "True"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ns, err := parseNodes(b); err != nil && ns != nil {
			t.Error("nodes and an error")
		}
	})
}
