package etcdadmin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
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
	client, err := c.connect(c.endpoints()...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	peer := memberapi.URL(m.Address.String(), memberapi.PeerPort)
	old, err := c.room(ctx, client, name, peer, running)
	if err != nil {
		return fmt.Errorf("replacing member %s: %w", name, err)
	}
	if old != nil {
		c.Log.Info("removing the member", "name", name, "id", fmt.Sprintf("%x", old.ID))
		if err := c.quick(ctx, func(ctx context.Context) error { _, err := client.MemberRemove(ctx, old.ID); return err }); err != nil {
			return fmt.Errorf("replacing member %s: removing it: %w", name, err)
		}
	}
	c.Log.Info("adding the member anew", "name", name, "peer", peer)
	if err := c.quick(ctx, func(ctx context.Context) error { _, err := client.MemberAdd(ctx, []string{peer}); return err }); err != nil {
		return fmt.Errorf("replacing member %s: it is removed, but adding it anew: %w; run this again", name, err)
	}
	return nil
}

func (c Cluster) quick(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return do(ctx)
}

// room looks whether the member at a peer URL can be replaced, and returns it;
// nil if etcd does not list it.
func (c Cluster) room(ctx context.Context, client *clientv3.Client, name, peer string, running bool) (*etcdserverpb.Member, error) {
	var list *clientv3.MemberListResponse
	err := c.quick(ctx, func(ctx context.Context) (err error) { list, err = client.MemberList(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("asking etcd for its members: %w; without a majority there is only kscratch etcd restore", err)
	}
	var old *etcdserverpb.Member
	i := slices.IndexFunc(list.Members, func(m *etcdserverpb.Member) bool { return m.Name == name || slices.Contains(m.PeerURLs, peer) })
	if i >= 0 {
		old = list.Members[i]
	}
	ids, troubles := c.healthy(ctx)
	others := 0
	for _, m := range list.Members {
		switch up := slices.Contains(ids, m.ID); {
		case old != nil && m.ID == old.ID && up && !running:
			return nil, fmt.Errorf("it runs; give --running to replace it all the same")
		case (old == nil || m.ID != old.ID) && up:
			others++
		}
	}
	size := len(list.Members)
	if old == nil {
		size++
	}
	if need := size/2 + 1; others < need {
		return nil, errors.Join(fmt.Errorf("%d of the other members answer, and the cluster needs %d: switch those on first", others, need), errors.Join(troubles...))
	}
	return old, nil
}
