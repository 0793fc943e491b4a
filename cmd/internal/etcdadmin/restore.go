package etcdadmin

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// Restore goes back to a snapshot: a new cluster, of the same members, with the
// snapshot's data. Each member keeps the data that it had aside.
//
//  1. All members must answer. With etcdutl, the path of that program, the data
//     of each is made in dir and sent there.
//  2. All stop their etcd.
//  3. All put the new data in the place of the old, and start.
//
// Up to the end of the second step a failure leaves every member as it was: one
// that stood still for a restore before, which was cut off, goes on standing
// still. In the third it leaves members that stand still; to run Restore again
// makes yet another cluster of all. Of two that run at once, the one whose data
// has made room for the other's fails. Revisions go up by a thousand million,
// and what watches is told that the past is gone, so that no client of etcd's
// believes what it remembers.
func (c Cluster) Restore(ctx context.Context, snapshot, etcdutl, dir string) error {
	if err := Verify(snapshot); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	held, err := c.held(ctx)
	if err != nil {
		return fmt.Errorf("restoring: all masters have to run: %w", err)
	}
	record, err := newRecord(c.Members)
	if err != nil {
		return err
	}
	id := record.ID()
	err = c.prepare(ctx, record, held, snapshot, etcdutl, dir)
	if err == nil {
		c.Log.Info("stopping etcd on all members")
		err = c.each(func(_ firstboot.EtcdMember, a *memberapi.Client) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
			defer cancel()
			return a.Hold(ctx, id)
		})
	}
	if err != nil {
		return c.undo(ctx, id, held, err)
	}
	c.Log.Info("putting the data in place", "cluster", id[:12])
	err = c.each(func(_ firstboot.EtcdMember, a *memberapi.Client) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return a.Commit(ctx, record)
	})
	if err != nil {
		return fmt.Errorf("restoring: some members have the new data and some do not; run this again: %w", err)
	}
	return nil
}

// undo forgets a restore that failed before anything was put in place, and
// returns why. Members that were held before must not go on: others may have
// the data of that restore already.
func (c Cluster) undo(ctx context.Context, id string, held map[string]string, why error) error {
	state := "nothing was changed"
	if len(held) > 0 {
		state = fmt.Sprintf("held as before, for a restore that was cut off: %s; run this again, or kscratch etcd restore --release", strings.Join(slices.Sorted(maps.Keys(held)), ", "))
	}
	// The time may be up: what was begun is undone all the same.
	undone := c.release(context.WithoutCancel(ctx), func(name string) string {
		if held[name] != "" {
			return ""
		}
		return id
	})
	return errors.Join(fmt.Errorf("restoring: %s: %w", state, why), undone)
}

// Release lets members go on that stand still for a restore which was cut off.
func (c Cluster) Release(ctx context.Context) error {
	held, err := c.held(ctx)
	return errors.Join(err, c.release(ctx, func(name string) string { return held[name] }))
}

// held asks all members, and returns for which restore those stand still that
// do, by name. With an error it has what the others said.
func (c Cluster) held(ctx context.Context) (map[string]string, error) {
	held := map[string]string{}
	var mu sync.Mutex
	err := c.each(func(m firstboot.EtcdMember, a *memberapi.Client) error {
		return c.quick(ctx, func(ctx context.Context) error {
			s, err := a.Status(ctx)
			mu.Lock()
			defer mu.Unlock()
			if s.Held != "" {
				held[m.Name] = s.Held
			}
			return err
		})
	})
	return held, err
}

// release tells the members to forget the restore with an ID.
func (c Cluster) release(ctx context.Context, id func(name string) string) error {
	return c.each(func(m firstboot.EtcdMember, a *memberapi.Client) error {
		if id(m.Name) == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return a.Release(ctx, id(m.Name))
	})
}

// each does something with all members at once.
func (c Cluster) each(do func(firstboot.EtcdMember, *memberapi.Client) error) error {
	errs := make([]error, len(c.Members))
	var work sync.WaitGroup
	for i, m := range c.Members {
		work.Go(func() {
			a := memberapi.NewClient(m.Address.String(), c.TLS)
			defer a.Close()
			if err := do(m, a); err != nil {
				errs[i] = fmt.Errorf("%s: %w", m.Name, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// newRecord draws a new cluster's identity.
func newRecord(members []firstboot.EtcdMember) (formation.Record, error) {
	r := formation.Record{Members: map[string]string{}}
	for _, m := range members {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return r, err
		}
		r.Members[m.Name] = hex.EncodeToString(b)
	}
	return r, nil
}

// prepare makes each member's data and sends it, one after the other: data may
// be large. What members are held for is given up.
func (c Cluster) prepare(ctx context.Context, r formation.Record, held map[string]string, snapshot, etcdutl, dir string) error {
	for _, m := range c.Members {
		c.Log.Info("making and sending data", "member", m.Name)
		data := filepath.Join(dir, m.Name)
		if err := c.makeData(ctx, r, m, snapshot, etcdutl, data); err != nil {
			return err
		}
		if err := c.send(ctx, r.ID(), held[m.Name], m, data); err != nil {
			return err
		}
		if err := os.RemoveAll(data); err != nil {
			return err
		}
	}
	return nil
}

func (c Cluster) makeData(ctx context.Context, r formation.Record, m firstboot.EtcdMember, snapshot, etcdutl, data string) error {
	var all []string
	for _, o := range c.Members {
		all = append(all, o.Name+"="+memberapi.URL(o.Address.String(), memberapi.PeerPort))
	}
	cmd := exec.CommandContext(ctx, etcdutl, "snapshot", "restore", snapshot,
		"--name="+m.Name, "--initial-cluster="+strings.Join(all, ","), "--initial-cluster-token="+r.ID(),
		"--initial-advertise-peer-urls="+memberapi.URL(m.Address.String(), memberapi.PeerPort),
		"--data-dir="+data, "--bump-revision=1000000000", "--mark-compacted")
	cmd.Env = []string{}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making the data of %s: %w: %s", m.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// send sends a directory's files as a tar stream.
func (c Cluster) send(ctx context.Context, id, instead string, m firstboot.EtcdMember, data string) error {
	a := memberapi.NewClient(m.Address.String(), c.TLS)
	defer a.Close()
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		t := tar.NewWriter(w)
		err := t.AddFS(os.DirFS(data))
		w.CloseWithError(errors.Join(err, t.Close())) // nil is the end of the file
	}()
	err := a.Stage(ctx, id, instead, r)
	err = errors.Join(err, r.Close())
	<-packed
	return err
}
