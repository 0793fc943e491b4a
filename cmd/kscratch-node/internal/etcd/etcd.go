// Package etcd runs a master's member of etcd where the cluster file names
// members: it lets the kubelet start etcd's pod once package formation says
// that the member may run, and stops it when it may no more.
//
// It finds out which member this master is by the machine's addresses, keeps
// the member's state beside etcd's data, asks the other masters for theirs and
// etcd for its list of members, and serves what package memberapi describes.
// What it waits for or refuses is on the console, in the journal, and in
// /run/kscratch/etcd.json for the health gate of the boot.
//
// It does not look after etcd's health once that runs: the kubelet does. It
// changes etcd's list of members never, and writes one key there: to claim the
// place of a member that was replaced.
package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// Options are the surroundings of a master. Root is required.
type Options struct {
	Root         string                       // directory of the node's file system: "/" on a node
	NotifySocket string                       // $NOTIFY_SOCKET
	Addresses    func() ([]netip.Addr, error) // of this machine; nil: those of its interfaces
	Interval     time.Duration                // between looks; 2 s
	Repeat       time.Duration                // between repetitions of a message; 60 s
	Log          *slog.Logger                 // nil: nowhere
}

// Run looks after the member until ctx ends, whose error it returns, or until
// something fails that it cannot live with. Etcd goes on when it ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.Addresses == nil {
		o.Addresses = kube.Addresses
	}
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Repeat == 0 {
		o.Repeat = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	b, err := root.ReadFile(firstboot.ConfigPath)
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	config, err := firstboot.ParseConfig(b)
	if err != nil {
		return err
	}
	if config.Etcd == nil {
		return errors.New("reading configuration: /" + firstboot.ConfigPath + " names no members of etcd")
	}
	a := &agent{
		Options: o, root: root, config: *config.Etcd, ops: make(chan op),
		say: &crier.Crier{Root: root, Log: o.Log, Notify: o.NotifySocket, Repeat: o.Repeat},
	}
	return a.lastWords(ctx, a.run(ctx))
}

// agent looks after one member. Its fields belong to the goroutine of run; that
// of the server uses disk, which has a lock, restoring, and what does not change.
type agent struct {
	Options
	root   *os.Root
	config firstboot.Etcd
	say    *crier.Crier
	self   firstboot.EtcdMember
	disk   *disk
	peers  *peers
	ops    chan op // what the operator asks for

	restoring sync.Mutex // held by who works on data that is staged

	report   firstboot.EtcdReport
	reported bool
}

// op is something that must not happen during a look.
type op struct {
	do   func() error
	done chan error
}

func (a *agent) run(ctx context.Context) error {
	if err := a.findSelf(ctx); err != nil {
		return err
	}
	var err error
	if a.disk, err = openDisk(a.root, strings.TrimPrefix(a.config.DataDir, "/")); err != nil {
		return err
	}
	defer a.disk.close()
	if err := a.disk.finishRestore(); err != nil {
		return err
	}
	if a.peers, err = newPeers(a.root, a.config, a.self); err != nil {
		return err
	}
	defer a.peers.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server, err := a.serve()
	if err != nil {
		return err
	}
	defer server.close()
	go func() { stop(server.wait()) }()
	a.Log.Info("this master is a member of etcd", "name", a.self.Name, "address", a.self.Address)
	for {
		again, err := a.look(ctx)
		if err != nil {
			return err
		}
		pause := a.Interval
		if again {
			pause = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("looking after etcd: %w", context.Cause(ctx))
		case o := <-a.ops:
			o.done <- o.do()
		case <-time.After(pause):
		}
	}
}

// lastWords reports why the agent ends, unless it was told to: what it reported
// before may hold the boot's clock, and is true no more.
func (a *agent) lastWords(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errors.Join(err, a.tell(firstboot.EtcdReport{Message: failed(err)}))
}

// findSelf waits until one of the machine's addresses is a member's: DHCP may
// take its time.
func (a *agent) findSelf(ctx context.Context) error {
	for {
		addrs, err := a.Addresses()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(a.config.Members, func(m firstboot.EtcdMember) bool { return slices.Contains(addrs, m.Address) })
		if i >= 0 {
			a.self = a.config.Members[i]
			return nil
		}
		if err := a.tell(firstboot.EtcdReport{Message: notAMember(addrs, a.config.Members)}); err != nil {
			return err
		}
		if err := kube.Sleep(ctx, a.Interval); err != nil {
			return fmt.Errorf("waiting for an address of etcd.members: %w", err)
		}
	}
}

// look looks around once and does what follows. It reports whether it should
// be called again at once.
func (a *agent) look(ctx context.Context) (bool, error) {
	if before := a.disk.saved(); before.Held != "" {
		if err := a.stopEtcd(); err != nil {
			return false, err
		}
		if before.Restore != nil {
			return true, a.disk.finishRestore() // that an operator's request did not
		}
		return false, a.tell(firstboot.EtcdReport{Message: held(before.Held)})
	}
	around, err := a.around(ctx)
	if err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, nil // what was not heard in time says nothing
	}
	before := a.disk.saved()
	s, v := formation.Next(before.Member, around)
	a.Log.Debug("looked around", "heard", slices.Sorted(maps.Keys(around.Heard)), "seat", around.Seat, "data", around.Data, "verdict", v)
	if err := a.disk.keep(saved{Member: s, Held: before.Held, Restore: before.Restore}); err != nil {
		return false, err
	}
	return a.act(ctx, around, v)
}

// around asks everybody who has to be asked. Where etcd runs, and has a
// majority, that is nobody but the peers. Whether there is data is looked at
// last: etcd that says it has run must not be taken for one that has lost it.
func (a *agent) around(ctx context.Context) (formation.View, error) {
	v := formation.View{Self: a.self.Name, Members: names(a.config.Members), Heard: a.peers.ask(ctx, a.Log)}
	if !a.peers.ready(ctx) {
		v.Seat = a.peers.seat(ctx, a.Log)
	}
	var err error
	if v.Fresh, err = newNonce(); err != nil {
		return v, err
	}
	v.Data, err = a.disk.hasData()
	return v, err
}

func newNonce() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("drawing a nonce: %w", err)
	}
	return hex.EncodeToString(b), nil
}

func (a *agent) act(ctx context.Context, around formation.View, v formation.Verdict) (again bool, err error) {
	switch v.Kind {
	case formation.Again:
		return true, nil
	case formation.Start:
		if err := a.startEtcd(); err != nil {
			return false, err
		}
		return false, a.tell(a.progress(ctx, around))
	case formation.Wait:
		return false, errors.Join(a.stopEtcd(), a.tell(firstboot.EtcdReport{Others: true, Message: waiting(v.Missing, a.config.Members)}))
	case formation.Claim:
		return a.claim(ctx, around.Seat.ID)
	case formation.SetAside:
		return a.setAside(ctx)
	}
	return false, errors.Join(a.stopEtcd(), a.tell(firstboot.EtcdReport{Message: refused(a.self.Name, a.config.DataDir, v)}))
}

// claim takes the place of a member that was replaced, for this disk. Neither
// the pod of what this machine was before nor data without a log, which etcd
// that joins would go on with, may be there then.
func (a *agent) claim(ctx context.Context, id uint64) (bool, error) {
	if stopped, err := a.stopped(ctx); err != nil || !stopped {
		return false, err
	}
	if data, err := a.disk.hasData(); err != nil || data {
		return true, err // it has been written since we looked
	}
	to, err := a.disk.moveAside()
	if err != nil {
		return false, fmt.Errorf("setting aside what is left of etcd's data: %w", err)
	}
	if to != "" {
		a.Log.Warn("what is left of etcd's data is kept aside", "in", a.config.DataDir+"/"+to)
	}
	if err := a.peers.claim(ctx, id, a.disk.saved().Member.Nonce); err != nil {
		return false, a.tell(firstboot.EtcdReport{Message: fmt.Sprintf("etcd: taking the place of a member that was replaced: %v.", err)})
	}
	a.Log.Info("this disk has taken the place of a member of etcd that was replaced", "name", a.self.Name)
	return true, nil
}

// stopped stops the etcd of a member that was replaced, and reports whether it
// runs no more.
func (a *agent) stopped(ctx context.Context) (bool, error) {
	if err := a.stopEtcd(); err != nil {
		return false, err
	}
	if a.peers.listening(ctx) {
		return false, a.tell(firstboot.EtcdReport{Message: "etcd: this member was replaced; waiting for its etcd to stop."})
	}
	return true, nil
}

// setAside moves the data of a member that was replaced out of the way, when
// etcd runs no more.
func (a *agent) setAside(ctx context.Context) (bool, error) {
	if stopped, err := a.stopped(ctx); err != nil || !stopped {
		return false, err
	}
	to, err := a.disk.setAside()
	if err != nil {
		return false, err
	}
	a.Log.Warn("the data of a member that was replaced is kept aside", "in", a.config.DataDir+"/"+to)
	return true, nil
}

// progress is the report of a member that may run.
func (a *agent) progress(ctx context.Context, v formation.View) firstboot.EtcdReport {
	if a.peers.ready(ctx) {
		return firstboot.EtcdReport{Ready: true, Message: "etcd: " + a.self.Name + " runs"}
	}
	var silent []string
	for _, name := range v.Members {
		if h, ok := v.Heard[name]; name != a.self.Name && (!ok || h.Record == nil && !h.Data) {
			silent = append(silent, name)
		}
	}
	if len(v.Members)-len(silent) <= len(v.Members)/2 {
		return firstboot.EtcdReport{Others: true, Message: noMajority(silent, a.config.Members)}
	}
	return firstboot.EtcdReport{Message: "etcd: " + a.self.Name + " starts"}
}

// tell writes a report for the health gate, and says it to people unless all
// is well.
func (a *agent) tell(r firstboot.EtcdReport) error {
	if !r.Ready && !strings.HasSuffix(r.Message, " starts") {
		a.say.Cry(r.Message)
	} else {
		a.say.Forget()
		a.say.Status(r.Message)
	}
	if a.reported && r == a.report {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a.report, a.reported = r, true
	return atomicfile.Write(a.root, firstboot.EtcdReportPath, append(b, '\n'), 0o644)
}

func names(members []firstboot.EtcdMember) (out []string) {
	for _, m := range members {
		out = append(out, m.Name)
	}
	return out
}
