package boot

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
	"github.com/kscratch/kscratch/builder/vm/cluster"
)

// ClusterOptions are the inputs of a cluster. The zero value is one master and
// one node with pod CIDRs of their own.
type ClusterOptions struct {
	Machines  int  // 2
	NoPodCIDR bool // the cluster gives nodes their pod CIDRs
	AtOnce    bool // nodes are powered on with the master
}

// Cluster is a running cluster of test machines.
type Cluster struct {
	*cluster.Cluster

	t     testing.TB
	c     Config
	image Image
	dir   string
	boots map[string]*machine // by name, the last boot of each
	count int                 // of boots
}

// machine is one boot of a machine.
type machine struct {
	dir   string
	deny  *vm.Denylist
	shell *shell
}

// StartCluster powers a cluster on. When the test ends, so does the cluster,
// and no console may have broken a rule of the denylist.
func StartCluster(t testing.TB, c Config, master, node Image, o ClusterOptions) *Cluster {
	t.Helper()
	config, err := os.ReadFile(master.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	k := &Cluster{t: t, c: c, image: master, dir: filepath.Join(c.Dir, t.Name()), boots: map[string]*machine{}}
	// A run that was killed has left its machines, and their disks would be kept.
	if err := os.RemoveAll(k.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("consoles and journals: %s", k.dir)
			return
		}
		os.RemoveAll(k.dir)
	})
	k.Cluster, err = cluster.Start(context.Background(), cluster.Config{
		Name: "kscratch", Dir: k.dir, Clock: time.Now, Master: master.Raw, Node: node.Raw, Machines: o.Machines,
		Kubeconfig: config, Endpoint: "127.0.0.1:6443", ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), NoPodCIDR: o.NoPodCIDR, AtOnce: o.AtOnce,
		Accel: c.Accel, Memory: c.Memory, CPUs: c.CPUs, DiskSize: diskSize, Edit: k.edit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.end)
	return k
}

// edit gives a machine the test's shell and keeps what its console says.
func (k *Cluster) edit(name string, m *vm.Machine) {
	b := &machine{dir: filepath.Join(k.dir, fmt.Sprintf("%s-%d", name, k.count))}
	k.count++
	var err error
	fail := func(e error) {
		if e != nil {
			k.t.Error(e)
		}
	}
	fail(os.MkdirAll(b.dir, 0o755))
	b.deny, err = vm.NewDenylist(vm.Rules(), nil)
	fail(err)
	m.Ignition = filepath.Join(b.dir, "user.ign")
	config, err := ignitionConfig(nil)
	fail(err)
	fail(os.WriteFile(m.Ignition, config, 0o600))
	transcript, err := os.Create(filepath.Join(b.dir, "console.log"))
	fail(err)
	k.t.Cleanup(func() { transcript.Close() })
	if name != "master" {
		// Emulated processors that outnumber real ones wait for each other's locks.
		m.CPUs = 1
	}
	m.Transcript, m.Ports, m.Unsafe = transcript, []string{shellPort}, true
	k.boots[name] = b
}

// Node returns the i-th machine, the master being 0, once the cluster is Ready.
func (k *Cluster) Node(t testing.TB, i int) *Node {
	m := k.Members()[i]
	b := k.boots[m.Name]
	v := k.VM(m)
	if b.shell == nil {
		b.shell = newShell(v.Port(shellPort))
	}
	return &Node{
		VM: v, API: k.API(), t: t, c: k.c, image: k.image, server: "https://" + k.Addr(), dir: b.dir, shell: b.shell, deny: b.deny,
	}
}

// WaitReady waits until every machine is a Ready node.
func (k *Cluster) WaitReady(ctx context.Context) {
	k.t.Helper()
	if err := k.Cluster.WaitReady(ctx); err != nil {
		k.t.Fatal(err)
	}
}

// end judges all boots and switches the machines off.
func (k *Cluster) end() {
	for i, m := range k.Members() {
		v := k.VM(m)
		if v == nil {
			continue
		}
		n := k.Node(k.t, i)
		for _, f := range n.deny.ScanAll(v.Console().Lines()) {
			k.t.Errorf("console of %s: %s", m.Name, f)
		}
		if k.t.Failed() && n.running() {
			n.keepJournal()
		}
	}
	if err := k.Close(); err != nil {
		k.t.Errorf("switching the machines off: %v", err)
	}
}

// dialer opens a TCP connection to a machine.
type dialer func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// fetch does an HTTP GET over TCP connections of dial's and returns the body.
func fetch(ctx context.Context, dial dialer, to netip.AddrPort, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := dial(ctx, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, to); err != nil {
		return "", err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(c); err != nil {
		return "", err
	}
	head, body, ok := bytes.Cut(b.Bytes(), []byte("\r\n\r\n"))
	if !ok || !bytes.Contains(head, []byte(" 200 ")) {
		return "", fmt.Errorf("%s%s answers %q", to, path, b.String())
	}
	return string(body), nil
}
