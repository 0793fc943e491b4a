package formation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// sim is a world of machines, disks, cables and etcd, in which anything may
// happen between any two steps.
type sim struct {
	t        testing.TB
	r        *rand.Rand
	names    []string
	machines map[string]*machine
	cut      map[string]bool // "a b": no packets, in that order
	clusters map[string]*cluster
	formed   []string // IDs of all records ever kept
	nonces   int
	ids      uint64
	lost     int  // disks
	hard     bool // times: machines die often, most with their disks
	trace    []string
}

type machine struct {
	name string
	up   bool
	disk disk

	asking bool // in a look around
	view   View
	runs   bool // etcd
	last   Verdict
}

type disk struct {
	number int
	state  State
	data   bool   // etcd's
	member uint64 // whose data it is
}

// cluster is what etcd has agreed on.
type cluster struct {
	members map[uint64]*place
}

type place struct {
	name      string
	added     bool
	published bool
	claim     string
	disks     map[int]bool // on which it has run
}

func newSim(t testing.TB, seed uint64, members int) *sim {
	w := &sim{t: t, r: rand.New(rand.NewPCG(seed, 1)), machines: map[string]*machine{}, cut: map[string]bool{}, clusters: map[string]*cluster{}}
	for i := range members {
		name := string(rune('a' + i))
		w.names = append(w.names, name)
		w.machines[name] = &machine{name: name, disk: disk{number: w.id()}}
	}
	return w
}

func (w *sim) id() int { w.ids++; return int(w.ids) }

func (w *sim) fresh() string { w.nonces++; return nonceOf(w.nonces) }

func (w *sim) fail(format string, args ...any) {
	w.t.Helper()
	tail := w.trace[max(0, len(w.trace)-60):]
	for _, l := range tail {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

func (w *sim) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *sim) linked(a, b string) bool { return !w.cut[a+" "+b] && !w.cut[b+" "+a] }

// quorum returns the cluster that has one, as a machine sees it; nil if none.
func (w *sim) quorum(from string) *cluster {
	for _, c := range w.clusters {
		if w.alive(c) > len(c.members)/2 && slices.ContainsFunc(w.names, func(n string) bool {
			m := w.machines[n]
			return n != from && m.up && m.runs && m.disk.data && c.members[m.disk.member] != nil && w.linked(from, n)
		}) {
			return c
		}
	}
	return nil
}

func (w *sim) alive(c *cluster) (n int) {
	for _, m := range w.machines {
		if m.up && m.runs && m.disk.data && c.members[m.disk.member] != nil {
			n++
		}
	}
	return n
}

func (w *sim) seat(of string) Seat {
	c := w.quorum(of)
	if c == nil {
		return Seat{}
	}
	s := Seat{Known: true}
	for id, p := range c.members {
		if p.name == of {
			s.ID, s.Added, s.Published, s.Claim = id, p.added, p.published, p.claim
		}
	}
	return s
}

func (m *machine) kill() { m.up, m.asking, m.runs = false, false, false }

// finish is the end of a look around: the power may go before the new state is
// kept, or after.
func (w *sim) finish(m *machine, deadly bool) {
	m.asking = false
	m.view.Fresh, m.view.Data = w.fresh(), m.disk.data
	s, v := Next(m.disk.state, m.view)
	w.say("%s heard %v: %s", m.name, m.view.Heard, show(s, v))
	m.last = v
	if deadly && w.r.IntN(60) == 0 {
		m.kill()
		return
	}
	w.keep(m, s)
	if deadly && w.r.IntN(60) == 0 {
		m.kill()
		return
	}
	switch v.Kind {
	case Start:
		m.runs = true
	case SetAside:
		m.runs, m.disk.data = false, false
		if !deadly || w.r.IntN(4) > 0 {
			m.disk.state = State{}
		}
	case Claim:
		if c := w.quorum(m.name); c != nil {
			if p := c.members[m.view.Seat.ID]; p != nil && p.claim == "" {
				p.claim = s.Nonce
			}
		}
	case Refuse:
		m.runs = false
	}
}

// keep writes a state to the disk and looks for what must never be.
func (w *sim) keep(m *machine, s State) {
	m.disk.state = s
	if s.Record == nil {
		return
	}
	id := s.Record.ID()
	for _, o := range w.machines {
		if r := o.disk.state.Record; r != nil && r.ID() != id {
			w.fail("%s and %s are of different clusters", m.name, o.name)
		}
	}
	if slices.Contains(w.formed, id) {
		return
	}
	for _, o := range w.machines {
		if o != m && o.disk.data {
			w.fail("%s forms a cluster although %s has data", m.name, o.name)
		}
	}
	w.formed = append(w.formed, id)
	c := &cluster{members: map[uint64]*place{}}
	for _, name := range w.names {
		c.members[uint64(w.id())] = &place{name: name, disks: map[int]bool{}}
	}
	w.clusters[id] = c
}

// etcd goes one step on a machine where it runs: it makes its data, or tells
// its addresses.
func (w *sim) etcd(m *machine) {
	if !m.runs || m.disk.state.Record == nil {
		return
	}
	c := w.clusters[m.disk.state.Record.ID()]
	if !m.disk.data {
		for id, p := range c.members {
			if m.disk.state.Joined == id || m.disk.state.Joined == 0 && p.name == m.name && !p.added {
				m.disk.data, m.disk.member = true, id
				p.disks[m.disk.number] = true
				if len(p.disks) > 1 {
					w.fail("member %d (%s) votes with two disks", id, m.name)
				}
			}
		}
		return
	}
	if p := c.members[m.disk.member]; p != nil && w.quorum(m.name) == c {
		p.published, p.added = true, false
	}
}

// replace is an operator who was told on the console to do so.
func (w *sim) replace(name string) {
	c := w.quorum(name)
	if c == nil {
		return
	}
	for id, p := range c.members {
		m := w.machines[name]
		if p.name != name {
			continue
		}
		after := w.alive(c)
		if m.up && m.runs && m.disk.data && m.disk.member == id {
			after--
		}
		if after <= len(c.members)/2 {
			return
		}
		delete(c.members, id)
		c.members[uint64(w.id())] = &place{name: name, added: true, disks: map[int]bool{}}
		w.say("operator replaces %s", name)
		return
	}
}

// step lets one thing happen.
func (w *sim) step(deadly bool) {
	m := w.machines[w.names[w.r.IntN(len(w.names))]]
	o := w.names[w.r.IntN(len(w.names))]
	switch n := w.r.IntN(100); {
	case !m.up:
		m.up = n < 40 || !deadly
	case deadly && n < w.danger():
		m.kill()
		w.say("%s is killed", m.name)
		w.damage(m)
	case deadly && n < 3:
		w.cut[m.name+" "+o] = true
	case deadly && n < 10:
		delete(w.cut, m.name+" "+o)
	case n < 25:
		if !m.asking {
			m.asking, m.view = true, View{Self: m.name, Members: w.names, Heard: map[string]Status{}}
		}
	case n < 65:
		if m.asking && o != m.name && w.machines[o].up && w.linked(m.name, o) {
			m.view.Heard[o] = w.machines[o].disk.state.Status(o, w.machines[o].disk.data)
		}
	case n < 75:
		if m.asking {
			m.view.Seat = w.seat(m.name)
		}
	case n < 82:
		if m.asking && (len(m.view.Heard) == len(w.names)-1 || w.r.IntN(4) == 0) {
			w.finish(m, deadly)
		}
	case n < 86:
		w.etcd(m)
	default:
		if m.last.Kind == Refuse && m.last.Why != OtherCluster || deadly && w.r.IntN(30) == 0 {
			w.replace(m.name)
		}
	}
}

// danger is how many of a hundred steps kill.
func (w *sim) danger() int {
	if w.hard {
		return 2
	}
	return 1
}

// damage may burn the disk of a machine that is off, or only etcd's data on it.
// That data is gone before anybody took note of it is left out: kscratch-node
// looks every second.
func (w *sim) damage(m *machine) {
	n := w.r.IntN(100)
	switch {
	case n < 10, w.hard && n < 60:
		m.disk = disk{number: w.id()}
		w.say("%s loses its disk", m.name)
	case n > 90 && m.disk.state.HadData:
		m.disk.number, m.disk.data = w.id(), false
		w.say("%s loses its data", m.name)
	default:
		return
	}
	w.lost++
}

// running returns how many members run in one cluster.
func (w *sim) running() (n int) {
	for _, c := range w.clusters {
		n = max(n, w.alive(c))
	}
	return n
}

// TestSimulation kills machines between any two steps, parts them and burns
// their disks. Whatever happens there is never a second cluster, and no disk
// votes in the name of another. When all is quiet again the cluster comes up,
// if it has a majority.
func TestSimulation(t *testing.T) {
	worlds := 1000
	if testing.Short() {
		worlds = 200
	}
	formed, stuck := 0, 0
	for seed := range uint64(worlds) {
		members := []int{1, 3, 3, 5}[seed%4]
		w := newSim(t, seed, members)
		w.hard = seed%3 == 0
		for range w.r.IntN(6000) {
			w.step(seed%5 != 0)
		}
		lost := w.lost
		had := w.running() > members/2
		clear(w.cut)
		for i := 0; i < 40000 && w.running() < members; i++ {
			w.step(false)
		}
		if w.running() == members {
			formed++
			continue
		}
		if lost == 0 || had {
			w.fail("seed %d: %d of %d members run, %d disks were lost", seed, w.running(), members, lost)
		}
		stuck++
	}
	t.Logf("%d worlds: %d came up, %d had lost a majority", worlds, formed, stuck)
}
