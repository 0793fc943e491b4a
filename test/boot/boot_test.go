//go:build boot

package boot

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
)

var (
	program = flag.String("kscratch", "../../bin/kscratch", "program that builds the image")
	work    = flag.String("dir", "", "directory for the image, disks and artifacts; default: a temporary one")
	raw     = flag.String("image", "", "boot this raw image instead of building one; needs -kubeconfig")
	admin   = flag.String("kubeconfig", "", "administrator's kubeconfig of the cluster that -image belongs to")
	kubectl = flag.String("kubectl", "", "kubectl of the host; default: the one in the image")
	accel   = flag.String("accel", "", "kvm or tcg; default: kvm where it works")
	cpus    = flag.Int("cpus", 2, "CPUs of each machine")
	memory  = flag.Int("memory", 3072, "memory of each machine in MiB")
)

// config is set once by TestMain.
var config Config

// Bounds, generous for a slow host without KVM.
const (
	shortTime = 10 * time.Minute // to the pod CIDR
	longTime  = 15 * time.Minute // to Ready
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "boot test:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir := *work
	if dir == "" {
		if dir, err = os.MkdirTemp("", "kscratch-boot-"); err != nil {
			return 1, err
		}
		// Kept after a failure: it holds the consoles.
		defer func() {
			if code == 0 && err == nil {
				err = os.RemoveAll(dir)
			}
		}()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return 1, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 1, err
	}
	im := Image{Raw: *raw, Kubeconfig: *admin}
	if im.Raw == "" {
		start := time.Now()
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		if im, err = Build(context.Background(), *program, dir, "master", log); err != nil {
			return 1, err
		}
		log.Info("image built", "seconds", int(time.Since(start).Seconds()))
	} else if im.Kubeconfig == "" {
		return 1, errors.New("-image needs -kubeconfig")
	}
	config = Config{Image: im, Kubectl: *kubectl, Dir: filepath.Join(dir, "boots"), Accel: vm.Accel(*accel), CPUs: *cpus, Memory: *memory}
	if config.Kubectl == "" {
		config.Kubectl = filepath.Join(dir, "kubectl")
		if err := im.Extract("usr/bin/kubectl", config.Kubectl); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestNode has the two boots to Ready, TestFirstBootInput the short ones. They
// run one after the other: two machines at once on two cores without KVM make
// the API server slower than its own start-up hooks allow.

func TestNode(t *testing.T) {
	const cidr = "10.244.1.0/24"
	d := NewDisk(t, config, config.Image)
	var first identity
	t.Run("first boot", func(t *testing.T) {
		ctx := within(t, longTime)
		n := Boot(t, config, d, Options{PodCIDR: cidr})
		ready := n.WaitReady(ctx)
		report(t, n, ctx, ready)
		t.Run("node", func(t *testing.T) { checkNode(t, n.In(t), ctx, ready.Node, cidr) })
		t.Run("static pods", func(t *testing.T) { checkStaticPods(t, n.In(t), ctx, ready.Name) })
		t.Run("docker", func(t *testing.T) { checkDocker(t, n.In(t), ctx) })
		t.Run("read-only", func(t *testing.T) { checkReadOnly(t, n.In(t), ctx) })
		t.Run("slots", func(t *testing.T) { checkSlots(t, n.In(t), ctx) })
		t.Run("pod", func(t *testing.T) { checkPod(t, n.In(t), ctx, cidr) })
		t.Run("units", func(t *testing.T) { checkUnits(t, n.In(t), ctx) })
		n.Kubectl(ctx, "", "create", "configmap", "kept", "--from-literal=word=schnitzel")
		first = identify(n, ctx)
		n.Shutdown(ctx)
	})
	t.Run("second boot", func(t *testing.T) {
		if first.ConfigMap == "" {
			t.Fatal("there was no first boot")
		}
		ctx := within(t, longTime)
		n := Boot(t, config, d, Options{})
		ready := n.WaitReady(ctx)
		report(t, n, ctx, ready)
		checkNode(t, n, ctx, ready.Node, cidr)
		if got := identify(n, ctx); got != first {
			t.Errorf("after the second boot: got %+v, want %+v", got, first)
		}
		checkStaticPods(t, n, ctx, ready.Name)
		checkUnits(t, n, ctx)
		n.Shutdown(ctx)
	})
}

func report(t *testing.T, n *Node, ctx context.Context, r vm.Ready) {
	t.Helper()
	ss, err := n.Stages(ctx, r)
	if err != nil {
		t.Error(err)
	}
	t.Logf("kvm=%v, seconds since power-on:\n%s", n.VM.KVM(), Table(ss))
	t.Log(n.Output(ctx, "systemd-analyze time; systemd-analyze blame --no-pager | head -n 12"))
}

// identity is what must outlive a reboot.
type identity struct{ ConfigMap, NodeUID, MachineID, NodeEnv string }

func identify(n *Node, ctx context.Context) identity {
	return identity{
		ConfigMap: n.Kubectl(ctx, "", "get", "configmap", "kept", "-o", "jsonpath={.metadata.uid} {.data.word}"),
		NodeUID:   n.Kubectl(ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}"),
		MachineID: n.Output(ctx, "cat /etc/machine-id"),
		NodeEnv:   n.Output(ctx, "cat /run/kscratch/node.env"),
	}
}

func checkNode(t *testing.T, n *Node, ctx context.Context, r vm.Node, cidr string) {
	if want := "master-" + strings.ReplaceAll(strings.TrimSuffix(cidr, "/24"), ".", "-"); r.Name != want {
		t.Errorf("node is named %q, want %q", r.Name, want)
	}
	b, err := n.API.Get(ctx, "/readyz")
	if err != nil || string(b) != "ok" {
		t.Errorf("/readyz says %q, %v", b, err)
	}
	if !strings.HasPrefix(r.Runtime, "docker://") {
		t.Errorf("container runtime is %q, want docker", r.Runtime)
	}
	checkBridge(t, n, ctx, cidr)
}

// checkBridge: cbr0 holds the first address of the range, and that alone.
func checkBridge(t *testing.T, n *Node, ctx context.Context, cidr string) {
	t.Helper()
	p := netip.MustParsePrefix(cidr)
	want := fmt.Sprintf("cbr0 UP 1460 %v", netip.PrefixFrom(p.Addr().Next(), p.Bits()))
	got := n.Output(ctx, `ip -json -4 addr show cbr0`)
	var links []struct {
		Name  string   `json:"ifname"`
		MTU   int      `json:"mtu"`
		Flags []string `json:"flags"`
		Addrs []struct {
			Local string `json:"local"`
			Bits  int    `json:"prefixlen"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(got), &links); err != nil || len(links) != 1 {
		t.Fatalf("ip says %q, %v", got, err)
	}
	l, state := links[0], "DOWN"
	if slices.Contains(l.Flags, "UP") {
		state = "UP"
	}
	has := fmt.Sprintf("%s %s %d", l.Name, state, l.MTU)
	for _, a := range l.Addrs {
		has += fmt.Sprintf(" %s/%d", a.Local, a.Bits)
	}
	if has != want {
		t.Errorf("bridge is %q, want %q", has, want)
	}
}

func checkStaticPods(t *testing.T, n *Node, ctx context.Context, node string) {
	t.Helper()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		pod := "pod/" + name + "-" + node
		// The kubelet shows them to the API server some time after the node.
		n.Kubectl(ctx, "", "-n", "kube-system", "wait", "--for=create", "--timeout=180s", pod)
		n.Kubectl(ctx, "", "-n", "kube-system", "wait", "--for=condition=Ready", "--timeout=180s", pod)
		got := n.Kubectl(ctx, "", "-n", "kube-system", "get", pod, "-o",
			`jsonpath={.status.phase} {.metadata.annotations.kubernetes\.io/config\.source} {.spec.nodeName}`)
		if want := "Running file " + node; got != want {
			t.Errorf("%s is %q, want %q", pod, got, want)
		}
	}
}

// checkDocker: docker as the spec has it, and nothing of docker's own network.
func checkDocker(t *testing.T, n *Node, ctx context.Context) {
	var conf map[string]any
	if err := json.Unmarshal([]byte(n.Output(ctx, "cat /etc/docker/daemon.json")), &conf); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"bridge": "cbr0", "iptables": false, "ip-masq": false, "mtu": 1460.0, "data-root": "/var/lib/docker",
		"insecure-registries": []any{}, "exec-opts": []any{"native.cgroupdriver=systemd"},
	} {
		if fmt.Sprint(conf[key]) != fmt.Sprint(want) {
			t.Errorf("daemon.json: %s is %v, want %v", key, conf[key], want)
		}
	}
	outputs(t, n, ctx, map[string]string{
		"docker info -f '{{.CgroupDriver}} {{.Driver}} {{.DockerRootDir}}'":        "systemd overlay2 /var/lib/docker",
		"systemctl show -P LimitNOFILE docker.service":                             "1000000",
		"systemctl show -P LimitNOFILE containerd.service":                         "1000000",
		"docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}'":    "10.244.1.1",
		"docker image inspect -f '{{.Architecture}}' registry.k8s.io/pause:3.10.1": "amd64",
	})
	if links := n.Output(ctx, "ip -o link show"); strings.Contains(links, "docker0") {
		t.Errorf("there is a docker0:\n%s", links)
	}
	nat := n.Output(ctx, "iptables-save -t nat")
	if !strings.Contains(nat, "KUBE-SERVICES") {
		t.Errorf("kube-proxy has no rules:\n%s", nat)
	}
	if all := nat + n.Output(ctx, "iptables-save; nft list ruleset"); strings.Contains(strings.ToLower(all), "docker") {
		t.Errorf("docker has rules in the packet filter:\n%s", all)
	}
}

// outputs compares what scripts write with what they should.
func outputs(t *testing.T, n *Node, ctx context.Context, want map[string]string) {
	t.Helper()
	for _, script := range slices.Sorted(maps.Keys(want)) {
		if got := n.Output(ctx, script); got != want[script] {
			t.Errorf("%s: got %q, want %q", script, got, want[script])
		}
	}
}

// checkReadOnly: the root is EROFS on dm-verity, and stays as it is.
func checkReadOnly(t *testing.T, n *Node, ctx context.Context) {
	for _, script := range []string{
		"touch /usr/bin/x", "touch /x", "rm -f /usr/bin/bash", "echo >> /usr/lib/os-release",
		"mount -o remount,rw / && touch /usr/bin/x",
	} {
		r, err := n.Run(ctx, script)
		if err != nil {
			t.Fatal(err)
		}
		if r.Code == 0 || !regexp.MustCompile(`(?i)read-only|write-protected`).MatchString(r.Text()) {
			t.Errorf("%s: exit status %d: %s", script, r.Code, r.Text())
		}
	}
	outputs(t, n, ctx, map[string]string{
		"findmnt -n -o FSTYPE,SOURCE / | tr -s ' '":                       "erofs /dev/mapper/root",
		"dmsetup table root | cut -d' ' -f3":                              "verity",
		"dmsetup status root | cut -d' ' -f4":                             "V",
		"touch /etc/x /var/x && rm /etc/x /var/x && echo changed":         "changed",
		"findmnt -n -o FSTYPE /var":                                       "ext4",
		"findmnt -n -o FSTYPE /etc":                                       "overlay",
		"blkid -s PARTLABEL -o value $(findmnt -n -o SOURCE /var)":        "kscratch-state",
		"test $(df --output=avail -BG /var | tail -1 | tr -d ' G') -ge 5": "",
	})
}

// checkSlots: the image's root has grown to its slot, as large as the empty one.
func checkSlots(t *testing.T, n *Node, ctx context.Context) {
	outputs(t, n, ctx, map[string]string{
		"lsblk -lbno SIZE,PARTTYPE | awk '$2==\"4f68bce3-e8cd-4db1-96e7-fbcaf984b709\"{print $1}' | sort | uniq -c | tr -s ' '": "2 2147483648",
	})
}

const podYAML = `apiVersion: v1
kind: Pod
metadata: {name: addressed}
spec:
  automountServiceAccountToken: false
  containers:
  - {name: pause, image: "registry.k8s.io/pause:3.10.1", imagePullPolicy: Never}
`

// checkPod: a pod gets an address of the node's range, on cbr0.
func checkPod(t *testing.T, n *Node, ctx context.Context, cidr string) {
	n.Eventually(ctx, "kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig get serviceaccount default")
	n.Kubectl(ctx, podYAML, "apply", "-f", "-")
	n.Kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=180s", "pod/addressed")
	got := n.Kubectl(ctx, "", "get", "pod", "addressed", "-o", "jsonpath={.status.podIP}")
	p, bridge := netip.MustParsePrefix(cidr), netip.MustParsePrefix(cidr).Addr().Next()
	ip, err := netip.ParseAddr(got)
	if err != nil || !p.Contains(ip) || ip == bridge || ip == p.Addr() {
		t.Errorf("the pod has the address %q, want one of %s other than the bridge's", got, cidr)
	}
	if r := n.Output(ctx, "ip -o route get "+got); !strings.Contains(r, "dev cbr0") {
		t.Errorf("the way to the pod is %q, want cbr0", r)
	}
}

func checkUnits(t *testing.T, n *Node, ctx context.Context) {
	t.Helper()
	// Starting may still be under way: what is slow may finish, not fail.
	n.Eventually(ctx, "state=$(systemctl is-system-running); [[ $state = running || $state = degraded ]]")
	if failed := n.Output(ctx, "systemctl --failed --no-legend --plain"); failed != "" {
		t.Errorf("failed units:\n%s", failed)
	}
}

// waiting is what a node without a valid pod CIDR says on its console.
const waiting = `waiting for this node's pod CIDR: `

func TestFirstBootInput(t *testing.T) {
	t.Run("none", testNone)
	t.Run("carriers", testCarriers)
	t.Run("damage", testDamage)
}

// gated are the units that wait for the pod CIDR.
var gated = []string{"docker.service", "cri-docker.service", "kubelet.service", "kube-proxy.service"}

// testNone: a node that was given nothing says so and starts nothing; given
// a range later, it goes on. A malformed range is the same, with the reason.
func testNone(t *testing.T) {
	d := NewDisk(t, config, config.Image)
	t.Run("given later", func(t *testing.T) {
		ctx := within(t, shortTime)
		n := Boot(t, config, d, Options{})
		waitConsole(t, n, ctx, waiting+`none was given\. .*kscratch\.pod-cidr.*kscratch\.pod_cidr=`)
		checkNothingStarted(t, n, ctx)
		n.Output(ctx, "echo 10.244.7.0/24 > /etc/kscratch/pod-cidr")
		checkCIDR(t, n, ctx, "10.244.7.0/24")
		for _, u := range []string{"docker.service", "cri-docker.service"} {
			n.Eventually(ctx, "systemctl is-active "+u)
		}
		n.Cut(ctx)
	})
	t.Run("malformed", func(t *testing.T) {
		ctx := within(t, shortTime)
		n := Boot(t, config, d, Options{KernelArgs: "kscratch.pod_cidr=10.244.7.5/24"})
		waitConsole(t, n, ctx, waiting+`bad value in kernel argument kscratch\.pod_cidr=: "10\.244\.7\.5/24" has host bits set: write the network address, 10\.244\.7\.0/24`)
		checkNothingStarted(t, n, ctx)
	})
}

func waitConsole(t *testing.T, n *Node, ctx context.Context, pattern string) {
	t.Helper()
	if _, err := n.VM.Console().WaitFor(ctx, regexp.MustCompile(pattern)); err != nil {
		t.Fatal(err)
	}
}

func checkNothingStarted(t *testing.T, n *Node, ctx context.Context) {
	t.Helper()
	n.Eventually(ctx, "systemctl is-active basic.target") // what may start has
	for _, u := range gated {
		if id := n.Output(ctx, "systemctl show -P InvocationID "+u); id != "" {
			t.Errorf("%s was started without a pod CIDR: %s", u, n.Output(ctx, "systemctl status --no-pager "+u+" || true"))
		}
	}
	if r, err := n.Run(ctx, "cat /run/kscratch/node.env"); err != nil || r.Code == 0 {
		t.Errorf("without a pod CIDR there is a node.env: %s, %v", r.Text(), err)
	}
	if r, err := n.Run(ctx, "ip -4 -o addr show cbr0"); err != nil || r.Stdout != "" {
		t.Errorf("without a pod CIDR the bridge has an address: %s, %v", r.Text(), err)
	}
}

// checkCIDR waits until the node has a range, which must be the one given.
func checkCIDR(t *testing.T, n *Node, ctx context.Context, want string) {
	t.Helper()
	got := n.Eventually(ctx, "cat /run/kscratch/node.env")
	if !slices.Contains(strings.Split(got, "\n"), "KSCRATCH_POD_CIDR="+want) {
		t.Errorf("the node has the environment\n%s\nwant the pod CIDR %s", got, want)
	}
	checkBridge(t, n, ctx, want)
}

// testCarriers gives a range by one carrier after the other. Each wins over
// the ones before it, which are on the disk by then.
func testCarriers(t *testing.T) {
	d := NewDisk(t, config, config.Image)
	for _, tc := range []struct {
		carrier, cidr string
		o             Options
	}{
		{"Ignition", "10.244.2.0/24", Options{Files: map[string]string{"/etc/kscratch/pod-cidr": "10.244.2.0/24\n"}}},
		{"kernel argument", "10.244.3.0/24", Options{KernelArgs: "kscratch.pod_cidr=10.244.3.0/24"}},
		{"fw_cfg credential", "10.244.4.0/24", Options{FwCfg: map[string]string{"opt/io.systemd.credentials/kscratch.pod-cidr": "10.244.4.0/24"}}},
	} {
		t.Run(tc.carrier, func(t *testing.T) {
			ctx := within(t, shortTime)
			n := Boot(t, config, d, tc.o)
			checkCIDR(t, n, ctx, tc.cidr)
			n.Cut(ctx)
		})
	}
}

// testDamage: a range in a file on the ESP of the image is used; then a bit of
// the root flips under the running node, and verity refuses the block.
func testDamage(t *testing.T) {
	ctx := within(t, shortTime)
	d := NewDisk(t, config, config.Image)
	im, err := config.Image.Copy(filepath.Join(d.dir, "copy.raw"))
	if err != nil {
		t.Fatal(err)
	}
	cred := filepath.Join(d.dir, "kscratch.pod-cidr.cred")
	if err := os.WriteFile(cred, []byte("10.244.5.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := im.AddToESP(ctx, cred, "/loader/credentials/kscratch.pod-cidr.cred"); err != nil {
		t.Fatal(err)
	}
	d.image = im
	n := Boot(t, config, d, Options{Allow: []vm.Allowed{
		{Pattern: `device-mapper: verity: .* is corrupted`, Why: "the test damages the root"},
		{Pattern: `I/O error.* dm-\d`, Why: "the test damages the root"},
	}})
	t.Run("ESP credential", func(t *testing.T) { checkCIDR(t, n.In(t), ctx, "10.244.5.0/24") })
	t.Run("verity", func(t *testing.T) { checkVerity(t, n.In(t), ctx, im) })
}

func checkVerity(t *testing.T, n *Node, ctx context.Context, im Image) {
	offset, block, size, err := im.middleOfRoot()
	if err != nil {
		t.Fatal(err)
	}
	read := func(b int64) (Result, error) {
		return n.Run(ctx, fmt.Sprintf("sync; echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/mapper/root bs=%d skip=%d count=1 iflag=direct of=/dev/null", size, b))
	}
	if r, err := read(block); err != nil || r.Code != 0 {
		t.Fatalf("reading the block before it is damaged: %s, %v", r.Text(), err)
	}
	if err := im.Flip(offset); err != nil {
		t.Fatal(err)
	}
	if r, err := read(block); err != nil || r.Code == 0 || !strings.Contains(r.Text(), "Input/output error") {
		t.Errorf("reading the damaged block: exit status %d: %s, %v", r.Code, r.Text(), err)
	}
	waitConsole(t, n, ctx, fmt.Sprintf(`device-mapper: verity: .*data block %d is corrupted`, block*size/4096))
	if r, err := read(block + 8); err != nil || r.Code != 0 {
		t.Errorf("reading another block: %s, %v", r.Text(), err)
	}
}
