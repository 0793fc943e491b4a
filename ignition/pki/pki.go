// Package pki makes, reads and checks the certificates and keys of a cluster.
//
// A PKI is a directory in the user's keeping. Three authorities sign
// everything: the cluster's own (API server, kubelets, users), the front
// proxy's (aggregated API servers) and etcd's. The layout is the one that
// kubeadm documents (https://kubernetes.io/docs/setup/best-practices/certificates/),
// with the client certificates of the components beside it:
//
//	ca.{crt,key}               apiserver.{crt,key}  apiserver-kubelet-client.{crt,key}
//	                           controller-manager, scheduler, kube-proxy, bootstrap, approver, admin.{crt,key}
//	front-proxy-ca.{crt,key}   front-proxy-client.{crt,key}
//	etcd/ca.{crt,key}          etcd/server.{crt,key}  etcd/peer.{crt,key}  apiserver-etcd-client.{crt,key}
//	sa.{key,pub}               signs and verifies service account tokens
//	admin.kubeconfig           for the user's kubectl; never put on a node
//
// Directories have mode 0700, keys and the kubeconfig 0600, the rest 0644.
// Keys are ECDSA P-256 (tokens are signed ES256). An authority is valid for
// [AuthorityLife], everything it signs for [LeafLife].
//
// Not supported: other key types, intermediate authorities, revocation, an
// authority whose key is kept elsewhere, and the rotation of an authority or
// of a key: [Renew] issues new certificates for the keys that are there.
package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// How long certificates are valid. A leaf is baked into an image that cannot
// renew it, so it must outlive the image and a forgotten rebuild or two; two
// years also stay below the 825 days that some verifiers accept at most.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	LeafLife      = 2 * 365 * 24 * time.Hour

	// MinRemaining is what a certificate must have left for Check to accept
	// it: an image built today has to run for a while.
	MinRemaining = 30 * 24 * time.Hour

	// backdate allows for a node whose clock is slow before it has found the
	// time.
	backdate = time.Hour
)

// Name is the path of one file of a PKI, relative to its directory, with
// slashes.
type Name string

// The files of a PKI.
const (
	CACert                Name = "ca.crt"
	CAKey                 Name = "ca.key"
	FrontProxyCACert      Name = "front-proxy-ca.crt"
	FrontProxyCAKey       Name = "front-proxy-ca.key"
	EtcdCACert            Name = "etcd/ca.crt"
	EtcdCAKey             Name = "etcd/ca.key"
	APIServerCert         Name = "apiserver.crt"
	APIServerKey          Name = "apiserver.key"
	APIServerKubeletCert  Name = "apiserver-kubelet-client.crt"
	APIServerKubeletKey   Name = "apiserver-kubelet-client.key"
	APIServerEtcdCert     Name = "apiserver-etcd-client.crt"
	APIServerEtcdKey      Name = "apiserver-etcd-client.key"
	FrontProxyCert        Name = "front-proxy-client.crt"
	FrontProxyKey         Name = "front-proxy-client.key"
	EtcdServerCert        Name = "etcd/server.crt"
	EtcdServerKey         Name = "etcd/server.key"
	EtcdPeerCert          Name = "etcd/peer.crt"
	EtcdPeerKey           Name = "etcd/peer.key"
	ControllerManagerCert Name = "controller-manager.crt"
	ControllerManagerKey  Name = "controller-manager.key"
	SchedulerCert         Name = "scheduler.crt"
	SchedulerKey          Name = "scheduler.key"
	KubeProxyCert         Name = "kube-proxy.crt"
	KubeProxyKey          Name = "kube-proxy.key"
	BootstrapCert         Name = "bootstrap.crt"
	BootstrapKey          Name = "bootstrap.key"
	ApproverCert          Name = "approver.crt"
	ApproverKey           Name = "approver.key"
	AdminCert             Name = "admin.crt"
	AdminKey              Name = "admin.key"
	ServiceAccountKey     Name = "sa.key"
	ServiceAccountPub     Name = "sa.pub"
	adminKubeconfig       Name = "admin.kubeconfig"
)

// Identities that RBAC objects name.
const (
	BootstrapGroup = "system:bootstrappers:kscratch" // group of nodes that have no certificate yet
	Approver       = "kscratch:approver"             // user that approves the certificates that kubelets serve with
	KubeletClient  = "kube-apiserver-kubelet-client" // user as which the API server calls kubelets
)

// pair is a certificate and its key.
type pair struct{ cert, key Name }

// authority is a self-signed certificate authority.
type authority struct {
	pair
	cn string // after the cluster's name
}

// leaf is a certificate that an authority signs.
type leaf struct {
	pair
	ca     *authority
	cn     string
	groups []string // organisations, which Kubernetes reads as groups
	server bool     // serves TLS
	client bool     // is a client of TLS
	sans   func(Options) []string
}

var (
	clusterCA    = authority{pair{CACert, CAKey}, "ca"}
	frontProxyCA = authority{pair{FrontProxyCACert, FrontProxyCAKey}, "front-proxy-ca"}
	etcdCA       = authority{pair{EtcdCACert, EtcdCAKey}, "etcd-ca"}
	authorities  = []*authority{&clusterCA, &frontProxyCA, &etcdCA}
)

// leaves lists every certificate and the identity in it. etcd's server is a
// client too: its gateway calls itself with the serving certificate.
var leaves = []leaf{
	{pair{APIServerCert, APIServerKey}, &clusterCA, "kube-apiserver", nil, true, false, Options.APIServerSANs},
	{pair{APIServerKubeletCert, APIServerKubeletKey}, &clusterCA, KubeletClient, nil, false, true, noSANs},
	{pair{ControllerManagerCert, ControllerManagerKey}, &clusterCA, "system:kube-controller-manager", nil, false, true, noSANs},
	{pair{SchedulerCert, SchedulerKey}, &clusterCA, "system:kube-scheduler", nil, false, true, noSANs},
	{pair{KubeProxyCert, KubeProxyKey}, &clusterCA, "system:kube-proxy", nil, false, true, noSANs},
	{pair{BootstrapCert, BootstrapKey}, &clusterCA, "kscratch-bootstrap", []string{BootstrapGroup}, false, true, noSANs},
	{pair{ApproverCert, ApproverKey}, &clusterCA, Approver, nil, false, true, noSANs},
	{pair{AdminCert, AdminKey}, &clusterCA, "kscratch-admin", []string{"system:masters"}, false, true, noSANs},
	{pair{FrontProxyCert, FrontProxyKey}, &frontProxyCA, "front-proxy-client", nil, false, true, noSANs},
	{pair{EtcdServerCert, EtcdServerKey}, &etcdCA, "etcd", nil, true, true, Options.etcdSANs},
	{pair{EtcdPeerCert, EtcdPeerKey}, &etcdCA, "etcd", nil, true, true, Options.etcdSANs},
	{pair{APIServerEtcdCert, APIServerEtcdKey}, &etcdCA, "kube-apiserver-etcd-client", nil, false, true, noSANs},
}

// Names returns every file of a PKI that nodes may be given a copy of, sorted.
func Names() []Name {
	names := []Name{ServiceAccountKey, ServiceAccountPub}
	for _, a := range authorities {
		names = append(names, a.cert, a.key)
	}
	for _, l := range leaves {
		names = append(names, l.cert, l.key)
	}
	slices.Sort(names)
	return names
}

// Secret reports whether n holds a private key.
func (n Name) Secret() bool {
	return n == adminKubeconfig || len(n) > 4 && n[len(n)-4:] == ".key"
}

// Options is what a PKI is made for and checked against.
type Options struct {
	Cluster   string     // in the names of the authorities; required
	Domain    string     // DNS suffix of services, such as cluster.local; required
	ServiceIP netip.Addr // address of the kubernetes service: the first of the service CIDR; required
	ExtraSANs []string   // further DNS names and IP addresses of the API server
	EtcdSANs  []string   // addresses of etcd's members, if others reach them
	Server    string     // URL in admin.kubeconfig; empty means https://127.0.0.1:6443
	Now       time.Time  // required
	Rand      io.Reader  // cryptographically secure; required by what issues certificates
}

func (o Options) check() error {
	switch {
	case o.Cluster == "":
		return fmt.Errorf("the name of the cluster is missing")
	case o.Domain == "":
		return fmt.Errorf("the DNS domain of the cluster is missing")
	case !o.ServiceIP.IsValid():
		return fmt.Errorf("the address of the kubernetes service is missing")
	case o.Now.IsZero():
		return fmt.Errorf("the time is missing")
	}
	return nil
}

func (o Options) server() string {
	if o.Server == "" {
		return "https://127.0.0.1:6443"
	}
	return o.Server
}

func noSANs(Options) []string { return nil }

// etcdSANs is every member's address: masters boot from one image, and the key
// of etcd's authority, with which each could make a certificate of its own,
// stays with the user.
func (o Options) etcdSANs() []string {
	return append([]string{"localhost", "127.0.0.1", "::1"}, o.EtcdSANs...)
}

// APIServerSANs returns the DNS names and IP addresses in the API server's
// certificate.
func (o Options) APIServerSANs() []string {
	sans := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + o.Domain,
		"localhost", "127.0.0.1", "::1", o.ServiceIP.String(),
	}
	for _, s := range o.ExtraSANs {
		if !slices.Contains(sans, s) {
			sans = append(sans, s)
		}
	}
	return sans
}

// Set is the files of a PKI, or some of them, as a value.
type Set struct{ files map[Name][]byte }

// Of returns a set of the given files. It takes no copy of their contents.
func Of(files map[Name][]byte) Set { return Set{maps.Clone(files)} }

// Names returns the names of the files in s, sorted.
func (s Set) Names() []Name { return slices.Sorted(maps.Keys(s.files)) }

// Bytes returns the content of a file.
func (s Set) Bytes(n Name) ([]byte, error) {
	b, ok := s.files[n]
	if !ok {
		return nil, fmt.Errorf("reading %s: not in this PKI", n)
	}
	return b, nil
}

// Only returns the set of exactly the named files, so that what is made from
// it cannot hold another one.
func (s Set) Only(names ...Name) (Set, error) {
	files := make(map[Name][]byte, len(names))
	for _, n := range names {
		b, err := s.Bytes(n)
		if err != nil {
			return Set{}, err
		}
		files[n] = b
	}
	return Set{files}, nil
}

// Digest returns "sha256:…" over the certificates and the public halves of
// the keys in s. It identifies the PKI and may be published.
func (s Set) Digest() (string, error) {
	h := sha256.New()
	for _, n := range s.Names() {
		b := s.files[n]
		if n.Secret() {
			key, err := parseKey(b)
			if err != nil {
				return "", fmt.Errorf("reading %s: %w", n, err)
			}
			if b, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
				return "", fmt.Errorf("reading %s: %w", n, err)
			}
		}
		fmt.Fprintf(h, "%s %d\n", n, len(b))
		h.Write(b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
