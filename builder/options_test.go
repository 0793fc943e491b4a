package builder_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/test/aptfake"
)

// option is one of the options that the guide of 2015 has for a node, and what
// became of it.
type option struct {
	then   string   // as the guide calls it
	fields []string // of the cluster file; none: it is always so
	now    string   // what it is today
	set    string   // a cluster file that sets it
	role   builder.Role
	path   string // of a file on the node
	want   string // in that file
	proofs string // tests beside [TestOptions] that show it, as package.Test
}

const (
	master = builder.Master
	worker = builder.Worker
)

var options = []option{
	{"`kubernetes-server-linux-amd64.tar.gz` with `server/bin`", []string{"kubernetes.version", "kubernetes.sources", "kubernetes.tarball"},
		"the same tarball: from a file, from a release, or built from Go modules", "kubernetes: {version: v1.36.3}", master,
		"/etc/kubernetes/manifests/kube-apiserver.yaml", "image: registry.k8s.io/kube-apiserver:v1.36.3", "layers/kubernetes.TestGet builder.TestGolden"},
	{"container images from a registry, by `$TAG`", []string{"components.etcd.image", "components.etcd.version"},
		"pulled at build time and pinned to a digest in the lock", "components: {etcd: {image: registry.example/etcd, version: v3.6.8}}", master,
		"/etc/kubernetes/manifests/etcd.yaml", "image: registry.example/etcd:3.6.8-0", "images.TestRegistry"},
	{"container images from tarballs, by `docker import`", []string{"images"},
		"docker-archives, OCI layouts and plain root file systems, in docker's store from the first start", "", "", "", "", "images.TestLoadArchive images.TestLoadLayout images.TestRootFS"},
	{"etcd from a registry, or your own", []string{"components.etcd.sources", "components.etcd.path"},
		"registry, modules or path; a program of one's own is wrapped into an image", "", "", "", "", "images.TestCompose"},
	{"docker0 and old rules of iptables removed", nil,
		"never made", "", worker, "/etc/docker/daemon.json", `"iptables": false`, "test/boot.TestNode"},
	{"docker `--bridge=cbr0`", []string{"network.bridge"},
		"key of daemon.json", "network: {bridge: pods0}", worker, "/etc/docker/daemon.json", `"bridge": "pods0"`, ""},
	{"docker `--iptables=false`", nil,
		"key of daemon.json; `docker.options` may not set it", "", worker, "/etc/docker/daemon.json", `"iptables": false`, ""},
	{"docker `--ip-masq=false`", []string{"docker.ipMasq"},
		"key of daemon.json", "docker: {ipMasq: true}", worker, "/etc/docker/daemon.json", `"ip-masq": true`, ""},
	{"docker `--mtu=`", []string{"network.mtu"},
		"key of daemon.json, and of the bridge", "network: {mtu: 1400}", worker, "/etc/docker/daemon.json", `"mtu": 1400`, ""},
	{"docker `--insecure-registry`", []string{"docker.insecureRegistries"},
		"key of daemon.json", "docker: {insecureRegistries: [10.0.0.0/8]}", worker, "/etc/docker/daemon.json", `"insecure-registries": [` + "\n    \"10.0.0.0/8\"", ""},
	{"`DOCKER_NOFILE=1000000`", []string{"docker.nofile"},
		"drop-ins for docker and containerd", "docker: {nofile: 65536}", worker, "/etc/systemd/system/docker.service.d/10-kscratch.conf", "LimitNOFILE=65536", ""},
	{"other options of docker", []string{"docker.options", "docker.logDriver", "docker.logMaxSize", "docker.logMaxFiles", "docker.userlandProxy", "docker.liveRestore"},
		"keys of daemon.json; unknown ones fail the build", "docker: {logMaxSize: 50m, logMaxFiles: 5, userlandProxy: false, liveRestore: true, options: {debug: true}}", worker,
		"/etc/docker/daemon.json", `"debug": true`, "builder.TestProblems"},
	{"kubelet `--docker-root`", []string{"docker.dataRoot"},
		"`data-root` of daemon.json", "docker: {dataRoot: /var/lib/d}", worker, "/etc/docker/daemon.json", `"data-root": "/var/lib/d"`, ""},
	{"pods masqueraded where they leave the cloud", []string{"network.masquerade", "network.nonMasqueradeCIDRs"},
		"a rule of nftables", "network: {masquerade: true, nonMasqueradeCIDRs: [10.0.0.0/8]}", worker, "/etc/kscratch/filter.nft", "elements = { 10.244.0.0/16, 10.0.0.0/8 }", ""},
	{"security by HTTPS", []string{"security"},
		"certificates, Node and RBAC authorization", "security: https", master, "/etc/kubernetes/manifests/kube-apiserver.yaml", "--authorization-mode=Node,RBAC", "test/boot.TestCluster"},
	{"security by firewall", []string{"security", "network.nodeCIDRs"},
		"anonymous clients, and nftables lets in the cluster's networks only", "security: firewall\nnetwork: {nodeCIDRs: [192.0.2.0/24]}", master,
		"/etc/kscratch/filter.nft", "tcp dport { 2379, 2380, 6443, 10250 } jump ours", "test/boot.TestFirewall"},
	{"kubelet `--api-servers`, `--kubeconfig`", []string{"controlPlane.endpoint"},
		"a bootstrap kubeconfig, with which the kubelet gets its own", "controlPlane: {endpoint: '10.1.2.3:443'}", worker,
		"/etc/kubernetes/bootstrap.kubeconfig", "server: https://10.1.2.3:443", ""},
	{"kubelet `--config=/etc/kubernetes/manifests`", nil,
		"`staticPodPath` of KubeletConfiguration", "", worker, "/etc/kubernetes/kubelet.yaml", "staticPodPath: /etc/kubernetes/manifests", ""},
	{"kubelet `--cluster-dns`, `--cluster-domain`", []string{"network.clusterDNS", "network.clusterDomain"},
		"`clusterDNS`, `clusterDomain`", "network: {clusterDNS: 10.96.0.53, clusterDomain: k.example}", worker,
		"/etc/kubernetes/kubelet.yaml", "clusterDNS:\n- 10.96.0.53\nclusterDomain: k.example", ""},
	{"kubelet `--root-dir`", []string{"kubelet.rootDir"},
		"flag of the unit", "kubelet: {rootDir: /var/lib/k}", worker, "/etc/systemd/system/kubelet.service", "--root-dir=/var/lib/k ", ""},
	{"kubelet `--configure-cbr0=true`", []string{"network.cbr0"},
		"`auto`: kubenet makes cbr0, in the range that the cluster gives the node", "network: {cbr0: auto}", worker,
		"/etc/systemd/system/cri-docker.service", "--network-plugin=kubenet", "test/boot.TestAuto"},
	{"kubelet `--configure-cbr0=false`; cbr0 has the first address, the MTU, and is up", []string{"network.cbr0", "network.mtu"},
		"`manual`: units of systemd-networkd; kscratch-node adds the address at the first boot", "network: {mtu: 1460}", worker,
		"/etc/systemd/network/50-cbr0.netdev", "MTUBytes=1460", "test/boot.TestFirstBootInput"},
	{"kubelet `--register-node`", []string{"kubelet.registerNode"},
		"`registerNode`", "kubelet: {registerNode: false}", worker, "/etc/kubernetes/kubelet.yaml", "registerNode: false", ""},
	{"other options of the kubelet", []string{"kubelet.maxPods", "kubelet.extraConfig", "kubelet.extraFlags"},
		"keys of KubeletConfiguration, and flags that the baked kubelet is asked about",
		"kubelet: {maxPods: 200, extraConfig: {evictionHard: {memory.available: 200Mi}}, extraFlags: {node-labels: a=b}}", worker,
		"/etc/kubernetes/kubelet.yaml", "evictionHard:\n  memory.available: 200Mi", "ignition.TestConfigOverlay builder.TestCheckFlags"},
	{"kube-proxy `--api-servers`, `--kubeconfig`", []string{"controlPlane.endpoint", "kubeProxy.mode"},
		"KubeProxyConfiguration", "kubeProxy: {mode: nftables}", worker, "/etc/kubernetes/kube-proxy.yaml", "mode: nftables", ""},
	{"other options of kube-proxy", []string{"kubeProxy.extraConfig", "kubeProxy.extraFlags"},
		"keys of KubeProxyConfiguration; flags about its log", "kubeProxy: {extraConfig: {conntrack: {maxPerCore: 0}}, extraFlags: {v: 2}}", worker,
		"/etc/kubernetes/kube-proxy.yaml", "maxPerCore: 0", ""},
	{"routable pods, or an overlay network", []string{"network.mode", "network.flannel.backend", "network.uplinkMTU"},
		"routes to every node's pod CIDR, or flanneld, whose header makes the MTU smaller", "network: {mode: flannel}", worker,
		"/etc/kscratch/flannel.json", `"Type": "vxlan"`, "test/boot.TestCluster"},
	{"etcd: one instance, its data on durable storage", nil,
		"a static pod; its data is on the state partition", "", master, "/etc/kubernetes/manifests/etcd.yaml", "path: /var/lib/etcd", "test/boot.TestNode"},
	{"etcd.manifest: copied, changed, put into the directory", []string{"manifests.patches"},
		"patches of any static pod", "manifests: {patches: [{target: etcd, type: json, patch: [{op: add, path: /spec/terminationGracePeriodSeconds, value: 60}]}]}", master,
		"/etc/kubernetes/manifests/etcd.yaml", "terminationGracePeriodSeconds: 60", "ignition.TestPatches"},
	{"flags of etcd", []string{"etcd.extraFlags"},
		"in the static pod", "etcd: {extraFlags: {quota-backend-bytes: 8589934592}}", master, "/etc/kubernetes/manifests/etcd.yaml", "- --quota-backend-bytes=8589934592", "builder.TestCheckFlags"},
	{"flags of the API server, controller manager and scheduler",
		[]string{"controlPlane.apiServer.extraFlags", "controlPlane.controllerManager.extraFlags", "controlPlane.scheduler.extraFlags"},
		"in the static pods", "controlPlane: {apiServer: {extraFlags: {audit-log-path: '-'}}, scheduler: {extraFlags: {v: 2}}}", master,
		"/etc/kubernetes/manifests/kube-apiserver.yaml", "- --audit-log-path=-", "builder.TestCheckFlags"},
	{"anything else on the node", []string{"butane", "roleButane"},
		"files, units and users in Butane, for all nodes or by role", "roleButane: {node: [motd.bu]}", worker, "/etc/motd", "From a Butane file.", "ignition.TestMerge"},
}

// motd is the Butane file that an option names.
const motd = `variant: fcos
version: 1.4.0
storage:
  files:
    - path: /etc/motd
      contents: {inline: "From a Butane file.\n"}
`

// TestOptions sets each option and looks for it on the node.
func TestOptions(t *testing.T) {
	dir := optionsDir(t)
	for _, o := range options {
		t.Run(o.then, func(t *testing.T) {
			if o.path == "" {
				return // what a node is told is not where it shows
			}
			if got := told(t, dir, o.set, o.role)[o.path]; !strings.Contains(got, o.want) {
				t.Errorf("%s: want %q in\n%s", o.path, o.want, got)
			}
		})
	}
}

// TestOptionsHaveProofs: the tests that the page names are there.
func TestOptionsHaveProofs(t *testing.T) {
	for _, o := range options {
		if o.path == "" && o.proofs == "" {
			t.Errorf("%s: nothing shows it", o.then)
		}
		for _, proof := range strings.Fields(o.proofs) {
			pkg, name, _ := strings.Cut(proof, ".")
			if !hasTest(t, filepath.Join(home, "..", pkg), name) {
				t.Errorf("%s: there is no %s", o.then, proof)
			}
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// optionsDir is the directory of a cluster file, with its PKI.
func optionsDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	_, err := builder.EnsurePKI(builder.Default(), dir, aptfake.Date, rand.NewChaCha8([32]byte{}))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "motd.bu"), []byte(motd), 0o644))
	return dir
}

// told returns the files that a node of a cluster is given, by path.
func told(t *testing.T, dir, cluster string, role builder.Role) map[string]string {
	t.Helper()
	spec, err := builder.Parse("cluster.yaml", []byte(cluster))
	must(t, err)
	_, report, err := builder.IgnitionConfig(spec, &builder.Lock{}, role, builder.Options{Dir: dir})
	must(t, err)
	out := map[string]string{}
	for _, e := range report.Entries {
		out[e.Path] = string(e.Body)
	}
	return out
}

const optionsHead = `# What the options of 2015 are today

kscratch follows a guide of 2015 to a Kubernetes cluster "from scratch". Each option of that guide has
its place in the cluster file; most have another name in today's programs. Every field, with its type and
default, is in [cluster.md](cluster.md).

This page is made from a table of tests (` + "`go test ./builder -run Options -update`" + `), which sets each option as in
the column "for example" and looks for what stands in the last but one column in what the node is told.
The boots in the last column show the option on a running node. Which of those were seen to pass is in the
[README](../README.md): the one of TestAuto not to its end.

| then | field of the cluster file (default) | today | for example | on the node | also shown by |
|---|---|---|---|---|---|
`

const optionsTail = `
## What may not be set

Some flags and keys are kscratch's own: they say where certificates, manifests and data are, or they must
agree with what other programs of the node were told. Setting one fails the build, with the reason. A * stands
for any end of the name.

| program | key | flag | why not |
|---|---|---|---|
` + "%s" + `
## How flags are checked

The program that goes into the image is run, with each flag and then ` + "`--help`" + `, on the machine that builds: so
its own parser judges name and value, and then does nothing. That takes linux/amd64; elsewhere a cluster
file with ` + "`extraFlags`" + ` fails to build and says so. The content store keeps the answers. A value that a
program can parse may still be wrong: such a program says so in its log when it starts. kube-proxy is
configured by a file, beside which it ignores flags other than those about its log.

## How configuration is merged

` + "`extraConfig`" + ` is merged over kscratch's configuration as RFC 7386 says: maps are merged, null removes a key,
anything else replaces. It is decoded with the types of the Kubernetes release that kscratch was built for; a
key that they do not have fails the build, with its place in the cluster file.

## How manifests are patched

` + "`manifests.patches`" + ` are made in their order, after flags. A patch of type strategic is a part of a pod, whose
containers, volumes and variables are merged by name, as ` + "`kubectl patch`" + ` does it; one of type json is a list of
operations (RFC 6902). The result must be a pod that a kubelet starts from a file: no fields that a pod does
not have, no mounts without their volume, and nothing that refers to secrets, config maps, service accounts
or other objects of the API.
`

func TestOptionsPage(t *testing.T) {
	b, err := yaml.Marshal(builder.Default())
	must(t, err)
	defaults := document(t, b)
	var out strings.Builder
	out.WriteString(optionsHead)
	for _, o := range options {
		var fields, proofs []string
		for _, f := range o.fields {
			fields = append(fields, "`"+f+"`"+defaultOf(t, defaults, f))
		}
		for _, p := range strings.Fields(o.proofs) {
			pkg, name, _ := strings.Cut(p, ".")
			proofs = append(proofs, "`"+path.Join(pkg, name)+"`")
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s |\n", o.then, orAlways(fields), o.now, code(o.set), onNode(o), strings.Join(proofs, ", "))
	}
	fmt.Fprintf(&out, optionsTail, ownedTable())
	current(t, filepath.Join(home, "../docs/options.md"), out.String())
}

func ownedTable() string {
	var out strings.Builder
	for _, component := range ignition.Components {
		for _, o := range ignition.OwnedBy(component) {
			flag := o.Flag
			if flag != "" {
				flag = "`--" + flag + "`"
			}
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", component, code(o.Key), flag, o.Why)
		}
	}
	return out.String()
}

// defaultOf returns the default of a field in brackets; it must be there.
func defaultOf(t *testing.T, n *yaml.Node, field string) string {
	t.Helper()
	for name := range strings.SplitSeq(field, ".") {
		next := child(n, name)
		if next == nil {
			if name == "path" { // left out of what is written where it is empty
				return ""
			}
			t.Fatalf("the cluster file has no %s", field)
		}
		n = next
	}
	if v := value(n); v != "" {
		return " (" + v + ")"
	}
	return ""
}

func orAlways(fields []string) string {
	if len(fields) == 0 {
		return "always"
	}
	return strings.Join(fields, ", ")
}

// code writes text as code in a cell of a table.
func code(s string) string {
	if s == "" {
		return ""
	}
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, "`"+strings.TrimSpace(line)+"`")
	}
	return strings.Join(lines, " ")
}

func onNode(o option) string {
	if o.path == "" {
		return ""
	}
	return "`" + o.path + "`: " + code(o.want)
}

// TestOptionsInPlace: problems of what other programs and files judge have
// their place, too.
func TestOptionsInPlace(t *testing.T) {
	dir := optionsDir(t)
	for name, body := range map[string]string{
		"bad.bu":     "variant: fcos\nversion: 1.4.0\nstorage:\n  fils: []\n",
		"patch.yaml": "- op: remove\n  path: /spec/hostNetwork\n- {op: add, pth: /x}\n",
		"syntax":     "a: [\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
	}
	for _, tt := range []struct{ name, in, want string }{
		{"butane", "butane: [bad.bu]", "bad.bu:4:3: $.storage.fils: unused key fils"},
		{"butane of the role", "butane: [motd.bu]\nroleButane: {master: [bad.bu], node: [x.bu]}", "bad.bu:4:3: $.storage.fils: unused key fils"},
		{"all files that are missing", "butane: [a.bu]\nroleButane:\n  master: [motd.bu, b.bu]",
			"cluster.yaml:1:10: butane[0]: cannot be read: open DIR/a.bu: no such file or directory; paths are relative to the cluster file\n" +
				"cluster.yaml:3:21: roleButane.master[1]: cannot be read: open DIR/b.bu: no such file or directory; paths are relative to the cluster file"},
		{"patch", "manifests:\n  patches:\n    - target: etcd\n      type: strategic\n      patch:\n        spec:\n          hostNetwrk: true\n",
			"cluster.yaml:7:11: manifests.patches[0].patch.spec.hostNetwrk: is no field of Pod; did you mean hostNetwork?"},
		{"result of a patch", "manifests:\n  patches:\n    - target: etcd\n      type: strategic\n      patch: {spec: {serviceAccountName: a}}\n",
			"cluster.yaml:5:14: manifests.patches[0].patch: makes a pod that does not start: spec.serviceAccountName refers to a ServiceAccount, which a static pod may not; use a file of the node by way of hostPath"},
		{"patch in a file", "manifests: {patches: [{target: etcd, type: json, file: patch.yaml}]}",
			"patch.yaml:3:13: [1].pth: is no field of operation; did you mean path?"},
		{"no patch in the file", "manifests: {patches: [{target: etcd, type: json, file: syntax}]}",
			"syntax:1:1: did not find expected node content; the file must be YAML 1.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, err := builder.Parse("cluster.yaml", []byte(tt.in))
			must(t, err)
			_, _, err = builder.IgnitionConfig(spec, &builder.Lock{}, builder.Master, builder.Options{Dir: dir})
			if err == nil {
				t.Fatal("no problem found")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestBuildAsksForFlags: a build runs the program that it bakes. The one of
// this world says nothing.
func TestBuildAsksForFlags(t *testing.T) {
	p := newProject(t)
	p.spec.Kubelet.ExtraFlags = builder.Flags{"v": "2"}
	_, err := builder.Build(t.Context(), p.spec, p.lock(t), builder.Worker, p.options)
	if want := "asking kubelet v1.36.3 for its flags: --help lists none (exit code 0): is it the right program?"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
