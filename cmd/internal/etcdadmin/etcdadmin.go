// Package etcdadmin does what an operator does to a cluster's etcd from his own
// machine, with the cluster file's members and the key of etcd's authority:
// replace a member, take a snapshot, and go back to one.
//
// It speaks to etcd by etcd's own client, and to kscratch-node on the masters
// by package memberapi. Every operation looks before it changes anything, and
// may be run again after it was cut off.
package etcdadmin

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// attempt bounds a request that should take a moment.
const attempt = 10 * time.Second

// Cluster is what the operator knows of a cluster. All but Endpoints are
// required.
type Cluster struct {
	Members   []firstboot.EtcdMember
	TLS       *tls.Config // of the operator; see [memberapi.Operator]
	Endpoints []string    // of etcd, as host:port; empty: port 2379 of all members
	Log       *slog.Logger
}

func (c Cluster) endpoints() []string {
	if len(c.Endpoints) > 0 {
		return c.Endpoints
	}
	var out []string
	for _, m := range c.Members {
		out = append(out, net.JoinHostPort(m.Address.String(), strconv.Itoa(memberapi.ClientPort)))
	}
	return out
}

// connect returns a client of the given endpoints. It has not spoken to any. A
// connection whose other end says nothing for twice attempt is given up: a
// snapshot has no time limit of its own. Etcd takes a ping every five seconds
// (--grpc-keepalive-min-time).
func (c Cluster) connect(endpoints ...string) (*clientv3.Client, error) {
	var urls []string
	for _, e := range endpoints {
		urls = append(urls, "https://"+e)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: urls, TLS: c.TLS.Clone(), Logger: zap.NewNop(),
		DialTimeout: attempt, DialKeepAliveTime: attempt, DialKeepAliveTimeout: attempt,
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(endpoints, ", "), err)
	}
	return client, nil
}

// healthy returns the endpoints that answer, by the IDs of the members behind
// them, and why the others do not.
func (c Cluster) healthy(ctx context.Context) (up map[uint64]string, troubles []error) {
	up = map[uint64]string{}
	for _, e := range c.endpoints() {
		id, err := c.askOne(ctx, e)
		if err != nil {
			troubles = append(troubles, fmt.Errorf("%s: %w", e, err))
			continue
		}
		up[id] = e
	}
	return up, troubles
}

// askOne returns the ID of the member at an endpoint, if that answers with a
// majority behind it.
func (c Cluster) askOne(ctx context.Context, endpoint string) (uint64, error) {
	client, err := c.connect(endpoint)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	r, err := client.Get(ctx, "health")
	if err != nil {
		return 0, err
	}
	return r.Header.MemberId, nil
}

// member returns a member of the cluster file.
func (c Cluster) member(name string) (firstboot.EtcdMember, error) {
	i := slices.IndexFunc(c.Members, func(m firstboot.EtcdMember) bool { return m.Name == name })
	if i < 0 {
		var names []string
		for _, m := range c.Members {
			names = append(names, m.Name)
		}
		return firstboot.EtcdMember{}, fmt.Errorf("there is no member %q in the cluster file; it has %s", name, strings.Join(names, ", "))
	}
	return c.Members[i], nil
}
