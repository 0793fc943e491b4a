package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

const bootID = "8b1c6998-f198-4354-9ee0-efc2c98aff71"

// otherCA has signed nothing here.
const otherCA = `-----BEGIN CERTIFICATE-----
MIIBdjCCAR2gAwIBAgIUbcGlETHz90jjQpgEwZws9tpX87AwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIyMTAzNzMwWhgPMjEyNjEwMjkxMDM3
MzBaMBAxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
frNqXI/RV4z1xcFU6L3qZFs+CJXoeaHY10mEMK/rTnz7juoSfVhiTzJftzeG939Q
1LvVEbkg5IuVBIV4HDFavqNTMFEwHQYDVR0OBBYEFJFEWBdYBeWX1r5z8VAH1lNn
vZgOMB8GA1UdIwQYMBaAFJFEWBdYBeWX1r5z8VAH1lNnvZgOMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgUQSrpJygCRNMO6pP6EQybymL5AznaxX+
8dbArJMHAi0CIF3NhOZfrVZxpqHCmeC0JIWklYhtZJiJy5W7uFpRZckj
-----END CERTIFICATE-----
`

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// object returns a Node object.
func object(ready, boot string) string {
	return `{"kind":"Node","status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"` + ready +
		`","reason":"KubeletNotReady","message":"container runtime is down"}],"nodeInfo":{"bootID":"` + boot + `"}}}`
}

// cluster is a kubelet and an API server, and a node's tree that points to
// them. An empty answer is status 500.
type cluster struct {
	healthz, readyz, node string
	needCert              bool
}

func (c *cluster) start(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	mux := http.NewServeMux()
	for path, answer := range map[string]*string{"/healthz": &c.healthz, "/readyz": &c.readyz, "/api/v1/nodes/master-10-244-1-0": &c.node} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			known := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
			switch {
			case !known && (c.needCert && path == "/readyz" || strings.HasPrefix(path, "/api")):
				http.Error(w, "Unauthorized", http.StatusUnauthorized)
			case *answer == "":
				http.Error(w, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed", http.StatusInternalServerError)
			default:
				fmt.Fprint(w, *answer)
			}
		})
	}
	kubelet := httptest.NewServer(mux)
	t.Cleanup(kubelet.Close)
	api := httptest.NewUnstartedServer(mux)
	api.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	api.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	api.StartTLS()
	t.Cleanup(api.Close)

	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	put(t, dir, "ca.crt", cert)
	put(t, dir, "pki/dated.pem", cert+privateKey(t, api))
	if err := os.Symlink(filepath.Join(dir, "pki/dated.pem"), filepath.Join(dir, "pki/current.pem")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "kubeconfig", "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority: /ca.crt\n    server: "+api.URL+
		"\n  name: x\nusers:\n- name: x\n  user:\n    client-certificate: /pki/current.pem\n    client-key: /pki/current.pem\n")
	put(t, dir, envPath, "KSCRATCH_NODE_NAME=master-10-244-1-0\nKSCRATCH_POD_CIDR=10.244.1.0/24\n")
	put(t, dir, "proc/sys/kernel/random/boot_id", bootID+"\n")
	put(t, dir, "etc/kscratch/node.json", `{"role":"master","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0",
		"dockerDataRoot":"/var/lib/docker","health":{"kubelet":"`+kubelet.URL+`/healthz","apiserver":"`+api.URL+`/readyz","ca":"/ca.crt"}}`)
	return Options{Root: dir, Kubeconfig: "/kubeconfig", Timeout: 5 * time.Second, Interval: 10 * time.Millisecond}
}

func privateKey(t *testing.T, s *httptest.Server) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestWait(t *testing.T) {
	good := cluster{healthz: "ok", readyz: "ok", node: object("True", bootID)}
	for _, c := range []struct {
		name   string
		change func(*cluster, *Options)
		want   []string // parts of the reason; none: healthy
	}{
		{"healthy", func(*cluster, *Options) {}, nil},
		{"API server wants a certificate", func(c *cluster, _ *Options) { c.needCert = true }, nil},
		{"without a kubeconfig", func(c *cluster, o *Options) { c.node, o.Kubeconfig = "", "" }, nil},
		{"kubelet is sick", func(c *cluster, _ *Options) { c.healthz = "" }, []string{"kubelet: http://127.0.0.1:", "/healthz answers 500"}},
		{"API server is not ready", func(c *cluster, _ *Options) { c.readyz = "" },
			[]string{"API server: https://", "/readyz answers 500 Internal Server Error: [-]etcd failed: reason withheld"}},
		{"node is not Ready", func(c *cluster, _ *Options) { c.node = object("False", bootID) },
			[]string{"node: master-10-244-1-0 is not Ready: KubeletNotReady: container runtime is down"}},
		{"Ready of the boot before", func(c *cluster, _ *Options) { c.node = object("True", "old") }, []string{`node: master-10-244-1-0 has status of boot "old"`}},
		{"no condition", func(c *cluster, _ *Options) { c.node = `{"status":{"nodeInfo":{"bootID":"` + bootID + `"}}}` }, []string{"has no Ready condition yet"}},
		{"no object", func(c *cluster, _ *Options) { c.node = "x" }, []string{"node: reading node object master-10-244-1-0: invalid character"}},
		{"everything", func(c *cluster, _ *Options) { *c = cluster{} }, []string{"kubelet: ", "API server: ", "node: "}},
		{"no kubeconfig yet", func(_ *cluster, o *Options) { o.Kubeconfig = "/none" }, []string{"node: the kubelet has no kubeconfig yet"}},
		{"another CA", func(c *cluster, o *Options) { put(t, o.Root, "ca.crt", otherCA) }, []string{"API server: ", "certificate signed by unknown authority"}},
		{"broken CA", func(c *cluster, o *Options) { put(t, o.Root, "ca.crt", "x") }, []string{"the cluster's CA file holds no certificate"}},
		{"broken certificate", func(c *cluster, o *Options) { put(t, o.Root, "pki/dated.pem", "x") }, []string{"node: loading the kubelet's certificate"}},
		{"no name", func(c *cluster, o *Options) { put(t, o.Root, envPath, "A=b\n") }, []string{"node: /run/kscratch/node.env does not name the node"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := good
			o := k.start(t)
			c.change(&k, &o)
			if c.want != nil {
				o.Timeout = 3 * time.Second // time for handshakes on a busy machine
			}
			err := Wait(t.Context(), o)
			if c.want == nil && err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), w) {
					t.Errorf("got %v\nwant %s", err, w)
				}
			}
		})
	}
}

// TestWaitGoesOn has the node come up while we wait; a reason is logged once.
func TestWaitGoesOn(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 4 {
			http.Error(w, "starting", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	k := cluster{}
	o := k.start(t)
	o.Kubeconfig = ""
	put(t, o.Root, "etc/kscratch/node.json", `{"role":"node","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0",
		"dockerDataRoot":"/var/lib/docker","health":{"kubelet":"`+s.URL+`","ca":"/ca.crt"}}`)
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := Wait(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "starting"); asked.Load() != 4 || n != 1 {
		t.Errorf("asked %d times, said %d times:\n%s", asked.Load(), n, log.String())
	}
}

// TestWaitForOthers: a master whose etcd waits for other masters has all the
// time in the world, and no more than its own once they are there.
func TestWaitForOthers(t *testing.T) {
	k := cluster{healthz: "ok", node: object("True", bootID)} // the API server is not ready
	o := k.start(t)
	b, err := os.ReadFile(filepath.Join(o.Root, firstboot.ConfigPath))
	if err != nil {
		t.Fatal(err)
	}
	put(t, o.Root, firstboot.ConfigPath, strings.Replace(string(b), `{`,
		`{"etcd":{"dataDir":"/d","pki":"/p","members":[{"name":"a","address":"192.0.2.1"},{"name":"b","address":"192.0.2.2"},{"name":"c","address":"192.0.2.3"}]},`, 1))
	put(t, o.Root, firstboot.EtcdReportPath, `{"ready":false,"others":true,"message":"etcd: waiting for b"}`)
	var log bytes.Buffer
	o.Timeout, o.Log = time.Second, slog.New(slog.NewTextHandler(&log, nil))
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- Wait(t.Context(), o) }()
	select {
	case err := <-done:
		t.Fatalf("after %v: %v", time.Since(start), err)
	case <-time.After(3 * o.Timeout):
	}
	put(t, o.Root, firstboot.EtcdReportPath, `{"ready":false,"message":"etcd: a starts"}`)
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "API server: ") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(log.String(), "etcd: waiting for b") {
		t.Errorf("log: %s", log.String())
	}
}

func TestWaitWithoutConfiguration(t *testing.T) {
	if err := Wait(t.Context(), Options{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "reading configuration") {
		t.Errorf("got %v", err)
	}
}

const kubelets = `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: "https://127.0.0.1:6443"
  name: default-cluster
contexts:
- context:
    cluster: default-cluster
    namespace: default
    user: default-auth
  name: default-context
current-context: default-context
kind: Config
preferences: {}
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: '/var/lib/kubelet/pki/kubelet-client-current.pem'
`

func TestParseKubeconfig(t *testing.T) {
	const pki = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	for _, c := range []struct{ name, text, want string }{
		{"a kubelet's", kubelets, "https://127.0.0.1:6443||CA|" + pki + "||" + pki + "|"},
		{"inline", "- cluster: \n    server: s\nclient-certificate-data: " + b64("C") + "\nclient-key-data: " + b64("K"), "s||||C||K"},
		{"empty", "", "error: no server in it"},
		{"two servers", "server: a\nserver: b\n", "error: server: there are two"},
		{"two keys", "server: a\nclient-key-data: QQ==\nclient-key-data: QQ==\n", "error: client-key-data: there are two"},
		{"not Base64", "server: a\nclient-key-data: '!'\n", "error: client-key-data: illegal base64 data"},
	} {
		k, err := ParseKubeconfig(c.text)
		got := strings.Join([]string{k.Server, k.CA, string(k.CAData), k.Cert, string(k.CertData), k.Key, string(k.KeyData)}, "|")
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.HasPrefix(got, c.want) || (err == nil && got != c.want) {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func FuzzParseKubeconfig(f *testing.F) {
	f.Add(kubelets)
	f.Add("server: a\n- server:")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseKubeconfig(s); err == nil && (k.Server == "" || strings.Contains(k.Server, "\n")) {
			t.Fatalf("%+v", k)
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add([]byte(object("True", bootID)))
	f.Add([]byte(`{"status":{"conditions":[null]}}`))
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "proc/sys/kernel/random"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "proc/sys/kernel/random/boot_id"), []byte(bootID), 0o644); err != nil {
		f.Fatal(err)
	}
	g := &gate{Options: Options{Root: dir}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := g.judge("n", b); err == nil && !json.Valid(b) {
			t.Fatalf("accepted %q", b)
		}
	})
}
