package etcd

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/formation"
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
