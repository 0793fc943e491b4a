//go:build boot && cluster

package boot

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// etcdYAML is a cluster file of three masters at the addresses that package
// cluster gives its machines.
const etcdYAML = `etcd:
  members:
  - {name: a, address: 192.168.76.10}
  - {name: b, address: 192.168.76.11}
  - {name: c, address: 192.168.76.12}
disk: {kernelArgs: [mitigations=off]}
`

// etcdTime is for three masters that share two cores without KVM.
const etcdTime = 90 * time.Minute

// TestEtcd is three masters of one image: their etcd becomes one cluster
// without a command, bears the loss of a machine, takes it back, and refuses a
// disk that it does not know until an operator says so.
func TestEtcd(t *testing.T) {
	ctx := within(t, etcdTime)
	dir := filepath.Join(config.Dir, "..", t.Name())
	file := filepath.Join(dir, "cluster.yaml")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(etcdYAML), 0o644); err != nil {
		t.Fatal(err)
	}
	master, err := Build(t.Context(), *program, dir, "master", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	k := StartCluster(t, config, master, master, ClusterOptions{Machines: 3, AtOnce: true})
	k.WaitReady(ctx)
	t.Logf("three masters Ready %.0f s after power-on", k.Elapsed().Seconds())
	for i := range k.Members() {
		k.Node(t, i).Eventually(ctx, etcdReady)
		k.Node(t, i).Eventually(ctx, "systemctl is-active boot-complete.target")
	}
	first := k.Node(t, 0)
	if got := first.Output(ctx, leaders); !strings.Contains(got, "kube-controller-manager") || !strings.Contains(got, "kube-scheduler") {
		t.Errorf("leases: %q: nobody leads", got)
	}

	lost := k.Members()[2]
	off(t, k, 2)
	first.Kubectl(ctx, "", "create", "configmap", "while-one-is-off", "--from-literal=a=b")

	back(t, k, ctx, 2)
	k.Node(t, 2).Eventually(ctx, etcdReady)

	off(t, k, 2)
	for _, f := range []string{"disk.qcow2", "vars.fd"} {
		if err := os.Remove(filepath.Join(k.dir, lost.Name, f)); err != nil {
			t.Fatal(err)
		}
	}
	back(t, k, ctx, 2)
	n := k.Node(t, 2)
	waitConsole(t, n, ctx, `kscratch: etcd: member c refuses to start: the cluster exists, and this disk holds nothing of it`)
	if r, err := n.Run(ctx, "ls /var/lib/etcd/member"); err != nil || r.Code == 0 {
		t.Errorf("a disk without a past has data of etcd's: %v", err)
	}
	first.Kubectl(ctx, "", "create", "configmap", "while-one-is-refused", "--from-literal=a=b")
	replaceMember(t, k, ctx, file, "c")
	n.Eventually(ctx, etcdReady)
	k.WaitReady(ctx)
	n.Eventually(ctx, "kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig get configmap while-one-is-refused while-one-is-off")
}

// What is asked in a master's shell.
const (
	etcdReady = `grep '"ready":true' /run/kscratch/etcd.json`
	leaders   = "kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig -n kube-system get lease -o name"
)

// off pulls a machine's plug, when it has written everything out: QEMU runs
// without the host's own flushes here.
func off(t *testing.T, k *Cluster, i int) {
	t.Helper()
	k.Node(t, i).Cut(t.Context())
}

// back powers a machine on again.
func back(t *testing.T, k *Cluster, ctx context.Context, i int) {
	t.Helper()
	if err := k.PowerOn(ctx, k.Members()[i]); err != nil {
		t.Fatal(err)
	}
}

// replaceMember does what the console says, from outside of the cluster.
func replaceMember(t *testing.T, k *Cluster, ctx context.Context, file, name string) {
	t.Helper()
	var endpoints []string
	for _, m := range k.Members() {
		e, err := k.LAN.Forward(0, netip.AddrPortFrom(m.IP, 2379))
		if err != nil {
			t.Fatal(err)
		}
		endpoints = append(endpoints, e)
	}
	cmd := exec.CommandContext(ctx, *program, "--file", file, "etcd", "replace-member", name, "--endpoints", strings.Join(endpoints, ","))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("replacing %s: %w: %s", name, err, out))
	}
}
