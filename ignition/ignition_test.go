package ignition

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	proxyv1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/ignition/pki"
)

var update = flag.Bool("update", false, "write the golden files")

// fakePKI has a readable word in place of every certificate and key, so that
// golden files say what went where.
func fakePKI() pki.Set {
	files := map[pki.Name][]byte{}
	for _, n := range pki.Names() {
		files[n] = []byte("content of " + string(n) + "\n")
	}
	return pki.Of(files)
}

func testNode(r Role) Node {
	return Node{
		Role: r, Cluster: "test", Endpoint: "api.example.org:6443", PKI: fakePKI(),
		Images: Images{
			Pause: "registry.k8s.io/pause:3.10.1", Etcd: "registry.k8s.io/etcd:v3.6.8",
			APIServer:         "registry.k8s.io/kube-apiserver:v1.36.3",
			ControllerManager: "registry.k8s.io/kube-controller-manager:v1.36.3",
			Scheduler:         "registry.k8s.io/kube-scheduler:v1.36.3",
			CoreDNS:           "registry.k8s.io/coredns/coredns:v1.14.0",
		},
	}
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s differs from line %d (go test -update writes it):\n got %q\nwant %q", path, i+1, at(g, i), at(w, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

// listing is a report as text: a line for each entry, and its first lines.
func listing(r Report) []byte {
	var b bytes.Buffer
	for _, e := range r.Entries {
		fmt.Fprintf(&b, "%s %s %s %d %.19s %s\n", e.Path, e.Mode, e.Owner, len(e.Body), e.Digest, e.Note)
		for i, l := range strings.Split(strings.TrimSuffix(string(e.Body), "\n"), "\n") {
			if i < 3 && l != "" {
				fmt.Fprintf(&b, "    %.100s\n", l)
			}
		}
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		t.Run(string(role), func(t *testing.T) {
			butane, err := Butane(testNode(role))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, string(role)+".bu", butane)
			ign, report, err := Ignition(testNode(role))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, string(role)+".list", listing(report))

			again, err := List(ign)
			if err != nil || !bytes.Equal(listing(again), listing(report)) {
				t.Errorf("List of the same config differs (%v)", err)
			}
			twin, _, err := Ignition(testNode(role))
			if err != nil || !bytes.Equal(ign, twin) {
				t.Errorf("the same node gave other bytes (%v)", err)
			}
		})
	}
}

// TestOnlyFilesAndUnits: a variant made for one distribution must not add
// what only that distribution understands, nor may we ask for more.
func TestOnlyFilesAndUnits(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		ign, _, err := Ignition(testNode(role))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]map[string]any
		if err := json.Unmarshal(ign, &got); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for section, m := range got {
			for k := range m {
				keys = append(keys, section+"."+k)
			}
		}
		slices.Sort(keys)
		if want := []string{"ignition.version", "storage.directories", "storage.files", "systemd.units"}; !slices.Equal(keys, want) {
			t.Errorf("%s: got %v, want %v", role, keys, want)
		}
		if v := got["ignition"]["version"]; v != "3.3.0" {
			t.Errorf("%s: spec version %v", role, v)
		}
	}
}

func rendered(t *testing.T, n Node) map[string]Entry {
	t.Helper()
	_, r, err := Ignition(n)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]Entry{}
	for _, e := range r.Entries {
		if _, twice := m[e.Path]; twice {
			t.Errorf("%s is there twice", e.Path)
		}
		m[e.Path] = e
	}
	return m
}

// TestStrictDecoding reads every Kubernetes file back, without mercy for
// unknown fields.
func TestStrictDecoding(t *testing.T) {
	types := map[string]func() any{
		"KubeletConfiguration":   func() any { return new(kubeletv1.KubeletConfiguration) },
		"KubeProxyConfiguration": func() any { return new(proxyv1.KubeProxyConfiguration) },
		"Pod":                    func() any { return new(corev1.Pod) },
		"ServiceAccount":         func() any { return new(corev1.ServiceAccount) },
		"ConfigMap":              func() any { return new(corev1.ConfigMap) },
		"Service":                func() any { return new(corev1.Service) },
		"Deployment":             func() any { return new(appsv1.Deployment) },
		"ClusterRole":            func() any { return new(rbacv1.ClusterRole) },
		"ClusterRoleBinding":     func() any { return new(rbacv1.ClusterRoleBinding) },
	}
	for _, role := range []Role{Master, Worker} {
		seen := map[string]int{}
		for path, e := range rendered(t, testNode(role)) {
			if !strings.HasSuffix(path, ".yaml") {
				continue
			}
			for _, doc := range bytes.Split(e.Body, []byte("---\n")) {
				var meta struct{ Kind string }
				if err := yaml.Unmarshal(doc, &meta); err != nil || types[meta.Kind] == nil {
					t.Fatalf("%s: kind %q: %v", path, meta.Kind, err)
				}
				seen[meta.Kind]++
				if err := yaml.UnmarshalStrict(doc, types[meta.Kind]()); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		}
		if role == Master && len(seen) != len(types) || role == Worker && len(seen) != 2 {
			t.Errorf("%s: saw %v", role, seen)
		}
	}
}

func TestFiles(t *testing.T) {
	worker := "bootstrap.crt bootstrap.key ca.crt kube-proxy.crt kube-proxy.key"
	master := "admin.crt admin.key apiserver-etcd-client.crt apiserver-etcd-client.key apiserver-kubelet-client.crt " +
		"apiserver-kubelet-client.key apiserver.crt apiserver.key approver.crt approver.key bootstrap.crt bootstrap.key ca.crt ca.key " +
		"controller-manager.crt controller-manager.key etcd/ca.crt etcd/peer.crt etcd/peer.key etcd/server.crt etcd/server.key " +
		"front-proxy-ca.crt front-proxy-client.crt front-proxy-client.key kube-proxy.crt kube-proxy.key sa.key sa.pub " +
		"scheduler.crt scheduler.key"
	for role, want := range map[Role]string{Worker: worker, Master: master, "": "", "other": ""} {
		if got := strings.Trim(fmt.Sprint(Files(role, HTTPS)), "[]"); got != want {
			t.Errorf("%q:\n got %s\nwant %s", role, got, want)
		}
	}
	if got := fmt.Sprint(Files(Worker, Firewall)); got != "[ca.crt]" {
		t.Errorf("a node behind a firewall has %s, want no key", got)
	}
}

// TestSecretsStayWhereTheyBelong looks for every key of the PKI in everything
// that a role's nodes get.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		ign, _, err := Ignition(testNode(role))
		if err != nil {
			t.Fatal(err)
		}
		report, err := List(ign)
		if err != nil {
			t.Fatal(err)
		}
		contract := map[string]fs.FileMode{}
		for _, s := range Contract(testNode(role)) {
			contract[s.Path] = s.Mode
			if s.Use == "" {
				t.Errorf("%s: no use given", s.Path)
			}
		}
		for _, name := range pki.Names() {
			content, _ := fakePKI().Bytes(name)
			plain, embedded := string(content), encoded(content)
			for _, e := range report.Entries {
				if !strings.Contains(string(e.Body), plain) && !strings.Contains(string(e.Body), embedded) {
					continue
				}
				if !slices.Contains(Files(role, HTTPS), name) {
					t.Errorf("%s: %s is in %s", role, name, e.Path)
				}
				if _, ok := contract[e.Path]; name.Secret() && (!ok || e.Mode != 0o600) {
					t.Errorf("%s: %s is in %s, mode %v, in the contract: %v", role, name, e.Path, e.Mode, ok)
				}
			}
		}
		for path, mode := range contract {
			if e := rendered(t, testNode(role))[path]; e.Mode != mode || len(e.Body) == 0 {
				t.Errorf("%s: the contract names %s with mode %v, and there is %v", role, path, mode, e.Mode)
			}
		}
	}
}

func encoded(b []byte) string {
	j, _ := json.Marshal(b)
	return strings.Trim(string(j), `"`)
}

func TestMissingPKI(t *testing.T) {
	n := testNode(Master)
	n.PKI = pki.Of(map[pki.Name][]byte{pki.CACert: []byte("x")})
	if _, err := Butane(n); err == nil || !strings.Contains(err.Error(), "admin.crt: not in this PKI") {
		t.Errorf("got %v", err)
	}
	// A worker's image can be built where only a worker's files are.
	n = testNode(Worker)
	n.PKI, _ = fakePKI().Only(Files(Worker, HTTPS)...)
	if _, err := Butane(n); err != nil {
		t.Error(err)
	}
}

func TestEveryFieldArrives(t *testing.T) {
	for _, tt := range []struct {
		name   string
		role   Role
		change func(*Node)
		path   string
		want   string
	}{
		{"bridge", Worker, func(n *Node) { n.Network.Bridge = "pods0" }, "/etc/systemd/network/50-pods0.netdev", "Name=pods0\nKind=bridge"},
		{"bridge in docker", Worker, func(n *Node) { n.Network.Bridge = "pods0" }, "/etc/docker/daemon.json", `"bridge": "pods0"`},
		{"bridge in kube-proxy", Worker, func(n *Node) { n.Network.Bridge = "pods0" }, "/etc/kubernetes/kube-proxy.yaml", "bridgeInterface: pods0"},
		{"mtu", Worker, func(n *Node) { n.Network.MTU = 1400 }, "/etc/systemd/network/50-cbr0.netdev", "MTUBytes=1400"},
		{"mtu in docker", Worker, func(n *Node) { n.Network.MTU = 1400 }, "/etc/docker/daemon.json", `"mtu": 1400`},
		{"domain", Worker, func(n *Node) { n.Network.Domain = "k.example" }, "/etc/kubernetes/kubelet.yaml", "clusterDomain: k.example"},
		{"domain in issuer", Master, func(n *Node) { n.Network.Domain = "k.example" }, "/etc/kubernetes/manifests/kube-apiserver.yaml", "https://kubernetes.default.svc.k.example"},
		{"dns follows services", Worker, func(n *Node) { n.Network.ServiceCIDR = netip.MustParsePrefix("10.200.0.0/16") }, "/etc/kubernetes/kubelet.yaml", "clusterDNS:\n- 10.200.0.10"},
		{"cluster CIDR", Worker, func(n *Node) { n.Network.ClusterCIDR = netip.MustParsePrefix("10.128.0.0/16") }, "/etc/kscratch/node.json", `"clusterCIDR": "10.128.0.0/16"`},
		{"insecure", Worker, func(n *Node) { n.Docker.InsecureRegistries = []string{"10.0.0.1:5000"} }, "/etc/docker/daemon.json", "\"insecure-registries\": [\n    \"10.0.0.1:5000\"\n  ]"},
		{"ip-masq", Worker, func(n *Node) { n.Docker.IPMasq = true }, "/etc/docker/daemon.json", `"ip-masq": true`},
		{"nofile", Worker, func(n *Node) { n.Docker.NoFile = 65536 }, "/etc/systemd/system/docker.service.d/10-kscratch.conf", "LimitNOFILE=65536"},
		{"nofile of containerd", Worker, func(n *Node) { n.Docker.NoFile = 65536 }, "/etc/systemd/system/containerd.service.d/10-kscratch.conf", "LimitNOFILE=65536"},
		{"data root", Worker, func(n *Node) { n.Docker.DataRoot = "/var/lib/d" }, "/etc/docker/daemon.json", `"data-root": "/var/lib/d"`},
		{"data root of agent", Worker, func(n *Node) { n.Docker.DataRoot = "/var/lib/d" }, "/etc/kscratch/node.json", `"dockerDataRoot": "/var/lib/d"`},
		{"journald", Worker, func(n *Node) { n.Docker.LogDriver = "journald" }, "/etc/docker/daemon.json", "\"log-driver\": \"journald\",\n  \"mtu\""},
		{"userland proxy", Worker, func(n *Node) { n.Docker.UserlandProxy = new(false) }, "/etc/docker/daemon.json", `"userland-proxy": false`},
		{"live restore", Worker, func(n *Node) { n.Docker.LiveRestore = true }, "/etc/docker/daemon.json", `"live-restore": true`},
		{"other option", Worker, func(n *Node) { n.Docker.Options = map[string]any{"shutdown-timeout": 3} }, "/etc/docker/daemon.json", `"shutdown-timeout": 3`},
		{"pause", Worker, func(n *Node) { n.Images.Pause = "p:1" }, "/etc/systemd/system/cri-docker.service", "--pod-infra-container-image=p:1 "},
		{"root dir", Worker, func(n *Node) { n.Kubelet.RootDir = "/var/k" }, "/etc/systemd/system/kubelet.service", "--root-dir=/var/k "},
		{"register", Worker, func(n *Node) { n.Kubelet.RegisterNode = new(false) }, "/etc/kubernetes/kubelet.yaml", "registerNode: false"},
		{"node address", Worker, func(n *Node) { n.Kubelet.NodeIP = "192.0.2.1" }, "/etc/systemd/system/kubelet.service", "--node-ip=192.0.2.1\n"},
		{"proxy mode", Worker, func(n *Node) { n.Proxy.Mode = "nftables" }, "/etc/kubernetes/kube-proxy.yaml", "mode: nftables"},
		{"endpoint", Worker, func(n *Node) { n.Endpoint = "10.1.2.3:443" }, "/etc/kubernetes/bootstrap.kubeconfig", "server: https://10.1.2.3:443"},
		{"own endpoint", Master, func(n *Node) { n.Endpoint = "10.1.2.3:443" }, "/etc/kubernetes/bootstrap.kubeconfig", "server: https://127.0.0.1:6443"},
		{"name", Worker, func(n *Node) { n.Name = "n1" }, "/etc/kscratch/node.json", `"nodeName": "n1"`},
		{"name by DHCP", Worker, func(n *Node) { n.NameFromDHCP = true }, "/etc/kscratch/node.json", `"nodeNameFromDHCP": true`},
		{"etcd data", Master, func(n *Node) { n.Etcd.DataDir = "/var/e" }, "/etc/kubernetes/manifests/etcd.yaml", "path: /var/e"},
		{"etcd flag", Master, func(n *Node) { n.Etcd.Args = map[string]string{"unsafe-no-fsync": "true"} }, "/etc/kubernetes/manifests/etcd.yaml", "- --unsafe-no-fsync=true"},
		{"flag replaced", Master, func(n *Node) { n.ControlPlane.SchedulerArgs = map[string]string{"leader-elect": "true"} }, "/etc/kubernetes/manifests/kube-scheduler.yaml", "- --leader-elect=true"},
		{"port", Master, func(n *Node) { n.ControlPlane.Port = 443 }, "/etc/kubernetes/manifests/kube-apiserver.yaml", "- --secure-port=443"},
		{"port of health", Master, func(n *Node) { n.ControlPlane.Port = 443 }, "/etc/kscratch/node.json", `"apiserver": "https://127.0.0.1:443/readyz"`},
		{"names of the API server", Master, func(n *Node) { n.ControlPlane.Names = []string{"kubernetes", "10.96.0.1"} }, "/etc/kscratch/node.json", `"apiServer": [
      "kubernetes",
      "10.96.0.1"
    ]`},
		{"advertise", Master, func(n *Node) { n.ControlPlane.AdvertiseAddress = "10.0.2.15" }, "/etc/kubernetes/manifests/kube-apiserver.yaml", "- --advertise-address=10.0.2.15"},
		{"one route to each peer", Worker, func(*Node) {}, "/etc/kscratch/node.json", `"peers": true`},
		{"no routes to peers", Worker, func(n *Node) { n.Network.NoPeers = true }, "/etc/kscratch/node.json", "\"publish\": true\n"},
		{"static route", Worker, func(n *Node) {
			n.Network.Routes = []Route{{netip.MustParsePrefix("10.244.9.0/24"), netip.MustParseAddr("192.0.2.9")}}
		}, "/etc/systemd/network/10-uplink.network", "[Route]\nDestination=10.244.9.0/24\nGateway=192.0.2.9\n"},
		{"cluster's DNS on the node", Worker, func(*Node) {}, "/etc/systemd/network/50-cbr0.network", "DNS=10.96.0.10\nDomains=~cluster.local\n"},
		{"mtu of flannel", Worker, func(n *Node) { n.Network.Mode = Flannel }, "/etc/docker/daemon.json", `"mtu": 1450`},
		{"mtu of flannel on jumbo frames", Worker, func(n *Node) { n.Network.Mode, n.Network.UplinkMTU = Flannel, 9000 }, "/etc/systemd/network/50-cbr0.netdev", "MTUBytes=8950"},
		{"mtu of host-gw", Worker, func(n *Node) { n.Network.Mode, n.Network.Backend = Flannel, HostGW }, "/etc/docker/daemon.json", `"mtu": 1500`},
		{"flannel", Worker, func(n *Node) { n.Network.Mode = Flannel }, "/etc/kscratch/flannel.json", `"Type": "vxlan"`},
		{"flanneld", Worker, func(n *Node) { n.Network.Mode = Flannel }, "/etc/systemd/system/flanneld.service", "--kubeconfig-file=/var/lib/kubelet/kubeconfig"},
		{"flannel owns the routes", Worker, func(n *Node) { n.Network.Mode = Flannel }, "/etc/kscratch/node.json", "\"publish\": true\n"},
		{"auto: bridge by kubenet", Worker, func(n *Node) { n.Network.Auto = true }, "/etc/docker/daemon.json", `"bridge": "none"`},
		{"auto: plugin", Worker, func(n *Node) { n.Network.Auto = true }, "/etc/systemd/system/cri-docker.service", "--network-plugin=kubenet"},
		{"auto: no CIDR to wait for", Worker, func(n *Node) { n.Network.Auto = true }, "/etc/kscratch/node.json", `"podCIDRByCluster": true`},
		{"auto: cluster's DNS on the node", Worker, func(n *Node) { n.Network.Auto = true }, "/etc/systemd/system/kscratch-cluster-dns.service", "ExecStart=/usr/bin/resolvectl domain cbr0 ~cluster.local\n"},
		{"auto: CIDRs by the cluster", Master, func(n *Node) { n.Network.Auto = true }, "/etc/kubernetes/manifests/kube-controller-manager.yaml", "--allocate-node-cidrs=true"},
		{"masquerade", Worker, func(n *Node) { n.Network.Masquerade = true }, "/etc/kscratch/filter.nft", "ip saddr 10.244.0.0/16 ip daddr != @internal masquerade"},
		{"masquerade elsewhere", Worker, func(n *Node) {
			n.Network.Masquerade, n.Network.Internal = true, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, "/etc/kscratch/filter.nft", "elements = { 10.244.0.0/16, 10.0.0.0/8 }"},
		{"firewall", Worker, behindFirewall, "/etc/kscratch/filter.nft", "elements = { 10.244.0.0/16, 192.0.2.0/24 }"},
		{"firewall: API server", Master, behindFirewall, "/etc/kubernetes/manifests/kube-apiserver.yaml", "--authorization-mode=AlwaysAllow"},
		{"firewall: anonymous clients", Master, behindFirewall, "/etc/kubernetes/authentication.yaml", "anonymous: {enabled: true}"},
		{"firewall: kubelet", Worker, behindFirewall, "/etc/kubernetes/kubelet.yaml", "authorization:\n  mode: AlwaysAllow"},
		{"firewall: no identity", Worker, behindFirewall, "/etc/kubernetes/kubelet.kubeconfig", "users:\n- name: anonymous\n  user: {}"},
		{"serving certificate by the cluster", Worker, func(*Node) {}, "/etc/kubernetes/kubelet.yaml", "serverTLSBootstrap: true"},
		{"and the API server checks it", Master, func(*Node) {}, "/etc/kubernetes/manifests/kube-apiserver.yaml", "--kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt"},
		{"private registry's CA", Worker, privateRegistry, "/etc/docker/certs.d/registry.example:5000/ca.crt", "a certificate"},
		{"private registry's password", Worker, privateRegistry, "/etc/kubernetes/registries.json", `"registry.example:5000": {` + "\n      \"auth\": \"dTpw\""},
		{"where the kubelet looks for it", Worker, privateRegistry, "/etc/tmpfiles.d/kscratch-registries.conf", "L+ /var/lib/kubelet/config.json"},
		{"taint", Master, func(n *Node) { n.ControlPlane.Unschedulable = true }, "/etc/kubernetes/kubelet.yaml", "registerWithTaints:\n- effect: NoSchedule\n  key: node-role.kubernetes.io/control-plane"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := testNode(tt.role)
			tt.change(&n)
			if got := string(rendered(t, n)[tt.path].Body); !strings.Contains(got, tt.want) {
				t.Errorf("%s: want %q in\n%s", tt.path, tt.want, got)
			}
		})
	}
}

func behindFirewall(n *Node) {
	n.Security, n.Network.Nodes = Firewall, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
}

func privateRegistry(n *Node) {
	n.Docker.Registries = []Registry{{Host: "registry.example:5000", CA: []byte("a certificate"), Username: "u", Password: "p"}}
}

// TestContractNamesPasswords: what an image keeps secret is what it says.
func TestContractNamesPasswords(t *testing.T) {
	n := testNode(Worker)
	behindFirewall(&n)
	if got := Contract(n); len(got) != 0 {
		t.Errorf("a node behind a firewall has secrets: %v", got)
	}
	privateRegistry(&n)
	if got := Contract(n); len(got) != 1 || got[0].Path != "/etc/kubernetes/registries.json" || got[0].Mode != 0o600 {
		t.Errorf("got %v", got)
	}
}

func TestNodeJSONReadsBack(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		if _, err := firstboot.ParseConfig(rendered(t, testNode(role))["/etc/kscratch/node.json"].Body); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

func TestNoCoreDNSWithoutItsImage(t *testing.T) {
	n := testNode(Master)
	n.Images.CoreDNS = ""
	if _, ok := rendered(t, n)["/etc/kubernetes/bootstrap/20-coredns.yaml"]; ok {
		t.Error("rendered without an image")
	}
}

func TestBadNodes(t *testing.T) {
	for _, tt := range []struct {
		role   Role
		change func(*Node)
		want   string
	}{
		{"king", func(*Node) {}, `role "king": want master or node`},
		{Worker, func(n *Node) { n.Security = "none" }, `security "none": want https or firewall`},
		{Worker, func(n *Node) { n.Security = Firewall }, "without networks of the nodes"},
		{Worker, func(n *Node) { n.Network.Mode = "bgp" }, `pod network "bgp": want routable or flannel`},
		{Worker, func(n *Node) { n.Network.Backend = "udp" }, `flannel backend "udp": want vxlan or host-gw`},
		{Worker, func(n *Node) { n.Network.Auto, n.Network.Bridge = true, "pods0" }, `bridge "pods0": kubenet's is cbr0`},
		{Worker, func(n *Node) { n.Network.Routes = []Route{{}} }, "want an IPv4 network and an IPv4 address"},
		{Worker, func(n *Node) { n.Network.Nodes = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} }, "network 10.0.0.1/8: want an IPv4 network"},
		{Worker, func(n *Node) { n.Docker.Registries = []Registry{{Host: "https://x"}} }, `registry "https://x"`},
		{Worker, func(n *Node) { n.Docker.Registries = []Registry{{Host: "x", Username: "a:b"}} }, `user name at registry "x"`},
		{Worker, func(n *Node) { n.Cluster = "a b" }, `cluster name "a b"`},
		{Worker, func(n *Node) { n.Name = "-x" }, `node name "-x"`},
		{Worker, func(n *Node) { n.Endpoint = "" }, `endpoint ""`},
		{Worker, func(n *Node) { n.Endpoint = "https://x:1" }, `endpoint "https://x:1"`},
		{Worker, func(n *Node) { n.Network.ClusterCIDR = netip.MustParsePrefix("10.96.0.0/16") }, "overlap"},
		{Worker, func(n *Node) { n.Network.ClusterCIDR = netip.MustParsePrefix("10.1.2.3/16") }, "cluster CIDR 10.1.2.3/16: want an IPv4 network"},
		{Worker, func(n *Node) { n.Network.ServiceCIDR = netip.MustParsePrefix("fd00::/64") }, "service CIDR fd00::/64: want an IPv4 network"},
		{Worker, func(n *Node) { n.Network.DNS = netip.MustParseAddr("8.8.8.8") }, "outside of the service CIDR"},
		{Worker, func(n *Node) { n.Network.DNS = netip.MustParseAddr("10.96.0.1") }, "is that of the kubernetes service"},
		{Worker, func(n *Node) { n.Network.Domain = "x\ny" }, `cluster domain "x\ny"`},
		{Worker, func(n *Node) { n.Network.Bridge = "docker0" }, `bridge "docker0"`},
		{Worker, func(n *Node) { n.Network.Bridge = "a-name-that-is-too-long" }, "at most 15"},
		{Worker, func(n *Node) { n.Network.MTU = 60 }, "MTU 60"},
		{Worker, func(n *Node) { n.Docker.DataRoot = "/var/lib/my docker" }, "docker data root"},
		{Worker, func(n *Node) { n.Docker.DataRoot = "/var/../x" }, "docker data root"},
		{Worker, func(n *Node) { n.Docker.NoFile = 10 }, "limit of open files 10"},
		{Worker, func(n *Node) { n.Docker.LogDriver = "syslog" }, `log driver "syslog"`},
		{Worker, func(n *Node) { n.Docker.LogMaxSize = "0" }, `log size "0"`},
		{Worker, func(n *Node) { n.Docker.LogMaxFiles = -1 }, "number of logs -1"},
		{Worker, func(n *Node) { n.Docker.InsecureRegistries = []string{"http://x"} }, `insecure registry "http://x"`},
		{Worker, func(n *Node) { n.Docker.Options = map[string]any{"iptables": true} }, `docker option "iptables" may not be set: kube-proxy owns the packet filter`},
		{Worker, func(n *Node) { n.Docker.Options = map[string]any{"hosts": "x"} }, "docker.service gives it on the command line"},
		{Worker, func(n *Node) { n.Docker.Options = map[string]any{"typo": 1} }, "dockerd 26.1 has no such key"},
		{Worker, func(n *Node) {
			n.Docker.Options = map[string]any{"features": map[string]any{"containerd-snapshotter": true}}
		}, "overlay2"},
		{Worker, func(n *Node) { n.Docker.Options = map[string]any{"labels": func() {}} }, `docker option "labels" is not a value of JSON: json`},
		{Worker, func(n *Node) { n.Kubelet.RootDir = "/var/$HOME" }, "kubelet root directory"},
		{Worker, func(n *Node) { n.Kubelet.NodeIP = "x" }, `node address "x"`},
		{Worker, func(n *Node) { n.Proxy.Mode = "ipvs" }, `kube-proxy mode "ipvs"`},
		{Worker, func(n *Node) { n.Images.Pause = "a b" }, `image of pause "a b"`},
		{Master, func(n *Node) { n.Images.Scheduler = "" }, `image of kube-scheduler ""`},
		{Master, func(n *Node) { n.Etcd.DataDir = "var" }, "etcd data directory"},
		{Master, func(n *Node) { n.ControlPlane.Port = 70000 }, "port of the API server 70000"},
		{Master, func(n *Node) { n.ControlPlane.AdvertiseAddress = "me" }, `advertised address "me"`},
		{Master, func(n *Node) { n.Etcd.Args = map[string]string{"--x": "y"} }, `flag of etcd "--x" is not the name of a flag`},
	} {
		n := testNode(tt.role)
		tt.change(&n)
		if _, err := Butane(n); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("want %q, got %v", tt.want, err)
		}
	}
	n := testNode(Worker)
	n.Network.MTU, n.Proxy.Mode, n.Name = 1, "x", "_"
	if _, err := Butane(n); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three problems at once, got %v", err)
	}
}

func TestDockerKeysAreFreeOrTaken(t *testing.T) {
	conf, err := daemonJSON(Defaults(testNode(Worker)))
	if err != nil {
		t.Fatal(err)
	}
	var ours map[string]any
	if err := json.Unmarshal(conf, &ours); err != nil {
		t.Fatal(err)
	}
	for k := range ours {
		if taken[k] == "" {
			t.Errorf("we set %q, and the user may too", k)
		}
	}
	for _, k := range free {
		if taken[k] != "" {
			t.Errorf("%q is free and taken", k)
		}
	}
}

const head = "variant: fcos\nversion: 1.4.0\n"

func TestMerge(t *testing.T) {
	base, _, err := Ignition(testNode(Worker))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motd"), []byte("from a file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := Merge(base,
		Snippet{Name: "a.bu", Dir: dir, Data: []byte(head + `
storage:
  files:
    - path: /etc/motd
      mode: 0640
      user: {id: 7}
      overwrite: true
      contents: {local: motd}
    - path: /etc/kscratch/pod-cidr
      contents: {inline: "10.244.7.0/24\n"}
systemd:
  units:
    - name: serial-getty@.service
      mask: false
    - name: docker.service
      dropins:
        - name: 50-mine.conf
          contents: "[Service]\nEnvironment=X=1\n"
`)},
		Snippet{Name: "b.bu", Data: []byte("variant: flatcar\nversion: 1.0.0\nstorage: {files: [{path: /etc/kscratch/pod-cidr, contents: {inline: later}}]}\n")},
	)
	if err != nil {
		t.Fatal(err)
	}
	r, err := List(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range r.Entries {
		got[e.Path] = fmt.Sprintf("%v %s %q %s", e.Mode, e.Owner, e.Body, e.Note)
	}
	for path, want := range map[string]string{
		"/etc/motd":              `-rw-r----- 7:root "from a file\n" `,
		"/etc/kscratch/pod-cidr": `---------- root:root "later" `,
		"/etc/systemd/system/docker.service.d/50-mine.conf": `-rw-r--r-- root:root "[Service]\nEnvironment=X=1\n" `,
		"/etc/systemd/system/serial-getty@.service":         "",
		"/etc/systemd/system/getty@.service":                `-rw-r--r-- root:root "" masked`,
	} {
		if got[path] != want {
			t.Errorf("%s: got %s, want %s", path, got[path], want)
		}
	}
	if got["/etc/systemd/system/docker.service.d/10-kscratch.conf"] == "" {
		t.Error("our own drop-in is gone")
	}
}

func TestMergeNothing(t *testing.T) {
	base, want, err := Ignition(testNode(Worker))
	if err != nil {
		t.Fatal(err)
	}
	out, err := Merge(base)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := List(out); err != nil || !bytes.Equal(listing(got), listing(want)) {
		t.Errorf("merging nothing changed something (%v)", err)
	}
}

func TestMergeSaysWhere(t *testing.T) {
	base, _, err := Ignition(testNode(Worker))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, data, want string }{
		{"empty", "", "u.bu:1:1: error parsing variant; must be specified"},
		{"not YAML", head + "a: b: c\n", "u.bu:3:1: Error unmarshaling yaml: yaml: mapping values are not allowed in this context"},
		{"no variant", "storage: {}\n", "u.bu:1:1: error parsing variant; must be specified"},
		{"unknown key", head + "storage:\n  fils: []\n", "u.bu:4:3: $.storage.fils: unused key fils"},
		{"bad path", head + "storage:\n  files:\n    - path: etc/motd\n", "u.bu:5:13: $.storage.files.0.path: path not absolute"},
		{"decimal mode", head + "storage:\n  files:\n    - path: /a\n      mode: 644\n", "u.bu:6:13: $.storage.files.0.mode: unreasonable mode would be reasonable if specified in octal; remember to add a leading zero"},
		{"bad unit", head + "systemd:\n  units:\n    - name: a.service\n      contents: \"[Unit\\n\"\n", "u.bu:6:17: "},
		{"local file not allowed", head + "storage:\n  files:\n    - path: /a\n      contents: {local: x}\n", "u.bu:6:25: $.storage.files.0.contents.local: "},
		{"too new", "variant: fcos\nversion: 1.5.0\n", "u.bu:1:1: needs Ignition spec 3.4.0, and the node's Ignition reads up to 3.3.0; fix: variant: fcos, version: 1.4.0"},
		{"kernel arguments", head + "kernel_arguments: {should_exist: [quiet]}\n", "u.bu:1:1: sets kernel_arguments, but"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Merge(base, Snippet{Name: "u.bu", Data: []byte(tt.data)})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	bad := []byte(head + "storage:\n  files:\n    - path: a\n    - path: b\n")
	_, err = Merge(base, Snippet{Name: "u.bu", Data: bad}, Snippet{Name: "v.bu", Data: bad})
	if ps := asProblems(err); len(ps) != 4 || ps[3].File != "v.bu" || ps[3].Line != 6 {
		t.Errorf("want four problems, got %v", err)
	}
}

// TestMergeReplacesOtherTypes: a link takes the place of a file.
func TestMergeReplacesOtherTypes(t *testing.T) {
	base, _, err := Ignition(testNode(Worker))
	if err != nil {
		t.Fatal(err)
	}
	out, err := Merge(base, Snippet{Name: "u.bu", Data: []byte(head + "storage: {links: [{path: /etc/hosts, target: /dev/null}]}\n")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := List(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range r.Entries {
		if e.Path == "/etc/hosts" {
			got = append(got, e.Mode.String()+" "+e.Note)
		}
	}
	if want := []string{"L--------- to /dev/null"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzMerge(f *testing.F) {
	base := []byte(`{"ignition":{"version":"3.3.0"}}`)
	f.Add([]byte(head))
	f.Add([]byte(head + "storage: {files: [{path: /a, contents: {inline: x}}]}\n"))
	f.Add([]byte("variant: fcos\nversion: 9.9.9\n"))
	f.Add([]byte("{}"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := Merge(base, Snippet{Name: "f", Data: b})
		if err != nil {
			return
		}
		if _, err := List(out); err != nil {
			t.Errorf("merged into something that cannot be read: %v", err)
		}
	})
}
