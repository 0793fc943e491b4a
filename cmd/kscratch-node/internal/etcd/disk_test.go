package etcd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/cmd/internal/formation"
)

// onDisk opens the data directory of a node whose root is dir, as a new boot
// does.
func onDisk(t *testing.T, dir string) *disk {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	d, err := openDisk(root, "var/lib/etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	d := onDisk(t, dir)
	if s := d.saved(); s.Member.Nonce != "" {
		t.Fatalf("a new disk has %+v", s)
	}
	r := formation.Record{Members: map[string]string{"a": "1"}}
	want := saved{Member: formation.State{Nonce: "1", Accepted: &r, Record: &r, Joined: 1<<64 - 1, HadData: true}, Held: "x"}
	if err := d.keep(want); err != nil {
		t.Fatal(err)
	}
	if got := onDisk(t, dir).saved(); got.Member.Joined != want.Member.Joined || got.Member.Record.ID() != r.ID() || got.Held != "x" || !got.Member.HadData {
		t.Errorf("got %+v", got)
	}
	write(t, filepath.Join(dir, "var/lib/etcd", stateFile), "{")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := openDisk(root, "var/lib/etcd"); err == nil || !strings.Contains(err.Error(), "move the file away") {
		t.Errorf("a torn state: %v", err)
	}
}

func TestHasData(t *testing.T) {
	dir := t.TempDir()
	d := onDisk(t, dir)
	for _, c := range []struct {
		file string
		want bool
	}{
		{"", false},
		{"member/snap/db", false},
		{"member/wal.tmp/0.wal", false},
		{"member/wal/0.tmp", false},
		{"member/wal/0000000000000000-0000000000000000.wal", true},
	} {
		if c.file != "" {
			write(t, filepath.Join(dir, "var/lib/etcd", c.file), "")
		}
		if got, err := d.hasData(); got != c.want || err != nil {
			t.Errorf("with %q: %v, %v", c.file, got, err)
		}
	}
}

// TestRestoreAtAnyTime cuts the power after each step of a restore. The next
// boot ends it, and the old data is still there.
func TestRestoreAtAnyTime(t *testing.T) {
	r := formation.Record{Members: map[string]string{"a": "nonce of a"}}
	for _, c := range []struct {
		name string
		cut  func(t *testing.T, data string) // what had been done
	}{
		{"after the decision", func(*testing.T, string) {}},
		{"after the old data was set aside", func(t *testing.T, data string) {
			rename(t, data+"/member", data+"/kscratch/aside-1")
		}},
		{"after the new data was put in place", func(t *testing.T, data string) {
			rename(t, data+"/member", data+"/kscratch/aside-1")
			rename(t, data+"/"+staged(r.ID())+"/member", data+"/member")
		}},
	} {
		dir := t.TempDir()
		data := filepath.Join(dir, "var/lib/etcd")
		d := onDisk(t, dir)
		write(t, data+"/member/wal/0.wal", "old")
		write(t, data+"/"+staged(r.ID())+"/member/wal/0.wal", "new")
		if err := d.keep(saved{Member: formation.State{Nonce: "x", HadData: true}, Held: r.ID(), Restore: &restore{"a", r}}); err != nil {
			t.Fatal(err)
		}
		c.cut(t, data)
		d = onDisk(t, dir)
		if err := d.finishRestore(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s := d.saved()
		if got := read(t, data+"/member/wal/0.wal") + " " + read(t, data+"/kscratch/aside-1/wal/0.wal"); got != "new old" {
			t.Errorf("%s: data: %s", c.name, got)
		}
		if s.Held != "" || s.Restore != nil || s.Member.Nonce != "nonce of a" || s.Member.Record.ID() != r.ID() || !s.Member.HadData {
			t.Errorf("%s: state %+v", c.name, s)
		}
		if _, err := os.Stat(data + "/" + staged(r.ID())); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: staged data is left", c.name)
		}
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestCommitAndRelease(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "var/lib/etcd")
	d := onDisk(t, dir)
	r := formation.Record{Members: map[string]string{"a": "1"}}
	if err := d.commit("a", r); err == nil || !strings.Contains(err.Error(), "not held for") {
		t.Errorf("without a hold: %v", err)
	}
	if err := d.keep(saved{Held: r.ID()}); err != nil {
		t.Fatal(err)
	}
	if err := d.commit("a", r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without data: %v", err)
	}
	write(t, data+"/"+staged(r.ID())+"/member/wal/0.wal", "new")
	if err := d.release(r.ID()); err != nil || d.saved().Held != "" {
		t.Errorf("released: %v, %+v", err, d.saved())
	}
	if _, err := os.Stat(data + "/" + staged(r.ID())); !errors.Is(err, os.ErrNotExist) {
		t.Error("staged data is left")
	}
}

// TestSetAside: data that is set aside never replaces other such data, and the
// member is then a new disk.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "var/lib/etcd")
	d := onDisk(t, dir)
	for _, want := range []string{"kscratch/aside-1", "kscratch/aside-2"} {
		write(t, data+"/member/wal/0.wal", want)
		if err := d.keep(saved{Member: formation.State{HadData: true}}); err != nil {
			t.Fatal(err)
		}
		if got, err := d.setAside(); got != want || err != nil || d.saved().Member.HadData {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
		if got := read(t, data+"/"+want+"/wal/0.wal"); got != want {
			t.Errorf("%s holds %s", want, got)
		}
	}
}
