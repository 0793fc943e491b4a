package etcdadmin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kscratch/kscratch/cmd/internal/memberapi"
)

// Replace makes room in etcd for a new disk of a member: it removes the member
// from etcd's list and adds one without a past at its address. The member's
// machine joins by itself then; data that it still has is kept aside there.
//
// It refuses what would leave the cluster without a majority, and a member that
// runs unless running is true. If it was cut off between the two steps, it goes
// on with the second.
func (c Cluster) Replace(ctx context.Context, name string, running bool) (err error) {
	m, err := c.member(name)
	if err != nil {
		return err
	}
	if len(c.Members) < 3 {
		return fmt.Errorf("replacing member %s: it is the only one: restore a snapshot in its place (kscratch etcd restore FILE)", name)
	}
	peer := memberapi.URL(m.Address.String(), memberapi.PeerPort)
	old, others, err := c.room(ctx, name, peer, running)
	if err != nil {
		return fmt.Errorf("replacing member %s: %w", name, err)
	}
	// Not by way of the one that goes.
	client, err := c.connect(others...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if old != 0 {
		c.Log.Info("removing the member", "name", name, "id", fmt.Sprintf("%x", old))
		if err := c.patient(ctx, rpctypes.ErrMemberNotFound, func(ctx context.Context) error { _, err := client.MemberRemove(ctx, old); return err }); err != nil {
			return fmt.Errorf("replacing member %s: removing it: %w", name, err)
		}
	}
	c.Log.Info("adding the member anew", "name", name, "peer", peer)
	if err := c.patient(ctx, rpctypes.ErrPeerURLExist, func(ctx context.Context) error { _, err := client.MemberAdd(ctx, []string{peer}); return err }); err != nil {
		return fmt.Errorf("replacing member %s: it is removed, but adding it anew: %w; run this again", name, err)
	}
	return nil
}

func (c Cluster) quick(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return do(ctx)
}

// patient tries again where etcd finds its members unhealthy, which it does
// until they have been connected for five seconds (HealthInterval), and where a
// request is lost, as it is with a leader that has just been removed. The error
// done says that an attempt before has succeeded.
func (c Cluster) patient(ctx context.Context, done error, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := c.quick(ctx, do)
		again := errors.Is(err, rpctypes.ErrUnhealthy) || errors.Is(err, rpctypes.ErrTimeout) || errors.Is(err, context.DeadlineExceeded)
		switch {
		case errors.Is(err, done):
			return nil
		case !again || ctx.Err() != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// room looks whether the member at a peer URL can be replaced. It returns its
// ID, 0 if etcd does not list it, and the endpoints of the others that answer.
func (c Cluster) room(ctx context.Context, name, peer string, running bool) (old uint64, others []string, err error) {
	up, troubles := c.healthy(ctx)
	if len(up) == 0 {
		return 0, nil, fmt.Errorf("no member of etcd answers with a majority behind it: switch the masters on; if most have lost their data, there is only kscratch etcd restore: %w", errors.Join(troubles...))
	}
	list, err := c.list(ctx, slices.Collect(maps.Values(up)))
	if err != nil {
		return 0, nil, fmt.Errorf("asking etcd for its members: %w", err)
	}
	size := len(list)
	if i := slices.IndexFunc(list, func(m *etcdserverpb.Member) bool { return m.Name == name || slices.Contains(m.PeerURLs, peer) }); i >= 0 {
		old = list[i].ID
	} else {
		size++
	}
	if up[old] != "" && !running {
		return 0, nil, errors.New("it runs; give --running to replace it all the same")
	}
	delete(up, old)
	for _, m := range list {
		if e := up[m.ID]; e != "" {
			others = append(others, e)
		}
	}
	if need := size/2 + 1; len(others) < need {
		return 0, nil, errors.Join(fmt.Errorf("%d of the other members answer, and the cluster needs %d: switch those on first", len(others), need), errors.Join(troubles...))
	}
	return old, others, nil
}

// list returns etcd's members, as most of them know them.
func (c Cluster) list(ctx context.Context, endpoints []string) (_ []*etcdserverpb.Member, err error) {
	client, err := c.connect(endpoints...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	var list *clientv3.MemberListResponse
	err = c.quick(ctx, func(ctx context.Context) (err error) { list, err = client.MemberList(ctx); return err })
	if err != nil {
		return nil, err
	}
	return list.Members, nil
}
