// Package join keeps a node out of a cluster in which another machine has its
// place: its name, or addresses of its pod CIDR. Two nodes with one pod CIDR
// look well for a while, and then lose packets in ways that take a day to
// understand.
//
// It asks the API server for all nodes before the kubelet starts. A node object
// of the same name is this machine's own if it has its machine ID or its
// address; otherwise it is a machine that this one replaces if its kubelet has
// fallen silent, and a conflict if not. A pod CIDR that overlaps the one of a
// node with another name is always a conflict, as the pods of a silent node
// come back with it.
//
// A conflict is said on the console, and looked at again until it is gone.
// Without an API server a node waits, too: it has nothing to run.
//
// Two machines that start at the same moment can miss each other; package
// peers then says so.
package join

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/crier"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
)

// Options are the surroundings of a node. Root and Kubeconfig are required.
type Options struct {
	Root         string        // directory of the node's file system: "/" on a node
	Kubeconfig   string        // path of one that may list nodes
	NotifySocket string        // $NOTIFY_SOCKET
	Interval     time.Duration // between looks; 3 s
	Repeat       time.Duration // between repetitions of a message; 30 s
	Log          *slog.Logger  // nil: nowhere
}

// Run returns when the node may join. It fails when ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.Interval == 0 {
		o.Interval = 3 * time.Second
	}
	if o.Repeat == 0 {
		o.Repeat = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	say := &crier.Crier{Root: root, Log: o.Log, Notify: o.NotifySocket, Repeat: o.Repeat}
	for {
		self, problem := look(ctx, root, o.Kubeconfig)
		if problem == "" {
			o.Log.Info("this node's place in the cluster is free", "node", self.Name, "cidr", self.Pod)
			say.Status("node " + self.Name)
			return nil
		}
		if ctx.Err() == nil {
			say.Cry(problem)
		}
		if err := kube.Sleep(ctx, o.Interval); err != nil {
			return fmt.Errorf("waiting to join: %w: %s", err, problem)
		}
	}
}

// look returns who this machine is and why it must not join yet; "" if it may.
// All is read anew each time: an address may come late, and whoever mends a
// file wants it to be seen.
func look(ctx context.Context, root *os.Root, kubeconfig string) (kube.Self, string) {
	self, err := kube.ReadSelf(root)
	if err != nil {
		return self, fmt.Sprintf("waiting to join the cluster: %v.", err)
	}
	api, err := kube.New(kubeconfig)
	if err != nil {
		return self, fmt.Sprintf("waiting to join the cluster: %v.", err)
	}
	nodes, err := api.Nodes(ctx)
	if err != nil {
		return self, fmt.Sprintf("waiting for the API server to join the cluster: %v.", err)
	}
	for i := range nodes {
		if problem := conflict(self, &nodes[i]); problem != "" {
			return self, problem + " The kubelet does not start until then."
		}
	}
	return self, ""
}

// conflict says how a node is in the way of this machine; "" if it is not.
func conflict(self kube.Self, n *corev1.Node) string {
	if self.Is(n) {
		return ""
	}
	if n.Name == self.Name {
		if !kube.Ready(n) {
			return ""
		}
		return fmt.Sprintf("another machine, at %s, is node %s of this cluster and alive. Give this machine a pod CIDR of its own, or switch the other one off.",
			kube.Address(n), n.Name)
	}
	pod, ok := kube.PodCIDR(n)
	if !ok || !self.Pod.IsValid() || !pod.Overlaps(self.Pod) {
		return ""
	}
	return fmt.Sprintf("pod CIDR %s belongs to node %s at %s, which has %s. Give this machine another one, or remove that node: kubectl delete node %s.",
		self.Pod, n.Name, kube.Address(n), pod, n.Name)
}
