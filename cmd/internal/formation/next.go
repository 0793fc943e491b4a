package formation

import (
	"slices"
)

// Kind is what a member is to do.
type Kind int

// What a member is to do.
const (
	Again    Kind = iota // the state has changed: keep it, then ask and look again
	Wait                 // for the members in Verdict.Missing
	Start                // etcd; see [State.Existing]
	Claim                // the seat in etcd, for the nonce of this disk; then look again
	SetAside             // the data, which is of a member that was replaced, under another name; then forget the state
	Refuse               // to start, and say why
)

// Why is the reason of a refusal.
type Why int

// Reasons of a refusal.
const (
	LostDisk     Why = iota // the cluster was formed, but not with this disk
	OtherCluster            // most members are of another cluster than this disk's data
	Removed                 // etcd's list of members has no place for this one
	Taken                   // the place was claimed for a disk that is not this one
)

// Verdict is what to do with the state that it comes with.
type Verdict struct {
	Kind    Kind
	Missing []string // names of silent members, sorted; empty while all have been heard but have not agreed yet
	Why     Why
	Cluster string // ID of the others' cluster, for messages; may be empty
}

// Existing reports whether etcd is to join a cluster rather than form one with
// others. It ignores that once it has data.
func (s State) Existing() bool { return s.Joined != 0 }

// View is what a member sees in one look around.
type View struct {
	Self    string
	Members []string          // names of all, itself included
	Data    bool              // etcd's data is on the disk, looked at after all else here
	Heard   map[string]Status // of the others, by name, asked for after the state was kept
	Seat    Seat
	Fresh   string // a new random nonce, for when one is needed
}

// Next returns what a member does, and the state that it keeps before it does
// that; see the package's comment for what that asks of the caller.
func Next(s State, v View) (State, Verdict) {
	switch {
	case v.Data && !s.HadData:
		s.HadData = true
		return s, Verdict{Kind: Again}
	case v.Data:
		return withData(s, v)
	case s.Nonce == "", s.HadData:
		// A new disk, or one from which the data has gone.
		return State{Nonce: v.Fresh}, Verdict{Kind: Again}
	case s.Record != nil || s.Joined != 0:
		return recorded(s, v)
	}
	return empty(s, v)
}

// withData is a member that has been running: it runs, unless it was replaced
// or most others are of another cluster.
func withData(s State, v View) (State, Verdict) {
	if v.Seat.free() && v.Seat.ID != s.Joined {
		return s, Verdict{Kind: SetAside}
	}
	others := map[string]int{}
	for _, h := range v.Heard {
		if h.Record != nil && s.Record != nil && !same(h.Record, s.Record) {
			others[h.Record.ID()]++
		}
	}
	for id, n := range others {
		if n > len(v.Members)/2 {
			return s, Verdict{Kind: Refuse, Why: OtherCluster, Cluster: id}
		}
	}
	if v.Seat.Known && v.Seat.ID == 0 {
		return s, Verdict{Kind: Refuse, Why: Removed, Cluster: s.cluster()}
	}
	return s, Verdict{Kind: Start}
}

// recorded is a member that may start and, as far as it knows, has not. It may
// have been replaced meanwhile, or have lost its data before it took note of it.
func recorded(s State, v View) (State, Verdict) {
	switch seat := v.Seat; {
	case s.Joined == 0 && seat.free(), s.Joined != 0 && seat.Known && seat.ID != s.Joined, seat.Published:
		return State{Nonce: v.Fresh}, Verdict{Kind: Again}
	case seat.Known && seat.ID == 0:
		return s, Verdict{Kind: Refuse, Why: Removed, Cluster: s.cluster()}
	}
	return s, Verdict{Kind: Start}
}

func (s State) cluster() string {
	if s.Record == nil {
		return ""
	}
	return s.Record.ID()
}

// empty is a member without data or record.
func empty(s State, v View) (State, Verdict) {
	formed := false
	for _, h := range v.Heard {
		if same(h.Record, s.Accepted) {
			s.Record = s.Accepted
			return s, Verdict{Kind: Again}
		}
		formed = formed || h.Data || h.Record != nil
	}
	if formed {
		return late(s, v, told(v.Heard))
	}
	if decider(v.Members) == v.Self {
		return decide(s, v)
	}
	p := v.Heard[decider(v.Members)].Accepted
	if p != nil && p.Members[v.Self] == s.Nonce && !same(p, s.Accepted) {
		s.Accepted = p
		return s, Verdict{Kind: Again}
	}
	return s, Verdict{Kind: Wait, Missing: missing(v)}
}

// told returns the record that most tell of; nil if nobody does. Of several the
// lowest ID counts.
func told(heard map[string]Status) (most *Record) {
	n := map[string]int{}
	for _, h := range heard {
		if h.Record != nil {
			n[h.Record.ID()]++
		}
	}
	for _, h := range heard {
		if h.Record == nil {
			continue
		}
		if most == nil || n[h.Record.ID()] > n[most.ID()] || n[h.Record.ID()] == n[most.ID()] && h.Record.ID() < most.ID() {
			most = h.Record
		}
	}
	return most
}

// late is a member without data in a cluster that was formed without its disk.
func late(s State, v View, theirs *Record) (State, Verdict) {
	refused := Verdict{Kind: Refuse, Why: LostDisk, Cluster: State{Record: theirs}.cluster()}
	switch seat := v.Seat; {
	case !seat.free():
		return s, refused
	case seat.Claim == s.Nonce:
		return State{Nonce: s.Nonce, Record: theirs, Joined: seat.ID}, Verdict{Kind: Again}
	case seat.Claim == "":
		return s, Verdict{Kind: Claim}
	}
	refused.Why = Taken
	return s, refused
}

// decide proposes the set of all nonces, and records it once all accept it.
func decide(s State, v View) (State, Verdict) {
	silent := missing(v)
	p := &Record{Members: map[string]string{v.Self: s.Nonce}}
	agreed := true
	for name, h := range v.Heard {
		if h.Nonce == "" {
			silent = append(silent, name)
		}
		p.Members[name] = h.Nonce
	}
	for _, h := range v.Heard {
		agreed = agreed && same(h.Accepted, p)
	}
	switch {
	case len(silent) > 0:
		slices.Sort(silent)
		return s, Verdict{Kind: Wait, Missing: silent}
	case !same(s.Accepted, p):
		s.Accepted = p
		return s, Verdict{Kind: Again}
	case agreed:
		s.Record = p
		return s, Verdict{Kind: Again}
	}
	return s, Verdict{Kind: Wait}
}

func decider(members []string) string { return slices.Min(members) }

// missing returns the members that were not heard, sorted.
func missing(v View) []string {
	var out []string
	for _, name := range v.Members {
		if _, ok := v.Heard[name]; !ok && name != v.Self {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
