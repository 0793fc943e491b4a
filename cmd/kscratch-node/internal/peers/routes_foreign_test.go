//go:build foreign

package peers

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube/kubetest"
)

// namespace gives the calling thread a network of its own: a card at
// 192.168.76.10/24. The thread is never used for anything else again.
func namespace() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace, as root: %w", err)
	}
	card := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "cable"}
	peer := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable"}}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 168, 76, 10), Mask: net.CIDRMask(24, 32)}}
	return cmp.Or(netlink.LinkAdd(card), netlink.LinkSetUp(card), netlink.LinkSetUp(peer), netlink.AddrAdd(card, addr))
}

// ipRoutes returns what iproute2 says of a protocol's routes in the namespace
// of a thread.
func ipRoutes(t *testing.T, thread int) string {
	t.Helper()
	out, err := exec.Command("nsenter", netOf(thread), "ip", "-4", "route", "show", "proto", strconv.Itoa(Protocol)).CombinedOutput()
	if err != nil {
		t.Fatalf("ip route: %v\n%s", err, out)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(string(out), " \n", "; ")), " ")
}

// TestRun follows nodes that come, change and go, an API server that is away,
// and somebody else who removes a route.
func TestRun(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/kscratch/node.json": `{"role":"master","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0","dockerDataRoot":"/d",
			"cluster":{"kubeconfig":"` + filepath.Join(root, "kubeconfig") + `","publish":true,"peers":true},"health":{"kubelet":"http://127.0.0.1:10248/healthz"}}`,
		"run/kscratch/node.env": "KSCRATCH_NODE_NAME=self\nKSCRATCH_POD_CIDR=10.244.1.0/24\n",
		"etc/machine-id":        "mine\n",
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
	own := node("self", "", 9, "192.168.76.10")
	api.Put("nodes", own)
	api.Put("nodes", node("a", "10.244.2.0/24", 2, "192.168.76.11"))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ready, done := make(chan error), make(chan error, 1)
	var tid int
	go func() {
		err := namespace()
		tid = unix.Gettid()
		ready <- err
		if err != nil {
			return
		}
		done <- Run(ctx, Options{Root: root, Interval: time.Minute})
		<-t.Context().Done() // the namespace lives as long as the thread
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	want := func(what, routes string) {
		t.Helper()
		for range 1000 {
			if ipRoutes(t, tid) == routes {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s: got %q, want %q", what, ipRoutes(t, tid), routes)
	}
	const a, b = "10.244.2.0/24 via 192.168.76.11 dev eth0 metric 2048;", "10.244.3.0/24 via 192.168.76.12 dev eth0 metric 2048;"
	config, err := os.ReadFile(api.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "kubeconfig"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	want("one peer", a)
	for range 1000 {
		if api.Get("nodes", "self", own); own.Spec.PodCIDR != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if own.Spec.PodCIDR != "10.244.1.0/24" || len(own.Spec.PodCIDRs) != 1 {
		t.Errorf("published %q, %q", own.Spec.PodCIDR, own.Spec.PodCIDRs)
	}
	api.Put("nodes", node("b", "10.244.3.0/24", 1, "192.168.76.12"))
	want("two peers", a+" "+b)
	api.Put("nodes", node("b", "10.244.3.0/24", 1, "203.0.113.1")) // behind a router
	want("a peer that is not on the link", a)
	api.Put("nodes", node("b", "10.244.3.0/24", 1, "192.168.76.12"))
	want("it is back", a+" "+b)
	api.Down(true)
	if out, err := exec.Command("nsenter", netOf(tid), "ip", "route", "del", "10.244.2.0/24").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want("removed by somebody while the API server is away", a+" "+b)
	for _, args := range [][]string{
		{"link", "set", "eth0", "down"}, {"link", "set", "eth0", "up"}, // takes all routes along, and says of none
		{"route", "add", "10.244.2.0/24", "via", "192.168.76.99"}, // somebody knows better, and is let be
	} {
		if out, err := exec.Command("nsenter", append([]string{netOf(tid), "ip"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	want("the link was down", a+" "+b)
	api.Delete("nodes", "a")
	api.Down(false)
	want("one has gone", b)
	cancel()
	<-done
	if got := ipRoutes(t, tid); got != b {
		t.Errorf("after the end: %q", got)
	}
}

func netOf(thread int) string {
	return fmt.Sprintf("--net=/proc/%d/task/%d/ns/net", os.Getpid(), thread)
}
