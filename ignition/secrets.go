package ignition

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"

	"github.com/kscratch/kscratch/ignition/pki"
)

// credential is one file of the PKI's on a node: a copy, or a kubeconfig made
// of a certificate and its key.
type credential struct {
	path   string   // on the node
	copies pki.Name // what it is a copy of, or:
	cert   pki.Name // what a kubeconfig is made of
	key    pki.Name
	worker bool   // workers have it too; masters have all
	use    string // what for; empty when it is not secret

	identified bool // only where clients say who they are
	anonymous  bool // only where they need not: a kubeconfig without an identity
}

// credentials is everything of the PKI's that leaves the user's keeping. What
// is not here stays there: etcd's and the front proxy's authorities sign only
// on the user's machine.
var credentials = []credential{
	{path: pkiDir + "ca.crt", copies: pki.CACert, worker: true},
	identified(kubeconfig("bootstrap", pki.BootstrapCert, pki.BootstrapKey, true, "lets a new node ask for its own certificate, nothing else")),
	identified(kubeconfig("kube-proxy", pki.KubeProxyCert, pki.KubeProxyKey, true, "kube-proxy's identity: reads services, endpoints and nodes")),

	// In the place of the two above where nobody has to say who they are.
	{path: etcKubernetes + "kubelet.kubeconfig", worker: true, anonymous: true},
	{path: etcKubernetes + "kube-proxy.kubeconfig", worker: true, anonymous: true},

	kubeconfig("approver", pki.ApproverCert, pki.ApproverKey, false, "approves the certificates that kubelets serve with, nothing else"),
	kubeconfig("admin", pki.AdminCert, pki.AdminKey, false, "cluster administrator: applies the bootstrap objects, and for kubectl on the master"),
	kubeconfig("controller-manager", pki.ControllerManagerCert, pki.ControllerManagerKey, false, "kube-controller-manager's identity"),
	kubeconfig("scheduler", pki.SchedulerCert, pki.SchedulerKey, false, "kube-scheduler's identity"),
	public(pki.APIServerCert), key(pki.APIServerKey, "the API server's serving key"),
	public(pki.APIServerKubeletCert), key(pki.APIServerKubeletKey, "the API server's identity at kubelets"),
	public(pki.APIServerEtcdCert), key(pki.APIServerEtcdKey, "the API server's identity at etcd"),
	key(pki.CAKey, "the cluster's authority: signs the certificates that nodes ask for"),
	public(pki.EtcdCACert),
	public(pki.EtcdPeerCert), key(pki.EtcdPeerKey, "etcd's identity among its peers"),
	public(pki.EtcdServerCert), key(pki.EtcdServerKey, "etcd's serving key"),
	public(pki.FrontProxyCACert),
	public(pki.FrontProxyCert), key(pki.FrontProxyKey, "the API server's identity at aggregated API servers"),
	key(pki.ServiceAccountKey, "signs service account tokens"),
	public(pki.ServiceAccountPub),
}

func kubeconfig(name string, cert, key pki.Name, worker bool, use string) credential {
	return credential{path: etcKubernetes + name + ".kubeconfig", cert: cert, key: key, worker: worker, use: use}
}

func identified(c credential) credential {
	c.identified = true
	return c
}

func public(n pki.Name) credential { return credential{path: pkiDir + string(n), copies: n} }

func key(n pki.Name, use string) credential {
	return credential{path: pkiDir + string(n), copies: n, use: use}
}

func (c credential) mode() mode {
	if c.use != "" {
		return 0o600
	}
	return 0o644
}

// forRole returns what a role's nodes have, sorted by path.
func forRole(r Role, s Security) []credential {
	var out []credential
	for _, c := range credentials {
		if c.identified && s == Firewall || c.anonymous && s != Firewall {
			continue
		}
		if r == Master || r == Worker && c.worker {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b credential) int { return cmp.Compare(a.path, b.path) })
	return out
}

// Files returns the files of the PKI whose contents are on a role's nodes,
// sorted. Nothing else of the PKI can get there.
func Files(r Role, s Security) []pki.Name {
	var names []pki.Name
	for _, c := range forRole(r, s) {
		switch {
		case c.copies != "":
			names = append(names, c.copies)
		case c.cert != "":
			names = append(names, c.cert, c.key)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Secret is a file on a node that must stay there.
type Secret struct {
	Path string
	Use  string      // what it is for
	Mode fs.FileMode // permission bits
}

// Contract returns the secrets that an image for n holds, sorted by path.
func Contract(n Node) []Secret {
	out := registrySecrets(n)
	for _, c := range forRole(n.Role, n.Security) {
		if c.use != "" {
			out = append(out, Secret{c.path, c.use, fs.FileMode(c.mode())})
		}
	}
	slices.SortFunc(out, func(a, b Secret) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// secrets puts the role's part of the PKI on the node.
func secrets(n Node) (part, error) {
	var p part
	for _, c := range forRole(n.Role, n.Security) {
		b, err := c.content(n)
		if err != nil {
			return part{}, fmt.Errorf("making %s: %w", c.path, err)
		}
		p.files = append(p.files, file{c.path, c.mode(), b})
	}
	return p, nil
}

func (c credential) content(n Node) ([]byte, error) {
	if c.copies != "" {
		return n.PKI.Bytes(c.copies)
	}
	server := n.localServer()
	if n.Role != Master {
		server = "https://" + n.Endpoint
	}
	if c.anonymous {
		return n.PKI.AnonymousKubeconfig(n.Cluster, server)
	}
	user := c.cert[:len(c.cert)-len(".crt")]
	return n.PKI.Kubeconfig(n.Cluster, server, string(user), c.cert, c.key)
}
