package ignition

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/ignition/pki"
)

// Role is what a node does in the cluster.
type Role string

// A Master runs etcd and the control plane as static pods, and pods beside
// them unless it is made unschedulable. A Worker runs pods only.
const (
	Master Role = "master"
	Worker Role = "node"
)

// Security is how clients of the control plane prove who they are.
type Security string

// HTTPS means TLS client certificates and RBAC. Firewall means that whoever is
// let through to the API server and the kubelets may do everything; TLS still
// says that a server is the right one.
const (
	HTTPS    Security = "https"
	Firewall Security = "firewall"
)

// Mode is how pods on different nodes reach each other.
type Mode string

// Routable pods have addresses that the network between the nodes leaves as
// they are: there is a route to each node's pod CIDR. Flannel carries packets
// between the nodes itself.
const (
	Routable Mode = "routable"
	Flannel  Mode = "flannel"
)

// Backend is how flannel carries packets.
type Backend string

// VXLAN wraps packets in UDP. HostGW sets routes, which takes nodes that share
// one link.
const (
	VXLAN  Backend = "vxlan"
	HostGW Backend = "host-gw"
)

// Node is everything that a node's configuration is rendered from. The zero
// value of a field means the value that [Defaults] gives it. The image
// version is not in it: a new image with the same configuration keeps the same
// configuration.
type Node struct {
	Role         Role     // required
	Cluster      string   // name of the cluster; kscratch
	Name         string   // name of the node; empty: found out on the first boot
	NameFromDHCP bool     // the node is named by DHCP, if that has a name for it
	Security     Security // https
	Endpoint     string   // host:port of the API server for nodes other than masters; required for those
	Network      Network
	Docker       Docker
	Kubelet      Kubelet
	Proxy        Proxy
	Etcd         Etcd
	ControlPlane ControlPlane
	Patches      []Patch // of the static pods, in this order
	Images       Images
	PKI          pki.Set // at least Files(Role); required
}

// Network is the cluster's address plan and the pod bridge.
type Network struct {
	ClusterCIDR netip.Prefix // every node's pod CIDR is a part of it; 10.244.0.0/16
	ServiceCIDR netip.Prefix // of service addresses; 10.96.0.0/12
	DNS         netip.Addr   // of the DNS service; the tenth of ServiceCIDR
	Domain      string       // DNS suffix of services; cluster.local
	Bridge      string       // name of the pod bridge; cbr0
	MTU         int          // of the bridge and of pods, in bytes; what Mode leaves, see [Network.PodMTU]

	Mode       Mode           // routable
	Auto       bool           // the cluster gives pod CIDRs away, and kubenet makes the bridge
	Backend    Backend        // of flannel; vxlan
	UplinkMTU  int            // of the network between the nodes, in bytes; 1500
	Routes     []Route        // static, on every node
	NoPeers    bool           // no routes to the other nodes' pod CIDRs are kept
	Masquerade bool           // pods appear under their node's address outside of Internal
	Internal   []netip.Prefix // networks that see the pods' own addresses; ClusterCIDR is always one
	Nodes      []netip.Prefix // networks that the nodes are in; required for firewall
}

// Route is a static route.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Docker is the options of the docker daemon.
type Docker struct {
	InsecureRegistries []string       // host:port or CIDR, reached without TLS verification
	IPMasq             bool           // docker's ip-masq; has no effect while its iptables is off
	NoFile             int            // limit of open files of docker, containerd and containers; 1000000
	DataRoot           string         // /var/lib/docker
	LogDriver          string         // json-file, or journald (then `kubectl logs` shows nothing)
	LogMaxSize         string         // of a json-file log before it is rotated; 10m, which the kubelet's own rotation must not reach
	LogMaxFiles        int            // json-file logs kept per container; 3
	UserlandProxy      *bool          // forwards host ports, which needs it while iptables is off; true
	LiveRestore        bool           // containers outlive the daemon
	Registries         []Registry     // private registries
	Options            map[string]any // any other key of daemon.json
}

// Registry is a container registry that needs a certificate authority of its
// own, or credentials.
type Registry struct {
	Host               string // host or host:port
	CA                 []byte // PEM; empty: the system's authorities
	Username, Password string // empty: anonymous
}

// Kubelet is the options of the kubelet.
type Kubelet struct {
	RootDir      string            // /var/lib/kubelet
	RegisterNode *bool             // true
	NodeIP       string            // address of the node; empty: that of the default route
	MaxPods      int               // pods that the node takes; 0: the kubelet's own 110
	Config       map[string]any    // further keys of KubeletConfiguration, over ours; see [KubeletConfigProblems]
	Args         map[string]string // further flags, without dashes; see [FlagProblems]
}

// Proxy is the options of kube-proxy.
type Proxy struct {
	Mode   string            // iptables or nftables; iptables
	Config map[string]any    // further keys of KubeProxyConfiguration, over ours; see [ProxyConfigProblems]
	Args   map[string]string // further flags, without dashes; see [FlagProblems]
}

// Etcd is the options of etcd, which runs on the masters.
type Etcd struct {
	DataDir string                 // /var/lib/etcd
	Members []firstboot.EtcdMember // one, three or five; empty: a cluster of one that only its master reaches
	Args    map[string]string      // further flags, without dashes; replace ours of the same name, see [FlagProblems]
}

// ControlPlane is the options of the control plane on the master.
type ControlPlane struct {
	Port                  int      // of the API server; 6443
	Names                 []string // DNS names and addresses in the API server's certificate: no other server may have them
	AdvertiseAddress      string   // at which pods reach the API server; empty: the address of the default route
	Unschedulable         bool     // keeps ordinary pods off the master
	APIServerArgs         map[string]string
	ControllerManagerArgs map[string]string
	SchedulerArgs         map[string]string
}

// Images is the container images that the node's own pods run, as name:tag.
// All are in the image, none is pulled.
type Images struct {
	Pause             string // required
	Etcd              string // required on a master, as are the next three
	APIServer         string
	ControllerManager string
	Scheduler         string
	CoreDNS           string // on a master; empty: the cluster has no DNS server
}

// PodMTU returns the MTU of cbr0 and of pods, in bytes: the one given, or what
// the pod network leaves. Flannel's VXLAN takes 50 bytes: an Ethernet, an IPv4,
// a UDP and a VXLAN header (RFC 7348). Routable pods get 1460, which every
// cloud's network carries.
func (w Network) PodMTU() int {
	uplink := cmp.Or(w.UplinkMTU, 1500)
	switch {
	case w.MTU != 0:
		return w.MTU
	case w.Mode == Flannel && w.Backend == HostGW:
		return uplink
	case w.Mode == Flannel:
		return uplink - 50
	}
	return min(1460, uplink)
}

// Defaults returns n with every zero field that has a default set to it.
func Defaults(n Node) Node {
	n.Cluster = cmp.Or(n.Cluster, "kscratch")
	n.Security = cmp.Or(n.Security, HTTPS)
	n.Network = n.Network.defaults()
	d := &n.Docker
	d.NoFile = cmp.Or(d.NoFile, 1000000)
	d.DataRoot = cmp.Or(d.DataRoot, "/var/lib/docker")
	d.LogDriver = cmp.Or(d.LogDriver, "json-file")
	d.LogMaxSize = cmp.Or(d.LogMaxSize, "10m")
	d.LogMaxFiles = cmp.Or(d.LogMaxFiles, 3)
	d.UserlandProxy = cmp.Or(d.UserlandProxy, new(true))
	n.Kubelet.RootDir = cmp.Or(n.Kubelet.RootDir, "/var/lib/kubelet")
	n.Kubelet.RegisterNode = cmp.Or(n.Kubelet.RegisterNode, new(true))
	n.Proxy.Mode = cmp.Or(n.Proxy.Mode, "iptables")
	n.Etcd.DataDir = cmp.Or(n.Etcd.DataDir, "/var/lib/etcd")
	n.ControlPlane.Port = cmp.Or(n.ControlPlane.Port, 6443)
	return n
}

func (w Network) defaults() Network {
	if !w.ClusterCIDR.IsValid() {
		w.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	}
	if !w.ServiceCIDR.IsValid() {
		w.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/12")
	}
	if !w.DNS.IsValid() {
		w.DNS = nth(w.ServiceCIDR, 10)
	}
	w.Domain = cmp.Or(w.Domain, "cluster.local")
	w.Bridge = cmp.Or(w.Bridge, "cbr0")
	w.Mode = cmp.Or(w.Mode, Routable)
	w.Backend = cmp.Or(w.Backend, VXLAN)
	w.UplinkMTU = cmp.Or(w.UplinkMTU, 1500)
	w.MTU = w.PodMTU()
	return w
}

// ServiceIP returns the address of the kubernetes service: the first of the
// service CIDR. The API server's certificate must have it.
func (w Network) ServiceIP() netip.Addr { return nth(w.defaults().ServiceCIDR, 1) }

func nth(p netip.Prefix, i int) netip.Addr {
	a := p.Masked().Addr()
	for range i {
		a = a.Next()
	}
	return a
}

// Paths on the node that several subjects name.
const (
	etcKubernetes = "/etc/kubernetes/"
	pkiDir        = etcKubernetes + "pki/"
	manifestDir   = etcKubernetes + "manifests"
	bootstrapDir  = etcKubernetes + "bootstrap"
	criSocket     = "unix:///run/cri-dockerd.sock"
	nodeEnv       = "/run/kscratch/node.env"
)

// host is the address at which a program on a master reaches what runs there.
const host = "127.0.0.1"

// anonymous reports whether clients need not say who they are.
func (n Node) anonymous() bool { return n.Security == Firewall }

// onMaster returns p on a master and nothing elsewhere.
func (n Node) onMaster(p part) part {
	if n.Role != Master {
		return part{}
	}
	return p
}

// taints returns what keeps ordinary pods off the node.
func (n Node) taints() []corev1.Taint {
	if n.Role != Master || !n.ControlPlane.Unschedulable {
		return nil
	}
	return []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
}

// flags returns --name=value for every entry, sorted by name; those of extra
// take the place of ours.
func flags(ours, extra map[string]string) []string {
	all := map[string]string{}
	maps.Copy(all, ours)
	maps.Copy(all, extra)
	out := make([]string, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, "--"+k+"="+all[k])
	}
	return out
}
