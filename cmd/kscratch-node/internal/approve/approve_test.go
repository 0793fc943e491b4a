package approve

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube/kubetest"
)

// request returns what the kubelet of node n asks for, changed by edit.
func request(t *testing.T, edit func(*certificatesv1.CertificateSigningRequest, *x509.CertificateRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	r := &certificatesv1.CertificateSigningRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"},
		ObjectMeta: metav1.ObjectMeta{Name: "csr"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeletServingSignerName, Username: "system:node:n", Groups: []string{"system:nodes", "system:authenticated"},
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		},
	}
	csr := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}},
		DNSNames: []string{"n"}, IPAddresses: []net.IP{net.IPv4(192, 168, 76, 11)},
	}
	if edit != nil {
		edit(r, csr)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, csr, key)
	if err != nil {
		t.Fatal(err)
	}
	if r.Spec.Request == nil {
		r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	return r
}

func node(name string, addresses ...corev1.NodeAddress) *corev1.Node {
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Addresses = addresses
	return n
}

func ip(s string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: s}
}

func host(s string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeHostName, Address: s}
}

type (
	csr = *certificatesv1.CertificateSigningRequest
	tls = *x509.CertificateRequest
)

// TestRun has one approver decide about all kinds of requests.
func TestRun(t *testing.T) {
	root := t.TempDir()
	const config = `{"role":"master","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0","dockerDataRoot":"/d",
		"cluster":{"kubeconfig":"/k","apiServer":["kubernetes","api.test.internal","10.96.0.1","127.0.0.1","192.168.76.9"]},"health":{"kubelet":"http://127.0.0.1:10248/healthz"}}`
	for name, text := range map[string]string{"etc/kscratch/node.json": config, "run/kscratch/node.env": "KSCRATCH_NODE_NAME=master\n"} {
		at := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	api := kubetest.New(t)
	api.Put("nodes", node("n", ip("192.168.76.11"), host("n"), ip("10.96.0.1"), ip("10.96.7.7"), ip("10.244.3.3"), ip("192.168.76.10"),
		ip("127.0.0.1"), ip("192.168.76.9"), corev1.NodeAddress{Type: corev1.NodeInternalDNS, Address: "kubernetes.default.svc"}))
	api.Put("nodes", node("kubernetes", ip("192.168.76.13")))
	api.Put("nodes", node("m", ip("192.168.76.10"), host("m")))
	tests := []struct {
		name string
		ok   bool
		edit func(csr, tls)
	}{
		{"good", true, nil},
		{"with key encipherment", true, func(r csr, _ tls) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageKeyEncipherment) }},
		{"address only", true, func(_ csr, c tls) { c.DNSNames = nil }},
		{"not a node", false, func(r csr, c tls) { r.Spec.Username = "mallory" }},
		{"not of the group", false, func(r csr, _ tls) { r.Spec.Groups = []string{"system:authenticated"} }},
		{"for another node", false, func(_ csr, c tls) { c.Subject.CommonName = "system:node:m" }},
		{"of another organisation", false, func(_ csr, c tls) { c.Subject.Organization = []string{"system:masters"} }},
		{"of two organisations", false, func(_ csr, c tls) { c.Subject.Organization = []string{"system:nodes", "system:masters"} }},
		{"for a client", false, func(r csr, _ tls) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageClientAuth) }},
		{"not for a server", false, func(r csr, _ tls) { r.Spec.Usages = r.Spec.Usages[:1] }},
		{"mail", false, func(_ csr, c tls) { c.EmailAddresses = []string{"a@b"} }},
		{"URI", false, func(_ csr, c tls) { c.URIs = []*url.URL{{Scheme: "https", Host: "m"}} }},
		{"nothing to serve", false, func(_ csr, c tls) { c.DNSNames, c.IPAddresses = nil, nil }},
		{"another's name", false, func(_ csr, c tls) { c.DNSNames = []string{"n", "m"} }},
		{"a name that it gave itself", false, func(_ csr, c tls) { c.DNSNames = []string{"n", "kubernetes.default.svc"} }},
		{"a node called as the API server", false, func(r csr, c tls) {
			r.Spec.Username, c.Subject.CommonName = "system:node:kubernetes", "system:node:kubernetes"
			c.DNSNames, c.IPAddresses = []string{"kubernetes"}, []net.IP{net.IPv4(192, 168, 76, 13)}
		}},
		{"the address of the endpoint, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(192, 168, 76, 9)} }},
		{"a service's address, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(10, 96, 7, 7)} }},
		{"a pod's address, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(10, 244, 3, 3)} }},
		{"a name of nobody's", false, func(_ csr, c tls) { c.DNSNames = []string{"kubernetes"} }},
		{"an address of nobody's", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)} }},
		{"another's address, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(192, 168, 76, 10)} }},
		{"the API server's address, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(10, 96, 0, 1)} }},
		{"loopback, claimed", false, func(_ csr, c tls) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }},
		{"no request", false, func(r csr, _ tls) { r.Spec.Request = []byte("x") }},
		{"other PEM", false, func(r csr, _ tls) {
			r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})
		}},
	}
	name := func(s string) string { return strings.Map(dashes, strings.ToLower(s)) }
	for _, tt := range tests {
		r := request(t, tt.edit)
		r.Name = name(tt.name)
		api.Put("certificatesigningrequests", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Root: root, Kubeconfig: api.Kubeconfig(), Interval: 50 * time.Millisecond})
	}()
	// One that comes later, from a node that is not known yet.
	late := request(t, func(r csr, c tls) {
		r.Name, r.Spec.Username, c.Subject.CommonName = "late", "system:node:l", "system:node:l"
		c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(192, 168, 76, 12)}
	})
	api.Put("certificatesigningrequests", late)
	waitApproved(t, api, "good")
	api.Put("nodes", node("l", ip("192.168.76.12")))
	waitApproved(t, api, "late")
	for _, tt := range tests {
		if tt.ok {
			waitApproved(t, api, name(tt.name))
		} else if approved(t, api, name(tt.name)) {
			t.Errorf("%s: approved", tt.name)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ends with %v", err)
	}
}

func dashes(r rune) rune {
	if r == ' ' || r == ',' || r == '\'' {
		return '-'
	}
	return r
}

func approved(t *testing.T, api *kubetest.Server, name string) bool {
	t.Helper()
	var r certificatesv1.CertificateSigningRequest
	if !api.Get("certificatesigningrequests", name, &r) {
		t.Fatalf("request %s is gone", name)
	}
	return len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Type == certificatesv1.CertificateApproved
}

func waitApproved(t *testing.T, api *kubetest.Server, name string) {
	t.Helper()
	for range 3000 {
		if approved(t, api, name) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not approved", name)
}

// TestKey: which keys are good enough.
func TestKey(t *testing.T) {
	key := func(k any, err error) any {
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	for _, tt := range []struct {
		name string
		key  any
		want string // empty: good
	}{
		{"P-256", key(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), ""},
		{"P-384", key(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), ""},
		{"P-224", key(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), "224 bits, less than 256"},
		{"RSA", key(rsa.GenerateKey(rand.Reader, 2048)), ""},
		{"short RSA", key(rsa.GenerateKey(rand.Reader, 1024)), "1024 bits, less than 2048"},
		{"Ed25519", key(ed, err), ""},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, tt.key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkKey(csr); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
