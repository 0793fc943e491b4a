// Package approve signs off the certificates that kubelets serve with, so that
// the API server reaches each kubelet over TLS that it can verify.
//
// Kubernetes leaves this to the cluster's makers, as it takes knowledge of which
// address is whose
// (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation).
// A request is approved if all of this holds:
//
//   - its author is a node, asks in its own name and organisation, and for
//     nothing but serving
//     (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers);
//   - its key is one that a client may rely on;
//   - its only DNS name is the node's, and the API server's certificate does not
//     have it;
//   - each address is one that its node object has and no other node has, is in
//     neither the pods' nor the services' range, and not in the API server's
//     certificate, unless this machine asks for itself.
//
// A node writes its own addresses, of whatever type, so the last two are what
// keeps it from posing as another one, as the API server or as a service.
//
// Any other request is left alone, with the reason in the log: an administrator
// may still decide, and what is missing may come. Several approvers at once do
// no harm.
package approve

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
)

// Options are the surroundings of a master. Root and Kubeconfig are required.
type Options struct {
	Root       string        // directory of the node's file system: "/" on a node
	Kubeconfig string        // path of the approver's
	Interval   time.Duration // after which everything is looked at again; 20 s
	Log        *slog.Logger  // nil: nowhere
}

const (
	nodePrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// Run approves requests until ctx ends, or until a file cannot be read.
func Run(ctx context.Context, o Options) (err error) {
	if o.Interval == 0 {
		o.Interval = 20 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	self, err := kube.ReadSelf(root)
	if err != nil {
		return err
	}
	api, err := kube.New(o.Kubeconfig)
	if err != nil {
		return err
	}
	changed := kube.NewSignal()
	a := &approver{
		api: api, log: o.Log, self: self, said: map[string]string{},
		requests: api.WatchRequests(ctx, certificatesv1.KubeletServingSignerName, changed.Set),
		nodes:    api.WatchNodes(ctx, changed.Set),
	}
	for {
		if err := changed.Wait(ctx, o.Interval); err != nil {
			return err
		}
		a.look(ctx)
	}
}

type approver struct {
	api             *kube.Client
	log             *slog.Logger
	self            kube.Self // the master that this runs on
	requests, nodes cache.Store
	said            map[string]string // last reason by request
}

// look decides about every request that nobody has decided about.
func (a *approver) look(ctx context.Context) {
	said := map[string]string{}
	for _, o := range a.requests.List() {
		r := o.(*certificatesv1.CertificateSigningRequest)
		if len(r.Status.Conditions) > 0 {
			continue
		}
		err := a.check(r)
		if err == nil {
			err = a.approve(ctx, r)
		}
		if err == nil {
			continue
		}
		said[r.Name] = err.Error()
		if a.said[r.Name] != said[r.Name] {
			a.log.Warn("request for a serving certificate is not approved", "request", r.Name, "by", r.Spec.Username, "reason", err)
		}
	}
	a.said = said
}

func (a *approver) check(r *certificatesv1.CertificateSigningRequest) error {
	name, ok := strings.CutPrefix(r.Spec.Username, nodePrefix)
	if !ok {
		return errors.New("its author is not a node")
	}
	o, ok, err := a.nodes.GetByKey(name)
	if err != nil || !ok {
		return fmt.Errorf("there is no node %s yet", name)
	}
	block, rest := pem.Decode(r.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return errors.New("it holds no PEM certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	var others []*corev1.Node
	for _, o := range a.nodes.List() {
		if n := o.(*corev1.Node); n.Name != name {
			others = append(others, n)
		}
	}
	return errors.Join(checkAuthor(r, csr), checkKey(csr), checkNames(csr, o.(*corev1.Node), others), a.checkReserved(csr, name))
}

// usages is what a kubelet asks for: key encipherment with RSA keys only.
var usages = []certificatesv1.KeyUsage{
	certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth,
}

// checkAuthor checks that a request is a node's, about itself, for serving.
func checkAuthor(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) error {
	var errs []error
	unless := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	unless(r.Spec.SignerName == certificatesv1.KubeletServingSignerName, "its signer is %q", r.Spec.SignerName)
	unless(slices.Contains(r.Spec.Groups, nodesGroup), "its author is not in the group %s", nodesGroup)
	unless(csr.Subject.CommonName == r.Spec.Username, "its common name %q is not its author", csr.Subject.CommonName)
	unless(slices.Equal(csr.Subject.Organization, []string{nodesGroup}), "its organisation is %q, not %s", csr.Subject.Organization, nodesGroup)
	unless(len(csr.EmailAddresses)+len(csr.URIs) == 0, "it asks for mail addresses or URIs")
	unless(len(csr.DNSNames)+len(csr.IPAddresses) > 0, "it asks for no name and no address")
	for _, u := range r.Spec.Usages {
		unless(slices.Contains(usages, u), "it asks for the usage %q", u)
	}
	unless(slices.Contains(r.Spec.Usages, certificatesv1.UsageServerAuth), "it does not ask for the usage %q", certificatesv1.UsageServerAuth)
	if err := csr.CheckSignature(); err != nil {
		errs = append(errs, fmt.Errorf("its signature: %w", err))
	}
	return errors.Join(errs...)
}

// checkKey turns down keys that Go's own client would not verify, or not for
// long: a kubelet makes one on the curve P-256.
func checkKey(csr *x509.CertificateRequest) error {
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Params().BitSize >= 256 {
			return nil
		}
		return fmt.Errorf("its key has %d bits, less than 256", key.Params().BitSize)
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 {
			return nil
		}
		return fmt.Errorf("its RSA key has %d bits, less than 2048", key.N.BitLen())
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("its key is of the unknown kind %s", csr.PublicKeyAlgorithm)
}

// checkNames checks that every name and address in a request is the node's and
// only the node's.
func checkNames(csr *x509.CertificateRequest, n *corev1.Node, others []*corev1.Node) error {
	var errs []error
	for _, name := range csr.DNSNames {
		if name != n.Name {
			errs = append(errs, fmt.Errorf("%q is not the name of node %s", name, n.Name))
		}
	}
	for _, b := range csr.IPAddresses {
		ip, ok := netip.AddrFromSlice(b)
		ip = ip.Unmap()
		if !ok || !hasAddress(n, ip.String(), corev1.NodeInternalIP, corev1.NodeExternalIP) {
			errs = append(errs, fmt.Errorf("node %s has no address %s", n.Name, ip))
		}
		for _, o := range others {
			if hasAddress(o, ip.String(), corev1.NodeInternalIP, corev1.NodeExternalIP) {
				errs = append(errs, fmt.Errorf("node %s has the address %s, too", o.Name, ip))
			}
		}
	}
	return errors.Join(errs...)
}

// checkReserved checks that no name and address in the request of a node is
// somebody else's in the cluster, whatever the node says.
func (a *approver) checkReserved(csr *x509.CertificateRequest, node string) error {
	c := a.self.Config
	var errs []error
	for _, name := range csr.DNSNames {
		if slices.ContainsFunc(c.Cluster.APIServer, func(s string) bool { return strings.EqualFold(s, name) }) {
			errs = append(errs, fmt.Errorf("%q is a name of the API server", name))
		}
	}
	for _, b := range csr.IPAddresses {
		ip, _ := netip.AddrFromSlice(b)
		ip = ip.Unmap()
		own := node == a.self.Name && slices.Contains(a.self.Addrs, ip)
		switch {
		case ip.IsLoopback(), ip.IsUnspecified(), ip.IsMulticast():
			errs = append(errs, fmt.Errorf("%s is not a node's to have", ip))
		case c.ClusterCIDR.Contains(ip), c.ServiceCIDR.Contains(ip):
			errs = append(errs, fmt.Errorf("%s is an address of pods or services", ip))
		case !own && slices.Contains(c.Cluster.APIServer, ip.String()):
			errs = append(errs, fmt.Errorf("%s is an address of the API server", ip))
		}
	}
	return errors.Join(errs...)
}

func hasAddress(n *corev1.Node, address string, types ...corev1.NodeAddressType) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		return a.Address == address && slices.Contains(types, a.Type)
	})
}

func (a *approver) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	r = r.DeepCopy()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now(),
		Reason: "KscratchApproved", Message: "The names and addresses are those of the node that asks.",
	})
	err := a.api.Approve(ctx, r)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody else was faster
	}
	if err != nil {
		return fmt.Errorf("approving it: %w", err)
	}
	a.log.Info("approved a serving certificate", "request", r.Name, "by", r.Spec.Username)
	return nil
}
