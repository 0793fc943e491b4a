package formation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// nonceOf returns a readable nonce: its first digits count.
func nonceOf(n int) string { return fmt.Sprintf("%032x", n) }

var (
	one, two, three, other = nonceOf(1), nonceOf(2), nonceOf(3), nonceOf(9)

	all = &Record{map[string]string{"a": one, "b": two, "c": three}}
	old = &Record{map[string]string{"a": other, "b": two, "c": three}}
)

func heard(list ...Status) map[string]Status {
	m := map[string]Status{}
	for _, s := range list {
		m[s.Name] = s
	}
	return m
}

// show is a verdict and the state as a line.
func show(s State, v Verdict) string {
	kinds := []string{"again", "wait", "start", "claim", "set aside", "refuse"}
	whys := []string{"lost disk", "other cluster", "removed", "taken"}
	out := kinds[v.Kind]
	if v.Kind == Refuse {
		out += " " + whys[v.Why]
	}
	if len(v.Missing) > 0 {
		out += " " + strings.Join(v.Missing, ",")
	}
	out += ": nonce " + strings.TrimLeft(s.Nonce, "0")
	for _, r := range []struct {
		name string
		r    *Record
	}{{"accepted", s.Accepted}, {"record", s.Record}} {
		if r.r == nil {
			continue
		}
		out += " " + r.name + " "
		for _, n := range slices.Sorted(maps.Keys(r.r.Members)) {
			out += strings.TrimLeft(r.r.Members[n], "0")
		}
	}
	if s.Joined != 0 {
		out += fmt.Sprintf(" joined %d", s.Joined)
	}
	if s.HadData {
		out += " had data"
	}
	return out
}

func TestNext(t *testing.T) {
	emptyA, emptyB, emptyC := Status{Name: "a", Nonce: one}, Status{Name: "b", Nonce: two}, Status{Name: "c", Nonce: three}
	with := func(s Status, accepted, record *Record) Status {
		s.Accepted, s.Record = accepted, record
		return s
	}
	mine := func(n string, accepted, record *Record) State {
		return State{Nonce: n, Accepted: accepted, Record: record}
	}
	ran := State{Nonce: three, Record: all, HadData: true}
	free := Seat{Known: true, ID: 7, Added: true}
	for _, c := range []struct {
		name string
		s    State
		v    View
		want string
	}{
		{"new disk", State{}, View{Self: "a"}, "again: nonce f"},
		{"nobody yet", mine(one, nil, nil), View{Self: "a"}, "wait b,c: nonce 1"},
		{"one yet", mine(one, nil, nil), View{Self: "a", Heard: heard(emptyC)}, "wait b: nonce 1"},
		{"one has no nonce yet", mine(one, nil, nil), View{Self: "a", Heard: heard(Status{Name: "b"}, emptyC)}, "wait b: nonce 1"},
		{"decider proposes", mine(one, nil, nil), View{Self: "a", Heard: heard(emptyB, emptyC)}, "again: nonce 1 accepted 123"},
		{"decider proposes anew", mine(one, old, nil), View{Self: "a", Heard: heard(emptyB, emptyC)}, "again: nonce 1 accepted 123"},
		{"decider waits for all", mine(one, all, nil), View{Self: "a", Heard: heard(with(emptyB, all, nil), emptyC)}, "wait: nonce 1 accepted 123"},
		{"decider takes no other for its own", mine(one, all, nil), View{Self: "a", Heard: heard(with(emptyB, all, nil), with(emptyC, old, nil))}, "wait: nonce 1 accepted 123"},
		{"decider records", mine(one, all, nil), View{Self: "a", Heard: heard(with(emptyB, all, nil), with(emptyC, all, nil))}, "again: nonce 1 accepted 123 record 123"},
		{"decider alone starts", mine(one, all, all), View{Self: "a"}, "start: nonce 1 accepted 123 record 123"},
		{"decider with data elsewhere", mine(one, nil, nil), View{Self: "a", Heard: heard(Status{Name: "b", Data: true}, emptyC)}, "refuse lost disk: nonce 1"},
		{"member waits", mine(two, nil, nil), View{Self: "b"}, "wait a,c: nonce 2"},
		{"member accepts", mine(two, nil, nil), View{Self: "b", Heard: heard(with(emptyA, all, nil))}, "again: nonce 2 accepted 123"},
		{"member accepts another", mine(two, old, nil), View{Self: "b", Heard: heard(with(emptyA, all, nil))}, "again: nonce 2 accepted 123"},
		{"member accepts from the decider only", mine(two, nil, nil), View{Self: "b", Heard: heard(with(emptyC, all, nil))}, "wait a: nonce 2"},
		{"member is not in the set", mine(other, nil, nil), View{Self: "b", Heard: heard(with(emptyA, all, nil))}, "wait c: nonce 9"},
		{"member records", mine(two, all, nil), View{Self: "b", Heard: heard(with(emptyA, all, all))}, "again: nonce 2 accepted 123 record 123"},
		{"member records at third hand", mine(two, all, nil), View{Self: "b", Heard: heard(with(emptyC, all, all))}, "again: nonce 2 accepted 123 record 123"},
		{"member records what it accepted only", mine(two, old, nil), View{Self: "b", Heard: heard(with(emptyA, all, all))}, "refuse lost disk: nonce 2 accepted 923"},
		{"member starts", mine(two, all, all), View{Self: "b"}, "start: nonce 2 accepted 123 record 123"},
		{"data is noted", mine(two, all, all), View{Self: "b", Data: true}, "again: nonce 2 accepted 123 record 123 had data"},
		{"data starts alone", ran, View{Self: "c", Data: true}, "start: nonce 3 record 123 had data"},
		{"data has gone", ran, View{Self: "c"}, "again: nonce f"},
		{"lost disk", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all))}, "refuse lost disk: nonce 9"},
		{"lost disk of the decider", mine(other, nil, nil), View{Self: "a", Heard: heard(with(emptyB, all, all), with(emptyC, all, all))}, "refuse lost disk: nonce 9"},
		{"not replaced", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all)), Seat: Seat{Known: true, ID: 7, Published: true}}, "refuse lost disk: nonce 9"},
		{"removed only", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all)), Seat: Seat{Known: true}}, "refuse lost disk: nonce 9"},
		{"replaced", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all)), Seat: free}, "claim: nonce 9"},
		{"claimed", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all)), Seat: Seat{Known: true, ID: 7, Added: true, Claim: other}}, "again: nonce 9 record 123 joined 7"},
		{"claimed by another disk", mine(other, nil, nil), View{Self: "c", Heard: heard(with(emptyA, all, all)), Seat: Seat{Known: true, ID: 7, Added: true, Claim: three}}, "refuse taken: nonce 9"},
		{"joins", State{Nonce: other, Record: all, Joined: 7}, View{Self: "c", Seat: Seat{Known: true, ID: 7, Added: true, Claim: other}}, "start: nonce 9 record 123 joined 7"},
		{"joins with nobody to ask", State{Nonce: other, Record: all, Joined: 7}, View{Self: "c"}, "start: nonce 9 record 123 joined 7"},
		{"replaced again before it ran", State{Nonce: other, Record: all, Joined: 7}, View{Self: "c", Seat: Seat{Known: true, ID: 8, Added: true}}, "again: nonce f"},
		{"replaced before it ever ran", mine(three, all, all), View{Self: "c", Seat: free}, "again: nonce f"},
		{"ran, but lost its data at once", mine(three, all, all), View{Self: "c", Seat: Seat{Known: true, ID: 3, Published: true}}, "again: nonce f"},
		{"removed before it ever ran", mine(three, all, all), View{Self: "c", Seat: Seat{Known: true}}, "refuse removed: nonce 3 accepted 123 record 123"},
		{"data of a member that was replaced", ran, View{Self: "c", Data: true, Seat: free}, "set aside: nonce 3 record 123 had data"},
		{"data of the member that joins", State{Nonce: other, Record: all, Joined: 7, HadData: true}, View{Self: "c", Data: true, Seat: free}, "start: nonce 9 record 123 joined 7 had data"},
		{"data of a member that was removed", ran, View{Self: "c", Data: true, Seat: Seat{Known: true}}, "refuse removed: nonce 3 record 123 had data"},
		{"data of another cluster", ran, View{Self: "c", Data: true, Heard: heard(with(emptyA, nil, old), with(emptyB, nil, old))}, "refuse other cluster: nonce 3 record 123 had data"},
		{"data that one other does not share", ran, View{Self: "c", Data: true, Heard: heard(with(emptyA, nil, old), with(emptyB, nil, all))}, "start: nonce 3 record 123 had data"},
	} {
		c.v.Members, c.v.Fresh = []string{"c", "b", "a"}, strings.Repeat("0", 31)+"f"
		if got := show(Next(c.s, c.v)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestTold: who joins takes the record that most tell of. Some may still have
// that of a cluster before.
func TestTold(t *testing.T) {
	tell := func(names string, r *Record) (out []Status) {
		for _, n := range strings.Split(names, "") {
			out = append(out, Status{Name: n, Record: r})
		}
		return out
	}
	for _, c := range []struct {
		name  string
		heard []Status
		want  *Record
	}{
		{"nobody", nil, nil},
		{"no record", tell("ab", nil), nil},
		{"the last differs", append(tell("ab", all), tell("d", old)...), all},
		{"the first differs", append(tell("a", old), tell("bd", all)...), all},
		{"most say nothing", append(tell("abc", nil), tell("d", old)...), old},
	} {
		if got := told(heard(c.heard...)); got != c.want {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

// TestAlone: a single member waits for nobody.
func TestAlone(t *testing.T) {
	s, steps := State{}, []string{}
	for range 4 {
		var v Verdict
		s, v = Next(s, View{Self: "m", Members: []string{"m"}, Fresh: one})
		steps = append(steps, show(s, v))
	}
	want := []string{"again: nonce 1", "again: nonce 1 accepted 1", "again: nonce 1 accepted 1 record 1", "start: nonce 1 accepted 1 record 1"}
	if !slices.Equal(steps, want) {
		t.Errorf("got %q", steps)
	}
}

func TestID(t *testing.T) {
	if a, b := all.ID(), old.ID(); a == b || len(a) != 64 || a != (Record{maps.Clone(all.Members)}).ID() {
		t.Errorf("IDs %s and %s", a, b)
	}
}

func TestStatusCheck(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{Name: "a", Nonce: one, Accepted: all, Record: all}, ""},
		{Status{Name: "a"}, ""},
		{Status{Name: "z"}, `a status of "z", which is no member`},
		{Status{Name: "a", Nonce: "x"}, "a status of a with a nonce that is none"},
		{Status{Name: "a", Accepted: &Record{map[string]string{"a": one}}}, "different cluster files"},
		{Status{Name: "a", Record: &Record{map[string]string{"a": one, "b": "", "c": three}}}, `"b" with a nonce that is none`},
	} {
		err := c.s.Check([]string{"a", "b", "c"})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %s", c.s, err, c.want)
		}
	}
}
