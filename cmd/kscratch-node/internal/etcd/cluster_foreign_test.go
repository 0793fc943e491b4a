//go:build foreign && net

package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/etcdadmin"
	"github.com/kscratch/kscratch/layers/gomod"
)

// TestCluster is the life of three members, by real etcd: they form a cluster,
// lose one, lose a disk, are replaced, restart, and go back to a snapshot.
func TestCluster(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	a, b, c := w.masters["a"], w.masters["b"], w.masters["c"]

	t.Log("two of three form nothing")
	a.boot()
	b.boot()
	a.consoleSays("etcd: waiting for c (192.0.2.3) to form the cluster.")
	b.consoleSays("etcd: waiting for c (192.0.2.3) to form the cluster.")
	if a.listens() || b.listens() {
		t.Fatal("etcd runs before all have been heard")
	}
	c.boot()
	w.allAnswer()
	first := w.clusterID()
	w.sameRecord()

	t.Log("one is killed, and comes back")
	w.put("one", "1")
	c.kill()
	w.put("two", "2")
	c.boot()
	c.answers()
	w.has("one", "1")
	w.has("two", "2")

	t.Log("a disk is lost")
	b.kill()
	b.loseDisk()
	b.boot()
	const lost = "etcd: member b refuses to start: the cluster exists, and this disk holds nothing of it: it is new, or its data was lost. On the operator's machine run: kscratch etcd replace-member b."
	b.consoleSays(lost)
	w.put("three", "3")
	b.kill()
	b.boot()
	b.consoleSays(lost)
	if b.listens() {
		t.Fatal("a lost disk votes")
	}

	t.Log("it is replaced")
	w.refuses("a", true, "the cluster needs 2")
	w.refuses("a", false, "it runs")
	w.refuses("z", false, "there is no member \"z\" in the cluster file; it has a, b, c")
	w.replace("b", false)
	b.answers()
	w.has("three", "3")
	b.kill()
	b.boot()
	b.answers()

	t.Log("a log is lost, and the rest of the data is not")
	b.kill()
	if err := os.RemoveAll(b.path("var/lib/etcd/member/wal")); err != nil {
		t.Fatal(err)
	}
	b.boot()
	b.consoleSays(lost)
	w.replace("b", false)
	b.answers()
	w.has("three", "3")
	if _, err := os.Stat(b.path("var/lib/etcd/kscratch/aside-1/snap/db")); err != nil {
		t.Error(err)
	}

	t.Log("one that runs is replaced, and keeps its data aside")
	w.refuses("c", false, "it runs")
	w.replace("c", true)
	c.eventually("data aside", func() error { _, err := os.Stat(c.path("var/lib/etcd/kscratch/aside-1/wal")); return err })
	c.answers()
	w.has("three", "3")

	t.Log("all are killed")
	for _, m := range w.masters {
		m.kill()
	}
	for _, m := range w.masters {
		m.boot()
	}
	w.allAnswer()
	if id := w.clusterID(); id != first {
		t.Fatalf("cluster %x has become %x", first, id)
	}
	w.sameRecord()

	t.Log("snapshot and restore")
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	w.snapshot(snapshot)
	w.put("four", "4")
	old := c.path("var/lib/etcd")
	w.restore(snapshot)
	w.allAnswer()
	w.has("three", "3")
	w.has("four", "")
	second := w.clusterID()
	if second == first {
		t.Error("the restored cluster has the old one's ID")
	}
	for _, m := range w.masters {
		if found, _ := filepath.Glob(m.path("var/lib/etcd/kscratch/aside-*/wal")); len(found) == 0 {
			t.Errorf("%s has not kept its old data", m.self.Name)
		}
	}
	w.put("five", "5")

	t.Log("a disk from before the restore comes back")
	c.kill()
	aside := filepath.Join(old, "kscratch/aside-2")
	for _, step := range []error{
		os.RemoveAll(filepath.Join(old, "member")), os.Rename(aside, filepath.Join(old, "member")),
		os.WriteFile(filepath.Join(old, stateFile), c.stateBefore, 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	c.boot()
	c.consoleSays("etcd: member c refuses to start: most members are of cluster ")
	w.replace("c", true)
	c.answers()
	w.has("five", "5")
	if id := w.clusterID(); id != second {
		t.Errorf("cluster %x has become %x", second, id)
	}

	t.Log("most disks are lost")
	for _, m := range []*master{a, b} {
		m.kill()
		m.loseDisk()
		m.boot()
		m.consoleSays("refuses to start: the cluster exists, and this disk holds nothing of it")
	}
	w.refuses("a", false, "no member of etcd answers with a majority behind it")
	w.restore(snapshot)
	w.allAnswer()
	w.has("three", "3")
	w.has("five", "")
	w.sameRecord()
}

// TestAlone: a single member that is named waits for nobody, and goes back to
// a snapshot too.
func TestAlone(t *testing.T) {
	w := newWorld(t, "m")
	w.masters["m"].boot()
	w.allAnswer()
	w.put("one", "1")
	w.refuses("m", true, "it is the only one")
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	w.snapshot(snapshot)
	w.put("one", "2")
	w.restore(snapshot)
	w.allAnswer()
	w.has("one", "1")

	t.Log("the member falls silent during a snapshot")
	m := w.masters["m"]
	w.put("large", strings.Repeat("x", 1<<20))
	silent := w.admin
	silent.Endpoints = []string{w.silentAfter(m.endpoint(), 100<<10)}
	start, file := time.Now(), filepath.Join(t.TempDir(), "silent.db")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := silent.Snapshot(ctx, file); err == nil || ctx.Err() != nil {
		t.Errorf("a snapshot of one that falls silent: %v after %v", err, time.Since(start))
	}
	t.Logf("given up after %.0f s", time.Since(start).Seconds())
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	t.Log("data that was there before members were named")
	m.kill()
	if err := os.RemoveAll(m.path("var/lib/etcd/kscratch")); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.answers()
	w.has("one", "1")
}

func (w *world) replace(name string, running bool) {
	w.t.Helper()
	if err := w.admin.Replace(w.t.Context(), name, running); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refuses(name string, running bool, want string) {
	w.t.Helper()
	if err := w.admin.Replace(w.t.Context(), name, running); err == nil || !strings.Contains(err.Error(), want) {
		w.t.Fatalf("replacing %s: got %v, want %s", name, err, want)
	}
}

func (w *world) snapshot(file string) {
	w.t.Helper()
	if _, err := w.admin.Snapshot(w.t.Context(), file); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.admin.Snapshot(w.t.Context(), file); err == nil || !strings.Contains(err.Error(), "snapshots are never overwritten") {
		w.t.Errorf("the second time: %v", err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	torn := file + ".torn"
	for _, bad := range [][]byte{whole[:len(whole)-512], append(append([]byte{}, whole[:600]...), append([]byte{whole[600] ^ 1}, whole[601:]...)...)} {
		if err := os.WriteFile(torn, bad, 0o600); err != nil {
			w.t.Fatal(err)
		}
		if err := etcdadmin.Verify(torn); err == nil {
			w.t.Error("a torn snapshot is taken for whole")
		}
	}
}

func (w *world) restore(file string) {
	w.t.Helper()
	for _, m := range w.masters {
		var err error
		if m.stateBefore, err = os.ReadFile(m.path("var/lib/etcd/" + stateFile)); err != nil {
			w.t.Fatal(err)
		}
	}
	etcdutl := program(w.t, gomod.Etcdutl(version), "etcdutl")
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	if err := w.admin.Restore(ctx, file, etcdutl, filepath.Join(w.t.TempDir(), "data")); err != nil {
		w.t.Fatal(err)
	}
}

// sameRecord compares who the members say that the cluster was formed by.
func (w *world) sameRecord() {
	w.t.Helper()
	time.Sleep(2 * time.Second) // a few looks around
	ids := map[string][]string{}
	for name, m := range w.masters {
		var s saved
		b, err := os.ReadFile(m.path("var/lib/etcd/" + stateFile))
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil || s.Member.Record == nil {
			w.t.Fatalf("%s: state %s, %v", name, b, err)
		}
		ids[s.Member.Record.ID()] = append(ids[s.Member.Record.ID()], name)
	}
	if len(ids) != 1 {
		w.t.Fatalf("clusters: %v", ids)
	}
}

// consoleSays waits until a line with the text is on the console since the
// last boot.
func (m *master) consoleSays(text string) {
	m.w.t.Helper()
	m.eventually("console: "+text, func() error {
		b, err := os.ReadFile(m.path("dev/console"))
		if err == nil && !strings.Contains(string(b), text) {
			err = fmt.Errorf("console: %s", b)
		}
		return err
	})
}
