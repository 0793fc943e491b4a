package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// lone is the agent of a member whose peers are not there. It returns the
// directories of the node and of etcd's data, too.
func lone(t *testing.T, address string) (a *agent, dir, data string) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	self := firstboot.EtcdMember{Name: "a", Address: netip.MustParseAddr(address)}
	write(t, filepath.Join(dir, "dev/console"), "")
	return &agent{
		Options: Options{Log: log}, root: root, self: self, config: firstboot.Etcd{Members: []firstboot.EtcdMember{self}},
		disk: onDisk(t, dir), peers: &peers{self: self}, ops: make(chan op), say: &crier.Crier{Root: root, Log: log},
	}, dir, filepath.Join(dir, "var/lib/etcd")
}

// TestLookFinishesRestore: a restore that could not be ended when the operator
// asked for it is ended by the next look, and one that cannot be is an error.
func TestLookFinishesRestore(t *testing.T) {
	r := formation.Record{Members: map[string]string{"a": "nonce of a"}}
	a, dir, data := lone(t, "127.99.2.1")
	if err := a.disk.keep(saved{Held: r.ID(), Restore: &restore{"a", r}}); err != nil {
		t.Fatal(err)
	}
	write(t, data+"/kscratch/aside-1/wal/0.wal", "old")
	write(t, data+"/"+staged(r.ID()), "not a directory")
	write(t, filepath.Join(dir, firstboot.EtcdManifestPath), "a pod")
	if _, err := a.look(t.Context()); err == nil || !strings.Contains(err.Error(), "putting restored data in place") {
		t.Errorf("what cannot be ended: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, firstboot.EtcdManifestPath)); !os.IsNotExist(err) {
		t.Errorf("etcd goes on: %v", err)
	}
	if err := os.Remove(data + "/" + staged(r.ID())); err != nil {
		t.Fatal(err)
	}
	write(t, data+"/"+staged(r.ID())+"/member/wal/0.wal", "new")
	if again, err := a.look(t.Context()); err != nil || !again {
		t.Errorf("what can be ended: %v, %v", again, err)
	}
	if s := a.disk.saved(); s.Held != "" || s.Restore != nil || s.Member.Record.ID() != r.ID() {
		t.Errorf("the state is %+v", s)
	}
	if got := read(t, data+"/member/wal/0.wal"); got != "new" {
		t.Errorf("the data is %s", got)
	}
}

// TestLastWords: what an agent that fails has reported before holds the health
// gate no longer. One that was told to end leaves its report.
func TestLastWords(t *testing.T) {
	a, dir, _ := lone(t, "127.99.2.2")
	wait := firstboot.EtcdReport{Others: true, Message: "etcd: waiting for b"}
	report := filepath.Join(dir, firstboot.EtcdReportPath)
	if err := a.tell(wait); err != nil {
		t.Fatal(err)
	}
	told, end := context.WithCancel(t.Context())
	end()
	if err := a.lastWords(told, told.Err()); err != told.Err() || !strings.Contains(read(t, report), `"others":true`) {
		t.Errorf("told to end: %v, %s", err, read(t, report))
	}
	trouble := errors.Join(errors.New("one"), errors.New("two"))
	if err := a.lastWords(t.Context(), trouble); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
	const want = "etcd: kscratch-node cannot look after this member, and tries again: one; two."
	var got firstboot.EtcdReport
	if err := json.Unmarshal([]byte(read(t, report)), &got); err != nil || got != (firstboot.EtcdReport{Message: want}) {
		t.Errorf("reported %+v, %v", got, err)
	}
	if got := read(t, filepath.Join(dir, "dev/console")); !strings.HasSuffix(got, "kscratch: "+want+"\n") {
		t.Errorf("on the console: %s", got)
	}
}

// TestRunFails: the report of a look before does not outlive a start that fails.
func TestRunFails(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, firstboot.EtcdReportPath), `{"others":true,"message":"etcd: waiting for b"}`)
	write(t, filepath.Join(dir, "var/lib/etcd/"+stateFile), "{")
	self := firstboot.EtcdMember{Name: "a", Address: netip.MustParseAddr("192.0.2.1")}
	config, err := json.Marshal(firstboot.Config{
		Role: "master", ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"),
		Bridge: "br0", DockerDataRoot: "/var/lib/docker", Health: firstboot.Health{Kubelet: "http://127.0.0.1:10248/healthz"},
		Cluster: firstboot.Cluster{Kubeconfig: "/etc/kubernetes/kubelet.conf"},
		Etcd:    &firstboot.Etcd{DataDir: "/var/lib/etcd", PKI: "/etc/kubernetes/pki/etcd", Members: []firstboot.EtcdMember{self}},
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, firstboot.ConfigPath), string(config))
	err = Run(t.Context(), Options{Root: dir, Addresses: func() ([]netip.Addr, error) { return []netip.Addr{self.Address}, nil }})
	if err == nil || !strings.Contains(err.Error(), "reading the state of this member") {
		t.Errorf("got %v", err)
	}
	if got := read(t, filepath.Join(dir, firstboot.EtcdReportPath)); strings.Contains(got, "others") || !strings.Contains(got, "reading the state") {
		t.Errorf("reported %s", got)
	}
}

// TestClaim: before a disk takes the place of a member that was replaced, the
// pod of the one before has stopped, and data without a log is out of the way.
func TestClaim(t *testing.T) {
	a, dir, data := lone(t, "127.99.2.3")
	manifest := filepath.Join(dir, firstboot.EtcdManifestPath)
	write(t, manifest, "a pod")
	write(t, data+"/member/snap/db", "old")
	l, err := net.Listen("tcp", netip.AddrPortFrom(a.self.Address, memberapi.PeerPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	verdict := formation.Verdict{Kind: formation.Claim}
	if again, err := a.act(t.Context(), formation.View{}, verdict); again || err != nil || !strings.Contains(a.report.Message, "waiting for its etcd to stop") {
		t.Errorf("while etcd listens: %v, %v, %s", again, err, a.report.Message)
	}
	if _, err := os.Stat(manifest); !os.IsNotExist(err) {
		t.Errorf("the pod is still there: %v", err)
	}
	if got := read(t, data+"/member/snap/db"); got != "old" {
		t.Errorf("data is moved below etcd that runs: %s", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again, err := a.act(t.Context(), formation.View{}, verdict); again || err != nil || !strings.Contains(a.report.Message, "nobody to ask") {
			t.Errorf("when it has stopped: %v, %v, %s", again, err, a.report.Message)
		}
	}
	if got := read(t, data+"/kscratch/aside-1/snap/db"); got != "old" {
		t.Errorf("aside is %s", got)
	}
	if found, _ := filepath.Glob(data + "/*"); len(found) != 1 {
		t.Errorf("in the way: %v", found)
	}
	write(t, data+"/member/wal/0.wal", "")
	if again, err := a.act(t.Context(), formation.View{}, verdict); !again || err != nil {
		t.Errorf("with a log: %v, %v", again, err)
	}
	if data, err := a.disk.hasData(); !data || err != nil {
		t.Errorf("a log is moved: %v", err)
	}
}
