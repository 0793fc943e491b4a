// Package builder turns one cluster file into bootable node images. It is the
// only package that sees the whole:
//
//	cluster.yaml ─ Load ─► Spec ─ Resolve ─► Lock ─ Build ─► Image ─ Pack ─► disk files
//
// [Resolve] is the only step that asks what is newest; everything after the
// lock is fetched by digest, so the same lock gives the same bytes. Formats
// are codecs in packages below this one; where files come from is the business
// of layers and images; what a node is told, of ignition.
package builder

import (
	"net"
	"net/netip"
	"slices"

	"github.com/kscratch/kscratch/layers/kubernetes"
)

// APIVersion is the version of the cluster file's format.
const APIVersion = "kscratch.dev/v1alpha1"

// Role is what a node does in the cluster.
type Role string

// Master runs etcd and the control plane as static pods, and pods beside them.
// Worker runs pods only.
const (
	Master Role = "master"
	Worker Role = "node"
)

// Roles lists every role that an image can be built for.
var Roles = []Role{Master, Worker}

// Spec is the cluster file, with every default filled in. Paths in it are
// relative to the directory of the file.
type Spec struct {
	APIVersion   string              `yaml:"apiVersion" json:"apiVersion" jsonschema:"enum=kscratch.dev/v1alpha1,description=Version of this file's format."`
	Kind         string              `yaml:"kind" json:"kind" jsonschema:"enum=Cluster,description=Always Cluster."`
	Name         string              `yaml:"name" json:"name" jsonschema:"description=Name of the cluster: a DNS label. It appears in kubeconfigs and certificates."`
	Security     string              `yaml:"security" json:"security" jsonschema:"enum=https,enum=firewall,description=What keeps strangers out. https: clients prove who they are with TLS certificates\\, and RBAC says what they may do. firewall: only network.nodeCIDRs and pods reach the API server\\, kubelets and etcd\\, and may do everything."`
	Kubernetes   Kubernetes          `yaml:"kubernetes" json:"kubernetes" jsonschema:"description=Kubernetes itself and where its server tarball comes from."`
	Components   Components          `yaml:"components" json:"components" jsonschema:"description=Programs that Kubernetes needs beside its own."`
	ControlPlane ControlPlane        `yaml:"controlPlane" json:"controlPlane" jsonschema:"description=The API server and its friends."`
	Network      Network             `yaml:"network" json:"network" jsonschema:"description=Address ranges and the pod bridge."`
	Docker       Docker              `yaml:"docker" json:"docker" jsonschema:"description=The container runtime."`
	Kubelet      Kubelet             `yaml:"kubelet" json:"kubelet" jsonschema:"description=The kubelet on every node."`
	KubeProxy    KubeProxy           `yaml:"kubeProxy" json:"kubeProxy" jsonschema:"description=kube-proxy on every node."`
	Etcd         Etcd                `yaml:"etcd" json:"etcd" jsonschema:"description=etcd on the masters."`
	Manifests    Manifests           `yaml:"manifests" json:"manifests" jsonschema:"description=The manifests of the static pods on the master."`
	Base         Base                `yaml:"base" json:"base" jsonschema:"description=The Debian packages that the operating system is made of."`
	Images       []ExtraImage        `yaml:"images" json:"images" jsonschema:"description=Further container images to bake in; docker has them from the first start."`
	PKI          string              `yaml:"pki" json:"pki" jsonschema:"description=Directory of the cluster's certificates and keys; kscratch init makes it."`
	Butane       []string            `yaml:"butane" json:"butane" jsonschema:"description=Butane files (variant fcos 1.4.0) merged into the configuration of every node; later ones win."`
	RoleButane   map[string][]string `yaml:"roleButane" json:"roleButane" jsonschema:"description=Further Butane files by role\\, merged after those for every node."`
	Disk         Disk                `yaml:"disk" json:"disk" jsonschema:"description=The disk image."`

	Where Positions `yaml:"-" json:"-"` // of the fields, in the file that this was read from
}

// Kubernetes says which version to run and where to look for it.
type Kubernetes struct {
	Version string   `yaml:"version" json:"version" jsonschema:"description=Release such as v1.36.3."`
	Sources []string `yaml:"sources" json:"sources" jsonschema:"enum=path,enum=cache,enum=release,enum=modules,description=Where to look for the server tarball\\, in this order."`
	Tarball string   `yaml:"tarball" json:"tarball" jsonschema:"description=kubernetes-server-linux-amd64.tar.gz on this machine\\, for the source path."`
	Release string   `yaml:"release" json:"release" jsonschema:"description=Base URL of Kubernetes releases."`
}

// Components says which versions of the programs around Kubernetes to run.
type Components struct {
	CRIDockerd Program   `yaml:"criDockerd" json:"criDockerd" jsonschema:"description=cri-dockerd\\, through which the kubelet drives docker."`
	Etcd       Component `yaml:"etcd" json:"etcd" jsonschema:"description=etcd."`
	CoreDNS    Component `yaml:"coreDNS" json:"coreDNS" jsonschema:"description=CoreDNS\\, the cluster's DNS server."`
	Flannel    Program   `yaml:"flannel" json:"flannel" jsonschema:"description=flanneld\\, in the image only where network.mode is flannel."`
	Pause      Component `yaml:"pause" json:"pause" jsonschema:"description=The container that holds a pod's namespaces. modules means kscratch's own."`
}

// Program is one that runs outside of containers: a version, and where it
// comes from.
type Program struct {
	Version string   `yaml:"version" json:"version" jsonschema:"description=Version such as v0.3.17."`
	Sources []string `yaml:"sources" json:"sources" jsonschema:"enum=release,enum=modules,enum=path,description=Where to look for it\\, in this order."`
	Release string   `yaml:"release" json:"release" jsonschema:"description=Base URL of its releases; below it is what upstream publishes for a version: VERSION/cri-dockerd-VERSION.amd64.tgz\\, VERSION/flanneld-amd64."`
	SHA256  string   `yaml:"sha256,omitempty" json:"sha256,omitempty" jsonschema:"description=SHA-256 of that file\\, 64 hex digits. Upstream publishes none. Empty: the TLS certificate is trusted the first time and the lock pins what came."`
	Path    string   `yaml:"path,omitempty" json:"path,omitempty" jsonschema:"description=Program on this machine\\, for the source path."`
}

// Component is one program that runs in a container: a version, and where it
// comes from.
type Component struct {
	Version string   `yaml:"version" json:"version" jsonschema:"description=Version such as v3.6.8."`
	Sources []string `yaml:"sources" json:"sources" jsonschema:"enum=registry,enum=modules,enum=path,enum=distro,description=Where to look for it\\, in this order. distro means Debian's package\\, which etcd has."`
	Image   string   `yaml:"image,omitempty" json:"image,omitempty" jsonschema:"description=Name of its container image\\, without a tag."`
	Path    string   `yaml:"path,omitempty" json:"path,omitempty" jsonschema:"description=Image archive on this machine\\, for the source path."`
}

// ControlPlane says where the API server is and how it is known.
type ControlPlane struct {
	Endpoint    string   `yaml:"endpoint" json:"endpoint" jsonschema:"description=host:port at which nodes and users reach the API server. A master always uses its own. Where it is a loopback address\\, nodes look for api.NAME.internal\\, NAME being that of the cluster\\, at the same port."`
	ExtraSANs   []string `yaml:"extraSANs" json:"extraSANs" jsonschema:"description=Further names and addresses in the API server's certificate."`
	Schedulable bool     `yaml:"schedulable" json:"schedulable" jsonschema:"description=Whether ordinary pods may run on masters."`

	APIServer         StaticPod `yaml:"apiServer" json:"apiServer" jsonschema:"description=kube-apiserver on the master."`
	ControllerManager StaticPod `yaml:"controllerManager" json:"controllerManager" jsonschema:"description=kube-controller-manager on the master."`
	Scheduler         StaticPod `yaml:"scheduler" json:"scheduler" jsonschema:"description=kube-scheduler on the master."`
}

// Flags are flags of a program by name, without dashes. A value is taken as it
// is written: 010, 1.0 and true stay that.
type Flags map[string]string

// StaticPod holds the options of a program that runs as a static pod.
type StaticPod struct {
	ExtraFlags Flags `yaml:"extraFlags" json:"extraFlags" jsonschema:"description=Further flags by name\\, without dashes; they replace kscratch's own. The program that is baked is asked about each\\, for which its linux/amd64 binary runs with --help on the machine that builds."`
}

// Etcd says which members the cluster's store has.
type Etcd struct {
	Members    []EtcdMember `yaml:"members" json:"members" jsonschema:"description=The masters\\, one\\, three or five\\, all of one image. Each finds itself by its address. Empty: a single master whose etcd nobody else reaches."`
	ExtraFlags Flags        `yaml:"extraFlags" json:"extraFlags" jsonschema:"description=Further flags\\, as in controlPlane.apiServer.extraFlags."`
}

// EtcdMember is one master.
type EtcdMember struct {
	Name    string `yaml:"name" json:"name" jsonschema:"description=Name of the member in etcd: a DNS label."`
	Address string `yaml:"address" json:"address" jsonschema:"description=IPv4 address at which the other masters reach it. The machine must always have it."`
}

// Manifests changes the static pods.
type Manifests struct {
	Patches []Patch `yaml:"patches" json:"patches" jsonschema:"description=Changes to the manifests\\, made in this order."`
}

// Patch is a change to the manifest of a static pod.
type Patch struct {
	Target string `yaml:"target" json:"target" jsonschema:"enum=etcd,enum=kube-apiserver,enum=kube-controller-manager,enum=kube-scheduler,description=The static pod."`
	Type   string `yaml:"type" json:"type" jsonschema:"enum=strategic,enum=json,description=strategic: a part of a pod\\, merged into the manifest. json: a list of operations\\, RFC 6902."`
	Patch  any    `yaml:"patch,omitempty" json:"patch,omitempty" jsonschema:"description=The patch itself\\, as YAML."`
	File   string `yaml:"file,omitempty" json:"file,omitempty" jsonschema:"description=YAML file with the patch\\, in place of patch."`
}

// Network is the cluster's address plan and the pod bridge.
type Network struct {
	ClusterCIDR   string `yaml:"clusterCIDR" json:"clusterCIDR" jsonschema:"description=Range that every node's pod CIDR is a part of."`
	ServiceCIDR   string `yaml:"serviceCIDR" json:"serviceCIDR" jsonschema:"description=Range of service addresses."`
	ClusterDNS    string `yaml:"clusterDNS" json:"clusterDNS" jsonschema:"description=Address of the DNS service\\, inside serviceCIDR."`
	ClusterDomain string `yaml:"clusterDomain" json:"clusterDomain" jsonschema:"description=DNS suffix of services."`
	Bridge        string `yaml:"bridge" json:"bridge" jsonschema:"description=Name of the pod bridge: at most 15 characters. With cbr0: auto it is cbr0\\, as kubenet calls it."`
	MTU           int    `yaml:"mtu" json:"mtu" jsonschema:"minimum=0,maximum=9216,description=MTU of the bridge and of containers\\, in bytes. 0 means what the mode leaves: 1460 if routable\\, uplinkMTU with host-gw\\, 50 less with vxlan."`

	Mode               string   `yaml:"mode" json:"mode" jsonschema:"enum=routable,enum=flannel,description=How pods on different nodes reach each other. routable: by routes to every node's pod CIDR. flannel: through flanneld."`
	CBR0               string   `yaml:"cbr0" json:"cbr0" jsonschema:"enum=manual,enum=auto,description=Who gives the bridge its range. manual: each node is given its pod CIDR at first boot. auto: the cluster gives it one and kubenet makes the bridge\\, so a node needs no input at all."`
	UplinkMTU          int      `yaml:"uplinkMTU" json:"uplinkMTU" jsonschema:"minimum=576,maximum=9216,description=MTU of the network between the nodes\\, in bytes."`
	Flannel            Flannel  `yaml:"flannel" json:"flannel" jsonschema:"description=Options of flannel."`
	RouteController    bool     `yaml:"routeController" json:"routeController" jsonschema:"description=Whether each node keeps a route to every other node's pod CIDR\\, where the mode is routable. It takes nodes that share a link."`
	Routes             []Route  `yaml:"routes" json:"routes" jsonschema:"description=Static routes on every node."`
	Masquerade         bool     `yaml:"masquerade" json:"masquerade" jsonschema:"description=Whether pods appear under their node's address outside of nonMasqueradeCIDRs."`
	NonMasqueradeCIDRs []string `yaml:"nonMasqueradeCIDRs" json:"nonMasqueradeCIDRs" jsonschema:"description=Networks that see the pods' own addresses. clusterCIDR and nodeCIDRs are always among them."`
	NodeCIDRs          []string `yaml:"nodeCIDRs" json:"nodeCIDRs" jsonschema:"description=Networks that the nodes and the cluster's users are in. With security: firewall\\, they and the pods reach the cluster's ports\\, and nobody else does."`
}

// Flannel is the options of flannel.
type Flannel struct {
	Backend string `yaml:"backend" json:"backend" jsonschema:"enum=vxlan,enum=host-gw,description=How packets are carried: wrapped in UDP\\, or by routes between nodes that share a link."`
}

// Route is a static route.
type Route struct {
	To  string `yaml:"to" json:"to" jsonschema:"description=Destination\\, such as another node's pod CIDR."`
	Via string `yaml:"via" json:"via" jsonschema:"description=Address of the next hop."`
}

// Docker holds the options of the docker daemon.
type Docker struct {
	InsecureRegistries []string       `yaml:"insecureRegistries" json:"insecureRegistries" jsonschema:"description=Registries (host:port or CIDR) reached without TLS verification."`
	Registries         []Registry     `yaml:"registries" json:"registries" jsonschema:"description=Private registries: authorities and passwords that they need."`
	NoFile             int            `yaml:"nofile" json:"nofile" jsonschema:"minimum=1024,description=Limit of open files for docker and containerd."`
	IPMasq             bool           `yaml:"ipMasq" json:"ipMasq" jsonschema:"description=docker's --ip-masq."`
	DataRoot           string         `yaml:"dataRoot" json:"dataRoot" jsonschema:"description=docker's --data-root\\, below /var: images\\, containers and their logs."`
	LogDriver          string         `yaml:"logDriver" json:"logDriver" jsonschema:"enum=json-file,enum=journald,description=Where containers' output goes. With journald kubectl logs shows nothing."`
	LogMaxSize         string         `yaml:"logMaxSize" json:"logMaxSize" jsonschema:"description=Size at which a json-file log is rotated\\, with k\\, m or g."`
	LogMaxFiles        int            `yaml:"logMaxFiles" json:"logMaxFiles" jsonschema:"minimum=1,description=json-file logs kept of each container."`
	UserlandProxy      bool           `yaml:"userlandProxy" json:"userlandProxy" jsonschema:"description=docker's --userland-proxy\\, which host ports of pods need while docker makes no rules."`
	LiveRestore        bool           `yaml:"liveRestore" json:"liveRestore" jsonschema:"description=Whether containers outlive a restart of docker."`
	Options            map[string]any `yaml:"options" json:"options" jsonschema:"description=Any other key of daemon.json."`
}

// Registry is a private container registry. What it needs is baked in.
type Registry struct {
	Host         string `yaml:"host" json:"host" jsonschema:"description=host or host:port."`
	CA           string `yaml:"ca,omitempty" json:"ca,omitempty" jsonschema:"description=File with the PEM certificates of its authority. Empty: the system's authorities."`
	Username     string `yaml:"username,omitempty" json:"username,omitempty" jsonschema:"description=Name to log in with. Empty: anonymous."`
	PasswordFile string `yaml:"passwordFile,omitempty" json:"passwordFile,omitempty" jsonschema:"description=File whose first line is the password. Every image then holds it."`
}

// Kubelet holds the options of the kubelet.
type Kubelet struct {
	NodeNames    string `yaml:"nodeNames" json:"nodeNames" jsonschema:"enum=derived,enum=dhcp,description=What nodes are called. derived: role and pod CIDR\\, or with cbr0: auto role and hardware address. dhcp: the host name in the DHCP lease\\, for which the node waits."`
	RootDir      string `yaml:"rootDir" json:"rootDir" jsonschema:"description=The kubelet's --root-dir\\, below /var."`
	RegisterNode bool   `yaml:"registerNode" json:"registerNode" jsonschema:"description=Whether the kubelet registers its node."`
	MaxPods      int    `yaml:"maxPods" json:"maxPods" jsonschema:"minimum=0,description=Pods that a node takes. 0: the kubelet's own 110."`

	ExtraConfig map[string]any `yaml:"extraConfig" json:"extraConfig" jsonschema:"description=Further keys of KubeletConfiguration v1beta1\\, merged over kscratch's: maps are merged\\, null removes\\, the rest replaces."`
	ExtraFlags  Flags          `yaml:"extraFlags" json:"extraFlags" jsonschema:"description=Further flags\\, as in controlPlane.apiServer.extraFlags. They win over the configuration."`
}

// KubeProxy holds the options of kube-proxy.
type KubeProxy struct {
	Mode string `yaml:"mode" json:"mode" jsonschema:"enum=iptables,enum=nftables,description=How services are implemented."`

	ExtraConfig map[string]any `yaml:"extraConfig" json:"extraConfig" jsonschema:"description=Further keys of KubeProxyConfiguration v1alpha1\\, merged as kubelet.extraConfig is."`
	ExtraFlags  Flags          `yaml:"extraFlags" json:"extraFlags" jsonschema:"description=Further flags\\, as in controlPlane.apiServer.extraFlags. kube-proxy heeds only those about its log."`
}

// Base is the Debian part of the image.
type Base struct {
	Suite          string              `yaml:"suite" json:"suite" jsonschema:"enum=trixie,description=Debian release."`
	Mirror         string              `yaml:"mirror" json:"mirror" jsonschema:"description=Base URL of the Debian archive. Empty: the mirror of this machine's apt."`
	SecurityMirror string              `yaml:"securityMirror" json:"securityMirror" jsonschema:"description=Base URL of the Debian security archive. Empty: as mirror."`
	Snapshot       string              `yaml:"snapshot" json:"snapshot" jsonschema:"description=Base URL of an archive of Debian snapshots\\, in which packages are looked for that have left the mirror: below it is archive/debian/TIMESTAMP/ and archive/debian-security/TIMESTAMP/. Empty: none."`
	Keyring        string              `yaml:"keyring" json:"keyring" jsonschema:"description=OpenPGP keys that sign the archive. Empty: Debian's own."`
	Kernel         string              `yaml:"kernel" json:"kernel" jsonschema:"enum=cloud,enum=generic,description=cloud drives virtual hardware only; generic drives bare metal too."`
	Packages       []string            `yaml:"packages" json:"packages" jsonschema:"description=Further packages for every role; name=version pins one."`
	RolePackages   map[string][]string `yaml:"rolePackages" json:"rolePackages" jsonschema:"description=Further packages by role."`
}

// ExtraImage is a container image to bake in.
type ExtraImage struct {
	Name   string `yaml:"name" json:"name" jsonschema:"description=name:tag under which docker knows it."`
	From   string `yaml:"from" json:"from" jsonschema:"description=docker://registry/name:tag\\, docker-archive:FILE\\, oci:DIR-or-FILE or rootfs:FILE. Of several images in a file\\, the one that is called name is meant."`
	Digest string `yaml:"digest,omitempty" json:"digest,omitempty" jsonschema:"description=Digest that it must have: of its manifest or index\\, or of its file."`
}

// Disk sets sizes on the disk. Sizes are in MiB.
type Disk struct {
	ESP        int      `yaml:"esp" json:"esp" jsonschema:"minimum=512,description=Size of the EFI system partition in MiB; three images fit into 512."`
	Root       int      `yaml:"root" json:"root" jsonschema:"minimum=512,description=Size of each root slot in MiB. An upgrade must fit."`
	KernelArgs []string `yaml:"kernelArgs" json:"kernelArgs" jsonschema:"description=Further kernel arguments."`
}

// Default returns the built-in spec: what an empty cluster file means.
func Default() *Spec {
	upstream := []string{"registry", "modules"}
	return &Spec{
		APIVersion: APIVersion, Kind: "Cluster", Name: "kscratch", Security: "https", PKI: "pki",
		Kubernetes: Kubernetes{
			Version: "v1.36.3", Sources: []string{"cache", "release", "modules"}, Release: "https://dl.k8s.io",
		},
		Components: Components{
			CRIDockerd: Program{
				Version: "v0.3.17", Sources: []string{"release", "modules"}, Release: kubernetes.CRIDockerdBase,
			},
			Flannel: Program{Version: "v0.28.0", Sources: []string{"release", "modules"}, Release: kubernetes.FlannelBase},
			Etcd:    Component{Version: "v3.6.8", Sources: upstream, Image: "registry.k8s.io/etcd"},
			CoreDNS: Component{Version: "v1.14.7", Sources: upstream, Image: "registry.k8s.io/coredns/coredns"},
			Pause:   Component{Version: "3.10.1", Sources: upstream, Image: "registry.k8s.io/pause"},
		},
		ControlPlane: ControlPlane{Endpoint: "127.0.0.1:6443", Schedulable: true},
		Network: Network{
			ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", ClusterDNS: "10.96.0.10",
			ClusterDomain: "cluster.local", Bridge: "cbr0", Mode: "routable", CBR0: "manual", UplinkMTU: 1500,
			Flannel: Flannel{Backend: "vxlan"}, RouteController: true,
			NonMasqueradeCIDRs: []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"},
		},
		Docker: Docker{
			NoFile: 1000000, DataRoot: "/var/lib/docker", LogDriver: "json-file", LogMaxSize: "10m", LogMaxFiles: 3, UserlandProxy: true,
		},
		Kubelet:   Kubelet{NodeNames: "derived", RootDir: "/var/lib/kubelet", RegisterNode: true},
		KubeProxy: KubeProxy{Mode: "iptables"},
		Base:      Base{Suite: "trixie", Kernel: "cloud"},
		Disk:      Disk{ESP: 512, Root: 2048},
	}
}

// packages is what every node needs from Debian, and why. Debian calls some of
// it essential, so that nothing depends on it by name.
var packages = []string{
	"base-files", "base-passwd", "dash", "debianutils", "findutils", "grep", "gzip", "hostname",
	"libc-bin", "ncurses-base", "sed", "tar", // essential, as far as a node has a use for it
	"systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", // init, devices, bus
	"systemd-resolved", "systemd-timesyncd", // names, time
	"systemd-boot-efi", "systemd-boot-tools", "systemd-repart", "systemd-cryptsetup", // boot loader, UKI stub, first boot, verity
	"e2fsprogs", "dosfstools", "cryptsetup-bin", // the file systems of the disk and their checkers
	"ignition",                                      // first-boot configuration
	"docker.io", "docker-cli", "containerd", "runc", // container runtime
	"iptables", "nftables", "iproute2", "conntrack", "ethtool", "socat", "kmod", "liblzma5", // what kubelet and kube-proxy call
	"bash", "coreutils", "util-linux", "mount", "procps", "login", "netbase", "ca-certificates", // an operator's minimum
}

// kernels maps base.kernel to Debian's package.
var kernels = map[string]string{
	"cloud":   "linux-image-cloud-amd64",
	"generic": "linux-image-amd64",
}

// NodeEndpoint returns host:port of the API server for a node that is not a
// master. A loopback address would be the node itself.
func (s *Spec) NodeEndpoint() string {
	host, port, _ := net.SplitHostPort(s.ControlPlane.Endpoint)
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() || host == "localhost" {
		return net.JoinHostPort(s.InternalName(), port)
	}
	return s.ControlPlane.Endpoint
}

// InternalName is what nodes call the API server where the cluster file gives
// no address that they could reach. The top-level domain is reserved for such
// use (ICANN, 2024).
func (s *Spec) InternalName() string { return "api." + s.Name + ".internal" }

// PackageNames returns the Debian packages asked for in a role's image, before
// their dependencies; sorted, each once.
func (s *Spec) PackageNames(role Role) []string {
	names := slices.Concat(packages, []string{kernels[s.Base.Kernel]}, s.Base.Packages, s.Base.RolePackages[string(role)])
	if s.Network.CBR0 == "auto" {
		names = append(names, "containernetworking-plugins") // what kubenet calls
	}
	slices.Sort(names)
	return slices.Compact(names)
}
