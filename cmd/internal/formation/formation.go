// Package formation decides when a member of etcd may start, and as what, so
// that a set of masters that boot from one image, in any order and without a
// command, becomes one cluster, and never a second one.
//
// # The protocol
//
// A member whose disk holds no data of etcd draws a nonce and keeps it there.
// Members ask each other for their [Status], which never says more than what
// is on the disk of whoever answers. The member of the lowest name decides:
//
//  1. Once all others have told their nonces, and none has data or a record,
//     it proposes the set of all nonces: it accepts that itself.
//  2. The others accept what the decider proposes, if their own nonce is in it.
//  3. Once all have accepted the same set, the decider records it. The cluster
//     is formed by this one write.
//  4. The others record it when somebody tells them of a record that is what
//     they have accepted.
//
// A member with a record starts etcd as one of a new cluster, whose identity
// ([Record.ID]) is a digest of the nonces. A member that hears of a record
// without its nonce has lost its disk: its vote in the cluster that was may
// have counted, so it must not vote under the same name again. It waits until
// an operator has replaced it in etcd's own list of members, claims that place
// for its nonce in etcd itself, and starts as one that joins.
//
// # Why there is no second cluster
//
// Two things are needed of whoever calls [Next]. The state that it returns is
// on stable storage before a peer can see it or etcd is started by it; and the
// answers that it is given were all asked for after the last change of the
// state was. The second makes every answer newer than what the member has
// promised, so none that was delayed can undo it.
//
// Records are made by the decider only, from what all members have accepted.
// A decider with a record never makes another. One that has lost its disk asks
// all members first. If one has recorded the set of its forerunner, it finds
// out and is refused. If none has, then the only record there was is lost with
// the disk, no majority can have started by it, and none will: each member
// accepts the new set before that is recorded, and records only what it has
// accepted.
//
// Two machines that run at the same time under the same name are not covered;
// they have the same address, too.
//
// The package is pure: no clock, no file, no network, no randomness.
package formation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// Record is who forms a cluster: the nonce of each member by its name.
type Record struct {
	Members map[string]string `json:"members"`
}

// ID returns the identity of the cluster, 64 hex digits. It is the token of
// etcd's initial cluster, of which etcd derives the IDs of members and cluster.
func (r Record) ID() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(r.Members)) {
		fmt.Fprintf(h, "%s %s\n", name, r.Members[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func same(a, b *Record) bool { return a != nil && b != nil && maps.Equal(a.Members, b.Members) }

// State is what a member keeps on its disk. The zero value is a new disk.
type State struct {
	Nonce    string  `json:"nonce,omitempty"`    // of this disk while it has no data
	Accepted *Record `json:"accepted,omitempty"` // the last set that this member agreed to
	Record   *Record `json:"record,omitempty"`   // who formed the cluster that this member is in
	Joined   uint64  `json:"joined,omitempty"`   // etcd's ID of the member that this one is, if it replaces another
	HadData  bool    `json:"hadData,omitempty"`  // etcd's data has been seen on this disk
}

// Status is what a member tells its peers.
type Status struct {
	Name     string  `json:"name"`
	Nonce    string  `json:"nonce,omitempty"`
	Data     bool    `json:"data,omitempty"` // etcd's data is on its disk
	Accepted *Record `json:"accepted,omitempty"`
	Record   *Record `json:"record,omitempty"`
}

// Status returns what a member of that name with this state tells.
func (s State) Status(name string, data bool) Status {
	return Status{Name: name, Nonce: s.Nonce, Data: data, Accepted: s.Accepted, Record: s.Record}
}

var nonce = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Check reports what no member tells: texts that are no nonces, and a record
// of other members than those given.
func (s Status) Check(members []string) error {
	if !slices.Contains(members, s.Name) {
		return fmt.Errorf("a status of %q, which is no member", s.Name)
	}
	if s.Nonce != "" && !nonce.MatchString(s.Nonce) {
		return fmt.Errorf("a status of %s with a nonce that is none", s.Name)
	}
	return errors.Join(s.Accepted.check(members), s.Record.check(members))
}

func (r *Record) check(members []string) error {
	if r == nil {
		return nil
	}
	for name, n := range r.Members {
		if !nonce.MatchString(n) {
			return fmt.Errorf("a record of %q with a nonce that is none", name)
		}
	}
	if got := slices.Sorted(maps.Keys(r.Members)); !slices.Equal(got, slices.Sorted(slices.Values(members))) {
		return fmt.Errorf("a record of %v, but the members are %v: their images are of different cluster files", got, members)
	}
	return nil
}

// Seat is what etcd itself says of a member's place, read by agreement of a
// majority. The zero value is that nobody could be asked.
type Seat struct {
	Known     bool   // etcd was asked
	ID        uint64 // of the member with our peer address; 0: there is none
	Added     bool   // it was added to a running cluster and has not run yet
	Published bool   // it has run and told its addresses
	Claim     string // nonce of the disk for which an added place is taken; empty: none yet
}

// free reports whether somebody replaced us: there is a place without a past.
func (s Seat) free() bool { return s.Known && s.ID != 0 && s.Added }
