package join

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube/kubetest"
)

// node returns one whose machine has an ID and a UUID of that name.
func node(name, pod, ip, machine string, ready bool) *corev1.Node {
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.NodeSpec{PodCIDR: pod},
	}
	n.Status.NodeInfo.MachineID, n.Status.NodeInfo.SystemUUID = machine, strings.ToUpper(machine)
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
	status := corev1.ConditionUnknown
	if ready {
		status = corev1.ConditionTrue
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	return n
}

func TestConflict(t *testing.T) {
	self := kube.Self{
		Name: "node-10-244-2-0", Pod: netip.MustParsePrefix("10.244.2.0/24"), MachineID: "mine", UUID: "mine",
		Addrs: []netip.Addr{netip.MustParseAddr("192.168.76.11")},
	}
	const cidr, other, ip = "10.244.2.0/24", "10.244.3.0/24", "192.168.76.12"
	for _, tt := range []struct {
		name string
		node *corev1.Node
		want string // empty: no conflict
	}{
		{"rebooted", node(self.Name, cidr, "192.168.76.99", "mine", true), ""},
		{"new disk, same address", node(self.Name, cidr, "192.168.76.11", "older", true), ""},
		{"replaces a silent machine", node(self.Name, cidr, ip, "theirs", false), ""},
		{"name taken", node(self.Name, cidr, ip, "theirs", true), "another machine, at 192.168.76.12, is node node-10-244-2-0"},
		{"other node", node("node-10-244-3-0", other, ip, "theirs", true), ""},
		{"not published yet", node("node-10-244-3-0", "", ip, "theirs", true), ""},
		{"range taken", node("master-10-244-2-0", cidr, ip, "theirs", true), "pod CIDR 10.244.2.0/24 belongs to node master-10-244-2-0 at 192.168.76.12"},
		{"wider range", node("big", "10.244.0.0/20", ip, "theirs", true), "which has 10.244.0.0/20"},
		{"range of a silent node", node("big", "10.244.2.128/25", ip, "theirs", false), "kubectl delete node big"},
		{"own former name", node("old", cidr, "192.168.76.11", "mine", false), ""},
		{"nonsense", node("x", "fd00::/64", ip, "theirs", true), ""},
	} {
		got := conflict(self, tt.node)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	copied := node(self.Name, cidr, ip, "mine", true)
	copied.Status.NodeInfo.SystemUUID = "theirs"
	if got := conflict(self, copied); !strings.Contains(got, "another machine") {
		t.Errorf("a copy of the disk in another machine: %q", got)
	}
	self.Pod = netip.Prefix{} // the cluster gives it
	if got := conflict(self, node("big", cidr, ip, "theirs", true)); got != "" {
		t.Errorf("without a pod CIDR: %s", got)
	}
}

// TestRun goes from an API server that is away over a conflict to its end.
func TestRun(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/kscratch/node.json": `{"role":"node","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0",
			"dockerDataRoot":"/var/lib/docker","cluster":{"kubeconfig":"/k"},"health":{"kubelet":"http://127.0.0.1:10248/healthz"}}`,
		"run/kscratch/node.env": "KSCRATCH_NODE_NAME=node-10-244-2-0\nKSCRATCH_POD_CIDR=10.244.2.0/24\nKSCRATCH_BRIDGE_ADDRESS=10.244.2.1/24\n",
		"etc/machine-id":        "mine\n",
		"dev/console":           "",
	} {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	api := kubetest.New(t)
	api.Down(true)
	api.Put("nodes", node("master-10-244-2-0", "10.244.2.0/24", "203.0.113.9", "theirs", true))
	console := func() string {
		b, err := os.ReadFile(filepath.Join(root, "dev/console"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var log lockedBuffer
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Root: root, Kubeconfig: api.Kubeconfig(), Interval: 10 * time.Millisecond, Repeat: time.Hour,
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
	}()
	waitFor(t, console, "waiting for the API server to join the cluster")
	api.Down(false)
	waitFor(t, console, "pod CIDR 10.244.2.0/24 belongs to node master-10-244-2-0 at 203.0.113.9")
	select {
	case err := <-done:
		t.Fatalf("joined all the same: %v", err)
	default:
	}
	api.Delete("nodes", "master-10-244-2-0")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(console(), "belongs to node"); n != 1 {
		t.Errorf("the conflict was said %d times:\n%s", n, console())
	}
	waitFor(t, log.String, "place in the cluster is free")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func waitFor(t *testing.T, get func() string, want string) {
	t.Helper()
	for range 3000 {
		if strings.Contains(get(), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q did not come; got %q", want, get())
}
