package etcd

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/etcdadmin"
	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/ignition/pki"
)

// served is a member whose server runs, without an etcd.
type served struct {
	*agent
	dir, data string // of the node, and of etcd's data
}

// serveAll serves members at addresses of the loopback, named a and on, and
// returns what their operator knows.
func serveAll(t *testing.T, addresses ...string) ([]served, etcdadmin.Cluster) {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "pki")
	o := pki.Options{
		Cluster: "test", Domain: "cluster.local", ServiceIP: netip.MustParseAddr("10.96.0.1"), EtcdSANs: addresses,
		Now: time.Now(), Rand: rand.Reader,
	}
	if err := pki.New(keys, o); err != nil {
		t.Fatal(err)
	}
	pair, ca, err := pki.EtcdClient(keys, memberapi.Operator, o)
	if err != nil {
		t.Fatal(err)
	}
	c := etcdadmin.Cluster{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if c.TLS, err = memberapi.TLS(ca, pair); err != nil {
		t.Fatal(err)
	}
	for i, address := range addresses {
		c.Members = append(c.Members, firstboot.EtcdMember{Name: string(rune('a' + i)), Address: netip.MustParseAddr(address)})
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(keys, "etcd/peer.crt"), filepath.Join(keys, "etcd/peer.key"))
	if err != nil {
		t.Fatal(err)
	}
	var all []served
	for _, m := range c.Members {
		a, dir, data := lone(t, m.Address.String())
		a.self, a.peers.self, a.config.Members = m, m, c.Members
		if a.peers.tls, err = memberapi.TLS(ca, own); err != nil {
			t.Fatal(err)
		}
		s, err := a.serve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		go func() {
			for {
				select {
				case o := <-a.ops:
					o.done <- o.do()
				case <-t.Context().Done():
					return
				}
			}
		}()
		all = append(all, served{a, dir, data})
	}
	return all, c
}

func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(text))})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTwoRestores: of two restores at once a member serves one, and what it
// puts in place is whole.
func TestTwoRestores(t *testing.T) {
	all, c := serveAll(t, "127.99.4.1")
	m, ctx := all[0], t.Context()
	client := memberapi.NewClient("127.99.4.1", c.TLS)
	defer client.Close()
	first := formation.Record{Members: map[string]string{"a": strings.Repeat("1", 32)}}
	second := formation.Record{Members: map[string]string{"a": strings.Repeat("2", 32)}}
	data := tarOf(t, "member/wal/0.wal", "first")
	fails := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	works := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() { sent <- client.Stage(ctx, first.ID(), "", r) }()
	_, err := w.Write(data[:600])
	works("sending the first half", err)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until the member has begun with it
		if _, err := os.Stat(m.data + "/" + staged(incoming)); err == nil {
			break
		} else if time.Since(start) > time.Minute {
			t.Fatal(err)
		}
	}
	const busy = "another restore is at work on this member"
	fails("staging at the same time", client.Stage(ctx, second.ID(), "", bytes.NewReader(data)), busy)
	fails("releasing at the same time", client.Release(ctx, first.ID()), busy)
	fails("holding at the same time", client.Hold(ctx, first.ID()), busy)
	_, err = w.Write(data[600:])
	works("sending the second half", errors.Join(err, w.Close(), <-sent))

	fails("holding for what is not there", client.Hold(ctx, second.ID()), "the data for this restore is not here")
	works("holding", client.Hold(ctx, first.ID()))
	fails("staging beside what is held", client.Stage(ctx, second.ID(), "", bytes.NewReader(data)), "is at work on this member")
	fails("staging instead of what is not held", client.Stage(ctx, second.ID(), second.ID(), bytes.NewReader(data)), "is at work on this member")
	works("staging instead of what is held", client.Stage(ctx, second.ID(), first.ID(), bytes.NewReader(tarOf(t, "member/wal/0.wal", "second"))))
	fails("putting in place what is gone", client.Commit(ctx, first), "no such file")
	works("holding again", client.Hold(ctx, second.ID()))
	works("putting it in place", client.Commit(ctx, second))
	if got := read(t, m.data+"/member/wal/0.wal"); got != "second" {
		t.Errorf("the data is %q", got)
	}

	fails("sending what is torn", client.Stage(ctx, first.ID(), "", bytes.NewReader(data[:514])), "unpacking etcd's data")
	fails("holding for that", client.Hold(ctx, first.ID()), "the data for this restore is not here")
	if left, _ := filepath.Glob(m.data + "/kscratch/restore-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestRestoreAgain: a restore that fails lets only those members go on that ran
// before: others may have the data of the one that was cut off already.
func TestRestoreAgain(t *testing.T) {
	all, c := serveAll(t, "127.99.4.2", "127.99.4.3", "127.99.4.4")
	a, b := all[0], all[1]
	dir := t.TempDir()
	body := make([]byte, 512)
	sum := sha256.Sum256(body)
	snapshot, etcdutl := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "etcdutl")
	write(t, snapshot, string(append(body, sum[:]...)))
	// What etcdutl makes is etcd's business: a directory serves here.
	write(t, etcdutl, "#!/bin/sh\nfor a; do case $a in --data-dir=*) d=${a#*=};; esac; done\nmkdir -p $d/member/wal && echo new >$d/member/wal/0.wal\n")
	if err := os.Chmod(etcdutl, 0o700); err != nil {
		t.Fatal(err)
	}
	restore := func() string {
		err := c.Restore(t.Context(), snapshot, etcdutl, filepath.Join(dir, "data"))
		if err == nil {
			return ""
		}
		return err.Error()
	}
	held := func(want ...bool) {
		t.Helper()
		for i, m := range all {
			if got := m.disk.saved().Held != ""; got != want[i] {
				t.Errorf("%s is held: %v", m.self.Name, got)
			}
		}
	}
	for _, m := range all {
		write(t, m.data+"/member/wal/0.wal", "old")
	}
	// A pod that cannot be taken away is etcd that does not stop.
	stuck := filepath.Join(a.dir, firstboot.EtcdManifestPath)
	write(t, stuck+"/x", "")

	if err := restore(); !strings.Contains(err, "nothing was changed: a: telling") {
		t.Errorf("the first time: %s", err)
	}
	held(false, false, false)

	first := strings.Repeat("ab", 32)
	write(t, b.data+"/"+staged(first)+"/member/wal/0.wal", "cut off")
	if err := b.disk.keep(saved{Held: first}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := restore(); strings.Contains(err, "nothing was changed") || !strings.Contains(err, "held as before, for a restore that was cut off: b; run this again") {
			t.Errorf("after one that was cut off: %s", err)
		}
		held(false, true, false)
	}

	if err := os.RemoveAll(stuck); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != "" {
		t.Errorf("when etcd stops: %s", err)
	}
	held(false, false, false)
	for _, m := range all {
		if got := read(t, m.data+"/member/wal/0.wal") + read(t, m.data+"/kscratch/aside-1/wal/0.wal"); got != "new\nold" {
			t.Errorf("%s has %q", m.self.Name, got)
		}
	}
}
