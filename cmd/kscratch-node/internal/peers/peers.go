// Package peers is a node's part in the pod network: it says in its Node object
// which pod CIDR it has, and keeps a route of the kernel's to the pod CIDR of
// each other node, through that node's address.
//
// It follows the Nodes with the kubelet's own credentials, which may change
// the kubelet's own Node and no other. Routes stay as they are while the API
// server is away, and come back when something else removes them. A peer is
// left out, and the log says once why, if its pod CIDR is outside of the
// cluster's, or overlaps this node's or an older node's.
//
// The routes are direct: nodes share a link. Nothing here asks a cloud's
// router to carry pod addresses.
package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
)

// Options are the surroundings of a node. Root is required.
type Options struct {
	Root         string        // directory of the node's file system: "/" on a node
	NotifySocket string        // $NOTIFY_SOCKET
	Interval     time.Duration // after which everything is looked at again; 10 s
	Log          *slog.Logger  // nil: nowhere
}

// Run plays the node's part until ctx ends, or until a file cannot be read.
func Run(ctx context.Context, o Options) (err error) {
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	self, err := kube.ReadSelf(root)
	if err != nil {
		return err
	}
	c := self.Config.Cluster
	api, err := kube.Wait(ctx, c.Kubeconfig, 2*time.Second, o.Log)
	if err != nil {
		return err
	}
	changed := kube.NewSignal()
	a := &agent{
		api: api, self: self, log: o.Log, nodes: api.WatchNodes(ctx, changed.Set), said: map[string]bool{},
		say: &crier.Crier{Root: root, Log: o.Log, Notify: o.NotifySocket, Repeat: 5 * time.Minute},
	}
	if c.Peers {
		if err := (table{}).watch(ctx, changed.Set); err != nil {
			return err
		}
	}
	for {
		if err := changed.Wait(ctx, o.Interval); err != nil {
			return err
		}
		a.look(ctx)
	}
}

type agent struct {
	api   *kube.Client
	self  kube.Self
	log   *slog.Logger
	say   *crier.Crier
	nodes cache.Store
	said  map[string]bool // remarks of the last look
	other time.Time       // since when another machine has been this node; zero: none is
}

// look compares what is with what should be, once the nodes are known.
func (a *agent) look(ctx context.Context) {
	var nodes []*corev1.Node
	var own *corev1.Node
	for _, o := range a.nodes.List() {
		n := o.(*corev1.Node)
		if n.Name == a.self.Name {
			own = n
		}
		nodes = append(nodes, n)
	}
	if own == nil {
		return // not registered, or nothing is known yet: no reason to take routes away
	}
	var remarks []string
	if a.self.Config.Cluster.Publish {
		remarks = append(remarks, a.publish(ctx, own))
	}
	if a.self.Config.Cluster.Peers {
		self := a.self
		if !self.Pod.IsValid() {
			self.Pod, _ = kube.PodCIDR(own)
		}
		remarks = append(remarks, a.routes(self, nodes)...)
	}
	a.remark(remarks)
}

// remark logs what was not so at the last look.
func (a *agent) remark(remarks []string) {
	now := map[string]bool{}
	for _, r := range remarks {
		if r == "" {
			continue
		}
		now[r] = true
		if !a.said[r] {
			a.log.Warn(r)
		}
	}
	a.said = now
}

// takeover is how long a node may look like the machine that had its name
// before: until its own kubelet has written its first status.
const takeover = 2 * time.Minute

// publish writes the pod CIDR into the own Node, where it can be written once.
// It returns why it could not.
func (a *agent) publish(ctx context.Context, own *corev1.Node) string {
	if !a.self.Is(own) && own.Status.NodeInfo.MachineID != "" {
		if a.other.IsZero() {
			a.other = time.Now()
		}
		if time.Since(a.other) > takeover {
			a.say.Cry(fmt.Sprintf("another machine, at %s, says that it is node %s. Give one of the two a pod CIDR of its own.", kube.Address(own), own.Name))
		}
		return ""
	}
	a.other = time.Time{}
	want := a.self.Pod.String()
	switch own.Spec.PodCIDR {
	case want:
		return ""
	case "":
	default:
		a.say.Cry(fmt.Sprintf("the cluster has pod CIDR %s for node %s, this machine has %s. Nodes cannot change theirs: kubectl delete node %s, then restart this machine.",
			own.Spec.PodCIDR, own.Name, want, own.Name))
		return ""
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": own.UID}, // not of one that took its name since
		"spec":     map[string]any{"podCIDR": want, "podCIDRs": []string{want}},
	})
	if err == nil {
		err = a.api.PatchNode(ctx, own.Name, patch)
	}
	if err != nil {
		return fmt.Sprintf("publishing pod CIDR %s of node %s: %v", want, own.Name, err)
	}
	a.log.Info("published this node's pod CIDR", "node", own.Name, "cidr", want)
	return ""
}

// routes makes the kernel's routes those to the peers.
func (a *agent) routes(self kube.Self, nodes []*corev1.Node) []string {
	want, remarks := peers(self, nodes)
	changed, failed, err := table{}.set(want)
	for _, c := range changed {
		a.log.Info("route to a node's pods", "change", c)
	}
	for _, err := range failed {
		remarks = append(remarks, err.Error())
	}
	if err != nil {
		remarks = append(remarks, err.Error())
	}
	return remarks
}

// peers returns the address behind which each other node's pods are, and what
// is wrong with the nodes that have none.
func peers(self kube.Self, nodes []*corev1.Node) (map[netip.Prefix]netip.Addr, []string) {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { // the oldest first
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	want := map[netip.Prefix]netip.Addr{}
	owner := map[netip.Prefix]string{self.Pod: "this node"}
	var remarks []string
	for _, n := range nodes {
		pod, ok := kube.PodCIDR(n)
		if n.Name == self.Name || !ok {
			continue // a peer that has not said yet will
		}
		via := kube.InternalIPs(n)
		switch rival := overlapping(pod, owner); {
		case !within(pod, self.Config.ClusterCIDR):
			remarks = append(remarks, fmt.Sprintf("no route to the pods of node %s: its pod CIDR %s is not in the cluster's %s", n.Name, pod, self.Config.ClusterCIDR))
		case rival != "":
			remarks = append(remarks, fmt.Sprintf("no route to the pods of node %s: its pod CIDR %s overlaps that of %s", n.Name, pod, rival))
		case len(via) == 0:
			remarks = append(remarks, fmt.Sprintf("no route to the pods of node %s: it has no internal IPv4 address", n.Name))
		case slices.Contains(self.Addrs, via[0]):
			remarks = append(remarks, fmt.Sprintf("no route to the pods of node %s: its address %s is this machine's", n.Name, via[0]))
		default:
			want[pod], owner[pod] = via[0], "node "+n.Name
		}
	}
	return want, remarks
}

func within(p, of netip.Prefix) bool { return p.Bits() >= of.Bits() && of.Contains(p.Addr()) }

func overlapping(p netip.Prefix, owner map[netip.Prefix]string) string {
	for q, who := range owner {
		if q.IsValid() && q.Overlaps(p) {
			return who
		}
	}
	return ""
}
