package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// options returns options whose random bytes are the same in every run.
func options() Options {
	return Options{
		Cluster: "test", Domain: "cluster.local", ServiceIP: netip.MustParseAddr("10.96.0.1"),
		Now: epoch, Rand: rand.NewChaCha8([32]byte{1}),
	}
}

func made(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sub", "pki")
	if err := New(dir, options()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNewKeepsEveryLaw(t *testing.T) {
	dir := made(t)
	for _, p := range Check(dir, options()) {
		t.Error(p)
	}
	var got []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		rel, _ := filepath.Rel(dir, p)
		got = append(got, fi.Mode().String()+" "+rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `drwx------ .
-rw-r--r-- admin.crt
-rw------- admin.key
-rw------- admin.kubeconfig
-rw-r--r-- apiserver-etcd-client.crt
-rw------- apiserver-etcd-client.key
-rw-r--r-- apiserver-kubelet-client.crt
-rw------- apiserver-kubelet-client.key
-rw-r--r-- apiserver.crt
-rw------- apiserver.key
-rw-r--r-- approver.crt
-rw------- approver.key
-rw-r--r-- bootstrap.crt
-rw------- bootstrap.key
-rw-r--r-- ca.crt
-rw------- ca.key
-rw-r--r-- controller-manager.crt
-rw------- controller-manager.key
drwx------ etcd
-rw-r--r-- etcd/ca.crt
-rw------- etcd/ca.key
-rw-r--r-- etcd/peer.crt
-rw------- etcd/peer.key
-rw-r--r-- etcd/server.crt
-rw------- etcd/server.key
-rw-r--r-- front-proxy-ca.crt
-rw------- front-proxy-ca.key
-rw-r--r-- front-proxy-client.crt
-rw------- front-proxy-client.key
-rw-r--r-- kube-proxy.crt
-rw------- kube-proxy.key
-rw------- sa.key
-rw-r--r-- sa.pub
-rw-r--r-- scheduler.crt
-rw------- scheduler.key`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

func TestIdentities(t *testing.T) {
	s, err := Load(made(t))
	if err != nil {
		t.Fatal(err)
	}
	want := `admin.crt: CN=kscratch-admin,O=system:masters by CN=test-ca, client
apiserver-etcd-client.crt: CN=kube-apiserver-etcd-client by CN=test-etcd-ca, client
apiserver-kubelet-client.crt: CN=kube-apiserver-kubelet-client by CN=test-ca, client
apiserver.crt: CN=kube-apiserver by CN=test-ca, server kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local localhost 127.0.0.1 ::1 10.96.0.1
approver.crt: CN=kscratch:approver by CN=test-ca, client
bootstrap.crt: CN=kscratch-bootstrap,O=system:bootstrappers:kscratch by CN=test-ca, client
ca.crt: CN=test-ca by CN=test-ca,
controller-manager.crt: CN=system:kube-controller-manager by CN=test-ca, client
etcd/ca.crt: CN=test-etcd-ca by CN=test-etcd-ca,
etcd/peer.crt: CN=etcd by CN=test-etcd-ca, server client localhost 127.0.0.1 ::1
etcd/server.crt: CN=etcd by CN=test-etcd-ca, server client localhost 127.0.0.1 ::1
front-proxy-ca.crt: CN=test-front-proxy-ca by CN=test-front-proxy-ca,
front-proxy-client.crt: CN=front-proxy-client by CN=test-front-proxy-ca, client
kube-proxy.crt: CN=system:kube-proxy by CN=test-ca, client
scheduler.crt: CN=system:kube-scheduler by CN=test-ca, client
`
	var got strings.Builder
	for _, n := range s.Names() {
		if !strings.HasSuffix(string(n), ".crt") {
			continue
		}
		b, _ := s.Bytes(n)
		c, err := parseCert(b)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		words := []string{string(n) + ":", c.Subject.String(), "by", c.Issuer.String() + ","}
		for _, u := range c.ExtKeyUsage {
			words = append(words, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client"}[u])
		}
		words = append(words, c.DNSNames...)
		for _, ip := range c.IPAddresses {
			words = append(words, ip.String())
		}
		got.WriteString(strings.Join(words, " ") + "\n")
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	a, errA := generate(options())
	b, errB := generate(options())
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	for _, n := range a.Names() {
		if !bytes.Equal(a.files[n], b.files[n]) {
			t.Errorf("%s differs", n)
		}
	}
	o := options()
	o.Rand = rand.NewChaCha8([32]byte{2})
	c, err := generate(o)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.files[CAKey], c.files[CAKey]) {
		t.Error("other random bytes gave the same key")
	}
}

func TestNewNeverOverwrites(t *testing.T) {
	dir := made(t)
	before, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
	err := New(dir, options())
	if err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("second New: %v", err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
	if !bytes.Equal(before, after) {
		t.Error("the key changed")
	}
	onlyEntry(t, filepath.Dir(dir), "pki")
}

// failing is a source of random bytes that ends.
type failing struct{ left int }

func (f *failing) Read(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errors.New("no entropy")
	}
	return len(b), nil
}

func TestFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	o := options()
	o.Rand = &failing{left: 200}
	if err := New(filepath.Join(parent, "pki"), o); err == nil || !strings.Contains(err.Error(), "making a PKI") {
		t.Errorf("got %v", err)
	}
	onlyEntry(t, parent)
}

func onlyEntry(t *testing.T, dir string, want ...string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range es {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func TestNewNeedsItsOptions(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"name":    func(o *Options) { o.Cluster = "" },
		"domain":  func(o *Options) { o.Domain = "" },
		"address": func(o *Options) { o.ServiceIP = netip.Addr{} },
		"time":    func(o *Options) { o.Now = time.Time{} },
		"random":  func(o *Options) { o.Rand = nil },
	} {
		o := options()
		change(&o)
		err := New(filepath.Join(t.TempDir(), "pki"), o)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCheckNamesTheProblem(t *testing.T) {
	other, err := generate(func() Options { o := options(); o.Rand = rand.NewChaCha8([32]byte{9}); return o }())
	if err != nil {
		t.Fatal(err)
	}
	put := func(n Name, b []byte) func(*testing.T, string, *Options) {
		return func(t *testing.T, dir string, _ *Options) {
			if err := os.WriteFile(filepath.Join(dir, string(n)), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(d time.Duration) func(*testing.T, string, *Options) {
		return func(_ *testing.T, _ string, o *Options) { o.Now = epoch.Add(d) }
	}
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name   string
		change func(*testing.T, string, *Options)
		want   []string // in order, a part of each problem
	}{
		{"key lost", func(t *testing.T, dir string, _ *Options) {
			if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
				t.Fatal(err)
			}
		}, []string{"/ca.key: "}},
		{"directory open", func(t *testing.T, dir string, _ *Options) { chmod(t, dir, 0o750) },
			[]string{"pki: others may enter the directory (mode 0750); fix: chmod 0700"}},
		{"key open", func(t *testing.T, dir string, _ *Options) { chmod(t, filepath.Join(dir, "sa.key"), 0o644) },
			[]string{"sa.key: others may read the key (mode 0644); fix: chmod 0600"}},
		{"foreign key", put(SchedulerKey, other.files[SchedulerKey]), []string{"scheduler.key: is not the key of scheduler.crt"}},
		{"foreign chain", func(t *testing.T, dir string, o *Options) {
			put(AdminCert, other.files[AdminCert])(t, dir, o)
			put(AdminKey, other.files[AdminKey])(t, dir, o)
		}, []string{"admin.crt: does not chain to ca.crt"}},
		{"wrong identity", func(t *testing.T, dir string, o *Options) {
			s, _ := Load(dir)
			put(BootstrapCert, s.files[AdminCert])(t, dir, o)
			put(BootstrapKey, s.files[AdminKey])(t, dir, o)
		}, []string{`bootstrap.crt: is for "CN=kscratch-admin,O=system:masters", want CN=kscratch-bootstrap`}},
		{"token keys apart", put(ServiceAccountPub, other.files[ServiceAccountPub]), []string{"sa.pub: is not the public half"}},
		{"no PEM", put(CACert, []byte("hello")), []string{"ca.crt: parsing PEM: no block"}},
		{"trailing bytes", put(EtcdPeerKey, append(slices.Clone(other.files[EtcdPeerKey]), 'x')), []string{"etcd/peer.key: parsing PEM: 1 bytes after"}},
		{"before its time", at(-2 * time.Hour), slices.Repeat([]string{"not valid before 2026-03-01T11:00:00Z"}, len(leaves)+3)},
		{"leaves about to expire", at(LeafLife - 20*day), slices.Repeat([]string{".crt: expires on 2028-02-29T12:00:00Z, in 20 days; fix: run `kscratch pki renew`"}, len(leaves))},
		{"leaves expired", at(LeafLife), slices.Repeat([]string{"expired on 2028-02-29"}, len(leaves))},
		{"all expired", at(AuthorityLife), slices.Repeat([]string{"expired on"}, len(leaves)+3)},
		{"names missing", func(_ *testing.T, _ string, o *Options) {
			o.ExtraSANs = []string{"api.example.org", "192.0.2.7", "localhost"}
		},
			[]string{"apiserver.crt: lacks api.example.org, 192.0.2.7, which the spec asks for"}},
		{"no directory", func(t *testing.T, dir string, _ *Options) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}, []string{"fix: run `kscratch init`"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, o := made(t), options()
			tt.change(t, dir, &o)
			got := Check(dir, o)
			if len(got) != len(tt.want) {
				t.Fatalf("got %d problems, want %d:\n%v", len(got), len(tt.want), got)
			}
			for i, p := range got {
				if !strings.Contains(p.Error(), tt.want[i]) {
					t.Errorf("problem %d: got %q, want %q in it", i, p, tt.want[i])
				}
			}
		})
	}
}

func chmod(t *testing.T, p string, m fs.FileMode) {
	t.Helper()
	if err := os.Chmod(p, m); err != nil {
		t.Fatal(err)
	}
}

// TestEnsureMakesWhatIsNew: a PKI of an older kscratch gets what it did not
// know; half of a pair is lost, not new.
func TestEnsureMakesWhatIsNew(t *testing.T) {
	dir, o := made(t), options()
	for _, n := range []Name{ApproverCert, ApproverKey} {
		if err := os.Remove(filepath.Join(dir, string(n))); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Ensure(dir, o)
	if err != nil || !slices.Equal(got, []Name{ApproverCert, ApproverKey}) {
		t.Errorf("made %v, %v", got, err)
	}
	if p := Check(dir, o); len(p) > 0 {
		t.Errorf("after Ensure: %v", p)
	}
	if err := os.Remove(filepath.Join(dir, string(ApproverKey))); err != nil {
		t.Fatal(err)
	}
	if got, err := Ensure(dir, o); err == nil {
		t.Errorf("made %v in the place of a lost key", got)
	}
}

func TestEnsureReissuesWhatLacksAName(t *testing.T) {
	dir, o := made(t), options()
	before, _ := Load(dir)
	if got, err := Ensure(dir, o); err != nil || len(got) != 0 {
		t.Fatalf("nothing to do: %v %v", got, err)
	}
	o.ExtraSANs = []string{"api.example.org", "2001:db8::1"}
	got, err := Ensure(dir, o)
	if err != nil || !slices.Equal(got, []Name{APIServerCert}) {
		t.Fatalf("got %v %v", got, err)
	}
	if p := Check(dir, o); len(p) != 0 {
		t.Errorf("after Ensure: %v", p)
	}
	after, _ := Load(dir)
	if !bytes.Equal(before.files[APIServerKey], after.files[APIServerKey]) || bytes.Equal(before.files[APIServerCert], after.files[APIServerCert]) {
		t.Error("want the same key in a new certificate")
	}
	a, errA := before.Digest()
	b, errB := after.Digest()
	if errA != nil || errB != nil || a == b {
		t.Errorf("digests %s %v, %s %v", a, errA, b, errB)
	}
}

// TestEtcd: new members get into etcd's certificates, and the operator into
// nothing but etcd.
func TestEtcd(t *testing.T) {
	dir, o := made(t), options()
	o.EtcdSANs = []string{"192.0.2.1", "192.0.2.2"}
	names, err := Ensure(dir, o)
	if err != nil || !slices.Equal(names, []Name{EtcdPeerCert, EtcdServerCert}) {
		t.Fatalf("replaced %v, %v", names, err)
	}
	for _, p := range Check(dir, o) {
		t.Error(p)
	}
	pair, authority, err := EtcdClient(dir, "operator", o)
	if err != nil {
		t.Fatal(err)
	}
	c, pool := pair.Leaf, x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	verify := func(roots *x509.CertPool, use x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: epoch, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	if err := verify(pool, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if verify(pool, x509.ExtKeyUsageServerAuth) == nil || c.Subject.CommonName != "operator" || c.NotAfter.Sub(epoch) != EtcdClientLife {
		t.Errorf("%s until %s, and perhaps a server", c.Subject, c.NotAfter)
	}
	if err := os.Remove(filepath.Join(dir, string(EtcdCAKey))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := EtcdClient(dir, "operator", o); err == nil || !strings.Contains(err.Error(), "etcd/ca.key") {
		t.Errorf("without the authority's key: %v", err)
	}
}

func TestRenewGivesTwoMoreYears(t *testing.T) {
	dir, o := made(t), options()
	o.Now = epoch.Add(LeafLife - time.Hour)
	if len(Check(dir, o)) == 0 {
		t.Fatal("want problems before")
	}
	got, err := Renew(dir, o)
	if err != nil || len(got) != len(leaves)+1 || !slices.Contains(got, adminKubeconfig) {
		t.Fatalf("got %v %v", got, err)
	}
	if p := Check(dir, o); len(p) != 0 {
		t.Errorf("after Renew: %v", p)
	}
	// Near the authority's end a leaf ends with it.
	o.Now = epoch.Add(AuthorityLife - 40*24*time.Hour)
	if _, err := Renew(dir, o); err != nil {
		t.Fatal(err)
	}
	if p := Check(dir, o); len(p) != 0 {
		t.Errorf("after the last Renew: %v", p)
	}
}

func TestSetOnly(t *testing.T) {
	s := Of(map[Name][]byte{CACert: []byte("c"), CAKey: []byte("k")})
	only, err := s.Only(CACert)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := only.Bytes(CAKey); err == nil {
		t.Error("a set restricted to ca.crt gave ca.key")
	}
	if _, err := s.Only(AdminKey); err == nil {
		t.Error("want an error for a file that is not there")
	}
}

func FuzzParse(f *testing.F) {
	s, err := generate(options())
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []Name{CACert, CAKey, ServiceAccountPub} {
		f.Add(s.files[n])
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseCert(b); (c == nil) == (err == nil) {
			t.Error("a certificate or an error")
		}
		if k, err := parseKey(b); (k == nil) == (err == nil) {
			t.Error("a key or an error")
		}
	})
}
