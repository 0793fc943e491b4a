//go:build boot && cluster

package boot

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
	"github.com/kscratch/kscratch/test/conformance"
	"github.com/kscratch/kscratch/test/e2e"
)

var (
	markdown = flag.String("markdown", "", "run all specs of upstream's suite that fit, and write the report to this file")
	limit    = flag.Duration("limit", 90*time.Minute, "time for all specs")
)

// clusterTime is for two machines that share two cores without KVM.
const clusterTime = 45 * time.Minute

// testImages makes upstream's test images once.
var testImages = sync.OnceValues(func() ([]e2e.Image, error) {
	o, err := e2e.Local(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(config.Dir, "..", "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return e2e.Archives(context.Background(), dir, o)
})

// buildCluster builds both roles' images of a cluster file with some lines of
// its own, and the test images.
func buildCluster(t *testing.T, lines string) (master, node Image) {
	t.Helper()
	archives, err := testImages()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(config.Dir, "..", t.Name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// What protects a processor from its speculation is for real ones.
	text := lines + "disk: {kernelArgs: [mitigations=off]}\nimages:\n"
	for _, a := range archives {
		text += fmt.Sprintf("- {name: %q, from: %q}\n", a.Name, "docker-archive:"+a.Path)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	start := time.Now()
	if master, err = Build(t.Context(), *program, dir, "master", log); err != nil {
		t.Fatal(err)
	}
	first := time.Since(start)
	if node, err = Build(t.Context(), *program, dir, "node", log); err != nil {
		t.Fatal(err)
	}
	t.Logf("images built: master in %.1f s, node in %.1f s", first.Seconds(), time.Since(start).Seconds()-first.Seconds())
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return master, node
}

// TestCluster is the cluster of the defaults: https, routable pods, routes by
// kscratch-node. Its master is judged as [TestNode] does a master alone.
func TestCluster(t *testing.T) {
	ctx := within(t, clusterTime+*limit)
	master, node := buildCluster(t, "")
	k := StartCluster(t, config, master, node, ClusterOptions{})
	k.WaitReady(ctx)
	reportCluster(t, k, ctx)
	startWeb(t, k, ctx, 8090)
	t.Run("master", func(t *testing.T) { checkMaster(t, k, ctx) })
	t.Run("routes", func(t *testing.T) { checkRoutes(t, k, ctx) })
	t.Run("pods", func(t *testing.T) { checkPods(t, k, ctx, true) })
	t.Run("services", func(t *testing.T) { checkServices(t, k, ctx) })
	t.Run("from outside", func(t *testing.T) { checkOutside(t, k, ctx) })
	t.Run("kubectl", func(t *testing.T) { checkKubectl(t, k, ctx) })
	t.Run("secrets", func(t *testing.T) { checkNoKeys(t, k, ctx) })
	t.Run("conformance", func(t *testing.T) { checkConformance(t, k, ctx) })
	t.Run("reboot", func(t *testing.T) { checkReboot(t, k, ctx) })
	t.Run("taken", func(t *testing.T) { checkTaken(t, k, ctx, node) })
}

// TestFirewall is a cluster without identities: security by firewall, pods'
// packets carried by flannel's VXLAN, services by nftables.
func TestFirewall(t *testing.T) {
	ctx := within(t, clusterTime)
	master, node := buildCluster(t, "security: firewall\nkubeProxy: {mode: nftables}\nnetwork: {mode: flannel, nodeCIDRs: [192.168.76.0/24]}\n")
	k := StartCluster(t, config, master, node, ClusterOptions{})
	k.WaitReady(ctx)
	reportCluster(t, k, ctx)
	startWeb(t, k, ctx, 8090)
	t.Run("flannel", func(t *testing.T) {
		for i := range k.Members() {
			outputs(t, k.Node(t, i), ctx, map[string]string{
				"cat /sys/class/net/cbr0/mtu":                      "1450",
				"ip -d link show flannel.1 | grep -c 'vxlan id 1'": "1",
				"ip -4 route show proto 75":                        "",
			})
		}
	})
	t.Run("pods", func(t *testing.T) { checkPods(t, k, ctx, true) })
	t.Run("services", func(t *testing.T) { checkServices(t, k, ctx) })
	t.Run("firewall", func(t *testing.T) { checkFirewall(t, k, ctx) })
}

// TestAuto is a cluster whose nodes are given nothing at all: it gives them
// their pod CIDRs, and kubenet makes cbr0.
func TestAuto(t *testing.T) {
	ctx := within(t, clusterTime)
	master, node := buildCluster(t, "network: {cbr0: auto}\n")
	k := StartCluster(t, config, master, node, ClusterOptions{NoPodCIDR: true})
	k.WaitReady(ctx)
	reportCluster(t, k, ctx)
	startWeb(t, k, ctx, 0) // kubenet of cri-dockerd v0.3.17 fails on host ports
	t.Run("pods", func(t *testing.T) { checkPods(t, k, ctx, false) })
	t.Run("services", func(t *testing.T) { checkServices(t, k, ctx) })
}

func reportCluster(t *testing.T, k *Cluster, ctx context.Context) {
	t.Helper()
	t.Logf("%d nodes Ready %.0f s after power-on, kvm=%v", len(k.Members()), k.Elapsed().Seconds(), k.VM(k.Members()[0]).KVM())
	for i, m := range k.Members() {
		used := k.Node(t, i).Output(ctx, `awk '/MemTotal/{t=$2} /MemAvailable/{a=$2} END{print int((t-a)/1024)}' /proc/meminfo`)
		t.Logf("%s: %s MiB used in the guest, %d MiB taken up on the host", m.Name, used, k.VM(m).RSS()>>20)
	}
}

// webYAML has a server and a client on each node, and a service of the servers.
const webYAML = `apiVersion: v1
kind: Pod
metadata: {name: web-%[1]d, labels: {app: web}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: ` + e2e.Agnhost + `
    imagePullPolicy: Never
    args: [netexec, --http-port=8080]
    ports: [%[3]s]
    readinessProbe: {httpGet: {port: 8080, path: /hostname}, timeoutSeconds: 10, periodSeconds: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: client-%[1]d}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "` + e2e.Busybox + `", imagePullPolicy: Never, command: [sleep, "1000000"]}
---
`

const serviceYAML = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// nodeNames returns the names of the cluster's nodes in the order of the
// machines.
func nodeNames(t *testing.T, k *Cluster, ctx context.Context) []string {
	t.Helper()
	nodes, err := k.API().Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range k.Members() {
		for _, n := range nodes {
			for _, a := range n.Addresses {
				if a == "InternalIP "+m.IP.String() {
					out = append(out, n.Name)
				}
			}
		}
	}
	if len(out) != len(k.Members()) {
		t.Fatalf("nodes %v are not the machines", nodes)
	}
	return out
}

// startWeb starts servers and clients. The servers' port is one of their nodes',
// too, if hostPort is not 0.
func startWeb(t *testing.T, k *Cluster, ctx context.Context, hostPort int) {
	t.Helper()
	text, ports := "", "{containerPort: 8080}"
	if hostPort != 0 {
		ports = fmt.Sprintf("{containerPort: 8080, hostPort: %d}", hostPort)
	}
	for i, name := range nodeNames(t, k, ctx) {
		text += fmt.Sprintf(webYAML, i, name, ports)
	}
	n := k.Node(t, 0)
	n.Eventually(ctx, "kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig get serviceaccount default")
	n.Kubectl(ctx, text+serviceYAML, "apply", "-f", "-")
	n.Kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=300s", "pod", "--all")
	n.Kubectl(ctx, "", "-n", "kube-system", "wait", "--for=condition=Available", "--timeout=300s", "deployment/coredns")
}

func podIP(k *Cluster, t *testing.T, ctx context.Context, name string) string {
	t.Helper()
	return k.Node(t, 0).Kubectl(ctx, "", "get", "pod", name, "-o", "jsonpath={.status.podIP}")
}

// inPod runs a command in a client pod until it succeeds, and returns what it
// then writes.
func inPod(t *testing.T, k *Cluster, ctx context.Context, i int, args ...string) string {
	t.Helper()
	all := append([]string{"--kubeconfig", k.image.Kubeconfig, "--server", "https://" + k.Addr(), "exec", fmt.Sprintf("client-%d", i), "--"}, args...)
	var out []byte
	var err error
	for range 10 {
		cmd := exec.CommandContext(ctx, k.Node(t, 0).c.Kubectl, all...)
		cmd.Env = []string{"HOME=" + k.dir}
		if out, err = cmd.CombinedOutput(); err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(3 * time.Second)
	}
	if err != nil {
		t.Fatalf("in client-%d: %s: %v: %s", i, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// checkMaster looks at the master from inside.
func checkMaster(t *testing.T, k *Cluster, ctx context.Context) {
	n, name, cidr := k.Node(t, 0), nodeNames(t, k, ctx)[0], k.Members()[0].Pod.String()
	nodes, err := k.API().Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(nodes, func(n vm.Node) bool { return n.Name == name })
	checkNode(t, n, ctx, nodes[i], cidr)
	checkStaticPods(t, n, ctx, name)
	checkDocker(t, n, ctx)
	checkReadOnly(t, n, ctx)
	checkSlots(t, n, ctx)
	checkUnits(t, n, ctx)
}

// checkRoutes: there is one route of kscratch-node's to each peer's pods, and
// the Nodes say which they are.
func checkRoutes(t *testing.T, k *Cluster, ctx context.Context) {
	a, b := k.Members()[0], k.Members()[1]
	for i, peer := range []struct{ pod, via string }{{b.Pod.String(), b.IP.String()}, {a.Pod.String(), a.IP.String()}} {
		got := k.Node(t, i).Eventually(ctx, "ip -4 route show proto 75 | grep .")
		if !regexp.MustCompile(`^` + peer.pod + ` via ` + peer.via + ` dev \S+ metric 2048\s*$`).MatchString(got) {
			t.Errorf("routes of machine %d: %q, want the one to %s via %s", i, got, peer.pod, peer.via)
		}
	}
	got := k.Node(t, 0).Kubectl(ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}")
	if want := a.Pod.String() + " " + b.Pod.String(); got != want {
		t.Errorf("the nodes' pod CIDRs are %s, want %s", got, want)
	}
}

// checkPods: pods on different machines reach each other, and see each other's
// own address where nothing is meant to hide it.
func checkPods(t *testing.T, k *Cluster, ctx context.Context, own bool) {
	for i, m := range k.Members() {
		if ip, err := netip.ParseAddr(podIP(k, t, ctx, fmt.Sprintf("web-%d", i))); err != nil || own && !m.Pod.Contains(ip) {
			t.Errorf("web-%d has the address %v, %v; want one of %v", i, ip, err, m.Pod)
		}
	}
	for from := range k.Members() {
		to := 1 - from
		got := inPod(t, k, ctx, from, "wget", "-q", "-T", "10", "-O", "-", "http://"+podIP(k, t, ctx, fmt.Sprintf("web-%d", to))+":8080/clientip")
		if host, _, _ := net.SplitHostPort(got); own && host != podIP(k, t, ctx, fmt.Sprintf("client-%d", from)) {
			t.Errorf("client-%d appears at the other node as %s", from, got)
		}
		inPod(t, k, ctx, from, "ping", "-c", "1", "-W", "10", podIP(k, t, ctx, fmt.Sprintf("web-%d", to)))
	}
}

// checkServices: a service is reached by address and by name, from pods and
// from the machines themselves.
func checkServices(t *testing.T, k *Cluster, ctx context.Context) {
	ip := k.Node(t, 0).Kubectl(ctx, "", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	for i := range k.Members() {
		for _, host := range []string{ip, "web", "web.default.svc.cluster.local"} {
			if got := inPod(t, k, ctx, i, "wget", "-q", "-T", "10", "-O", "-", "http://"+host+"/hostname"); !strings.HasPrefix(got, "web-") {
				t.Errorf("client-%d: http://%s answers %q", i, host, got)
			}
		}
		n := k.Node(t, i)
		if got := n.Eventually(ctx, "getent ahostsv4 web.default.svc.cluster.local | awk '{print $1; exit}' | grep ."); got != ip {
			t.Errorf("machine %d resolves the service to %q, want %s", i, got, ip)
		}
		got := n.Eventually(ctx, `exec 3<>/dev/tcp/web.default.svc.cluster.local/80; printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3; timeout 10 cat <&3 | tail -1 | grep web-`)
		if !strings.HasPrefix(got, "web-") {
			t.Errorf("machine %d: the service answers %q", i, got)
		}
	}
}

// checkOutside: node ports and host ports answer whoever is on the machines'
// network.
func checkOutside(t *testing.T, k *Cluster, ctx context.Context) {
	for i, m := range k.Members() {
		for _, port := range []uint16{30080, 8090} {
			got, err := retryFetch(ctx, k.LAN.Dial, netip.AddrPortFrom(m.IP, port), "/hostname")
			if err != nil || port == 8090 && got != fmt.Sprintf("web-%d", i) || !strings.HasPrefix(got, "web-") {
				t.Errorf("port %d of %s answers %q, %v", port, m.Name, got, err)
			}
		}
	}
}

func retryFetch(ctx context.Context, dial dialer, to netip.AddrPort, path string) (got string, err error) {
	for range 5 {
		if got, err = fetch(ctx, dial, to, path); err == nil {
			return got, nil
		}
		time.Sleep(2 * time.Second)
	}
	return got, err
}

// checkKubectl: logs, exec and port-forward reach both kubelets, over TLS that
// the API server verifies.
func checkKubectl(t *testing.T, k *Cluster, ctx context.Context) {
	n := k.Node(t, 0)
	for i, name := range nodeNames(t, k, ctx) {
		if got := n.Kubectl(ctx, "", "logs", fmt.Sprintf("web-%d", i)); !strings.Contains(got, "8080") {
			t.Errorf("logs of web-%d: %q", i, got)
		}
		if got := inPod(t, k, ctx, i, "hostname"); got != fmt.Sprintf("client-%d", i) {
			t.Errorf("hostname in client-%d: %q", i, got)
		}
		if got := portForward(t, n, ctx, fmt.Sprintf("web-%d", i)); got != fmt.Sprintf("web-%d", i) {
			t.Errorf("forwarded port of web-%d answers %q", i, got)
		}
		csr := n.Kubectl(ctx, "", "get", "csr", "-o",
			`jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kubelet-serving")]}{.spec.username} {.status.conditions[0].type}{"\n"}{end}`)
		if !strings.Contains(csr, "system:node:"+name+" Approved") {
			t.Errorf("serving certificates: %q, want one of %s", csr, name)
		}
	}
	args := n.Output(ctx, "cat /etc/kubernetes/manifests/kube-apiserver.yaml")
	if !strings.Contains(args, "--kubelet-certificate-authority=") {
		t.Error("the API server does not verify kubelets")
	}
}

func portForward(t *testing.T, n *Node, ctx context.Context, pod string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.c.Kubectl, "--kubeconfig", n.image.Kubeconfig, "--server", n.server, "port-forward", "pod/"+pod, ":8080")
	cmd.Env = []string{"HOME=" + n.dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // killed
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		m := regexp.MustCompile(`127\.0\.0\.1:(\d+) ->`).FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		dial := func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp4", to.String())
		}
		got, err := retryFetch(ctx, dial, netip.MustParseAddrPort("127.0.0.1:"+m[1]), "/hostname")
		if err != nil {
			t.Fatalf("port-forward to %s: %v", pod, err)
		}
		return got
	}
	t.Fatalf("port-forward to %s: no port", pod)
	return ""
}

// checkNoKeys: the only private keys on a node are its kubelet's, those of
// identities that every node shares, there and in the layer of /etc that they
// were written to, and the one that upstream has in a test image.
func checkNoKeys(t *testing.T, k *Cluster, ctx context.Context) {
	got := k.Node(t, 1).Output(ctx, `grep -rlIsE -e '^-----BEGIN [A-Z ]*PRIVATE KEY-----$|^ *client-key-data: ' /etc /run /root /var/lib/kubelet /var/lib/kscratch /usr/lib/kscratch 2>/dev/null |
		grep -v /var/lib/kubelet/pods/ | sed 's/-20[0-9-]*\.pem$/.pem/' | sort -u`)
	allowed := regexp.MustCompile(`^((/etc|/var/lib/kscratch/etc/[^/]+/upper)/kubernetes/(bootstrap|kube-proxy)\.kubeconfig|` +
		`/var/lib/kubelet/pki/kubelet-(client|server)(-current)?\.pem|/usr/lib/kscratch/docker/overlay2/[^/]+/diff/localhost\.key)$`)
	for _, f := range strings.Fields(got) {
		if !allowed.MatchString(f) {
			t.Errorf("the node holds a private key in %s", f)
		}
	}
	if !strings.Contains(got, "kubelet-server") {
		t.Errorf("the search found %q, not even the kubelet's own", got)
	}
}

// handful is the specs of upstream's suite that take seconds rather than
// minutes without KVM.
var handful = []string{
	"[sig-api-machinery] server version should find the server version [Conformance]",
	"[sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]",
	"[sig-node] ConfigMap should be consumable via environment variable [NodeConformance] [Conformance]",
	"[sig-storage] Secrets should be consumable from pods in volume [NodeConformance] [Conformance]",
	"[sig-network] Services should complete a service status lifecycle [Conformance]",
}

// checkConformance runs upstream's specs: a handful, or with -markdown all that
// fit a cluster without a registry.
func checkConformance(t *testing.T, k *Cluster, ctx context.Context) {
	specs, within := handful, 12*time.Minute
	if *markdown != "" {
		specs, within = conformance.Focus(), *limit
	}
	kubeconfig, err := os.ReadFile(k.image.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	o, err := e2e.Local(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	suite, err := e2e.Suite(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e2e.Install(suite, filepath.Join(dir, "e2e.test")); err != nil {
		t.Fatal(err)
	}
	report, err := conformance.Run(ctx, conformance.Config{
		Suite: filepath.Join(dir, "e2e.test"), Kubectl: config.Kubectl, Kubeconfig: kubeconfig, Server: "https://" + k.Addr(),
		Dir: dir, Specs: specs, Timeout: within, Log: o.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.With(conformance.Passed) {
		t.Logf("%6.1f s passed: %s", r.Took.Seconds(), r.Name)
	}
	for _, r := range report.With(conformance.Failed) {
		t.Errorf("%s: %s", r.Name, r.Reason)
	}
	if *markdown == "" {
		if got := len(report.With(conformance.Passed)); got != len(handful) {
			t.Errorf("%d of %d specs passed", got, len(handful))
		}
		return
	}
	t.Log(report.Summary())
	var b strings.Builder
	if err := report.WriteMarkdown(&b, e2e.Version, fmt.Sprintf("%d nodes", len(k.Members()))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*markdown, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkReboot: machines that restart are the same nodes, with the same pods and
// the same data.
func checkReboot(t *testing.T, k *Cluster, ctx context.Context) {
	master := k.Node(t, 0)
	master.Kubectl(ctx, "", "create", "configmap", "kept", "--from-literal=word=schnitzel")
	pods := func() string {
		return master.Kubectl(ctx, "", "get", "pod", "web-0", "web-1", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.spec.nodeName};{end}")
	}
	before, same := pods(), identify(master, ctx)
	var env, boot []string
	for i := range k.Members() {
		n := k.Node(t, i)
		env, boot = append(env, n.Output(ctx, "cat /run/kscratch/node.env")), append(boot, n.Output(ctx, "cat /proc/sys/kernel/random/boot_id"))
		if r, err := n.Run(ctx, "systemd-run --on-active=2 --timer-property=AccuracySec=100ms systemctl reboot"); err != nil || r.Code != 0 {
			t.Fatalf("rebooting: %v, %s", err, r.Text())
		}
	}
	for i := range k.Members() {
		n := k.Node(t, i)
		n.Eventually(ctx, "test $(cat /proc/sys/kernel/random/boot_id) != "+boot[i]+" && systemctl is-active kubelet.service")
		if got := n.Output(ctx, "cat /run/kscratch/node.env"); got != env[i] {
			t.Errorf("the node was\n%s\nand is\n%s", env[i], got)
		}
		n.Eventually(ctx, fmt.Sprintf("docker ps --format '{{.Names}} {{.Status}}' | grep -E 'k8s_web_web-%d_.* Up '", i))
	}
	k.WaitReady(ctx)
	master.Kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=300s", "pod", "web-0", "web-1", "client-0", "client-1")
	if got := pods(); got != before {
		t.Errorf("the pods were %s and are %s", before, got)
	}
	if got := identify(master, ctx); got != same {
		t.Errorf("the master was %+v and is %+v", same, got)
	}
	for i := range k.Members() {
		checkUnits(t, k.Node(t, i), ctx)
	}
	checkPods(t, k, ctx, true)
}

// checkTaken: a machine with a pod CIDR outside of the cluster's range does not
// start, and neither does one with another node's. One machine shows both: its
// range is put right once, and still not right enough.
func checkTaken(t *testing.T, k *Cluster, ctx context.Context, image Image) {
	cable, err := k.LAN.Plug()
	if err != nil {
		t.Fatal(err)
	}
	d := NewDisk(t, config, image)
	n := Boot(t, config, d, Options{
		Files: map[string]string{
			"/etc/kscratch/pod-cidr": "10.99.0.0/24\n",
			// Three emulated machines on two processors find their devices late.
			"/etc/systemd/system.conf.d/kscratch-test.conf": "[Manager]\nDefaultDeviceTimeoutSec=15min\n",
			// The switch knows two machines; this one brings its address along.
			"/etc/systemd/network/05-test.network": "[Match]\nName=en*\n[Network]\nAddress=192.168.76.50/24\nGateway=192.168.76.1\nDNS=192.168.76.1\n",
		},
		Cable: cable, MAC: "52:54:00:6b:73:50",
	})
	waitConsole(t, n, ctx, waiting+`.*10\.99\.0\.0/24 .*10\.244\.0\.0/16`)
	taken := k.Members()[1]
	n.Output(ctx, "echo "+taken.Pod.String()+" > /etc/kscratch/pod-cidr")
	waitConsole(t, n, ctx, `kscratch: another machine, at `+taken.IP.String()+`, is node node-10-244-2-0 of this cluster and alive\..*The kubelet does not start until then\.`)
	if r, err := n.Run(ctx, "systemctl is-active kubelet.service"); err != nil || r.Code == 0 {
		t.Errorf("the kubelet runs: %v", err)
	}
	k.WaitReady(ctx)
}

// checkFirewall: the cluster's ports are open to the machines' network and to
// pods, and closed to everybody else; others' services stay reachable.
func checkFirewall(t *testing.T, k *Cluster, ctx context.Context) {
	master, node := k.Members()[0].IP, k.Members()[1].IP
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(master, 6443), netip.AddrPortFrom(master, 10250), netip.AddrPortFrom(master, 2379), netip.AddrPortFrom(node, 10250),
	} {
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		if c, err := k.LAN.DialOutside(short, to); err == nil {
			c.Close()
			t.Errorf("%s answers strangers", to)
		}
		cancel()
		if to.Port() == 2379 {
			continue // etcd listens to its own machine
		}
		short, cancel = context.WithTimeout(ctx, 30*time.Second)
		c, err := k.LAN.Dial(short, to)
		if err != nil {
			t.Errorf("%s does not answer the nodes' network: %v", to, err)
		} else {
			c.Close()
		}
		cancel()
	}
	if got, err := retryFetch(ctx, k.LAN.DialOutside, netip.AddrPortFrom(node, 8090), "/hostname"); err != nil || got != "web-1" {
		t.Errorf("a pod's own port answers strangers %q, %v", got, err)
	}
	// Nobody has to say who they are.
	if got := inPod(t, k, ctx, 1, "wget", "-q", "-T", "10", "--no-check-certificate", "-O", "-", "https://kubernetes.default/api/v1/namespaces/kube-system"); !strings.Contains(got, `"kube-system"`) {
		t.Errorf("the API server answers a pod %q", got)
	}
}
