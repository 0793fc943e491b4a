package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// unitCycle reports a cycle for each set of units that wait for each other.
func unitCycle(n *node) []Finding {
	o := n.units.order()
	var out []Finding
	for _, knot := range o.knots() {
		out = append(out, o.report(o.cycle(knot)))
	}
	return out
}

// report blames the first of the user's files that has a part in a cycle, else
// one of the configuration's, else one of Debian's, about which the user can do
// little.
func (o order) report(cycle []string) Finding {
	f := Finding{Severity: Warning, Where: cycle[0], Fix: "remove one of these orders; systemd would not start one of the units"}
	var steps []string
	blame := 0
	for i, name := range cycle {
		first := cycle[(i+1)%len(cycle)]
		e := o.after[name][first]
		step := fmt.Sprintf("%s after %s: %s", name, first, e.why)
		if e.file != "" {
			step += " in " + e.file
		}
		steps = append(steps, step)
		if b := o.units.blame(e.file); b > blame {
			blame, f.Where = b, o.units.files.where(e.file)
		}
	}
	if blame > 1 {
		f.Severity = Error
	}
	f.What = "units wait for each other: " + strings.Join(steps, ", ")
	return f
}

// blame is 1 for a file of Debian's, 2 for one of the configuration, 3 for the
// user's, and 0 for none.
func (u units) blame(file string) int {
	f := u.files[file]
	switch {
	case file == "":
		return 0
	case f.From != "":
		return 3
	case f.Config:
		return 2
	}
	return 1
}

// knots returns the sets of units of which each waits for every other: the
// strongly connected components of more than one (R. Tarjan, "Depth-first search and linear graph algorithms", 1972).
func (o order) knots() [][]string {
	var (
		out        [][]string
		stack      []string
		index, low = map[string]int{}, map[string]int{}
		onStack    = map[string]bool{}
		visit      func(string)
	)
	visit = func(v string) {
		index[v] = len(index) + 1
		low[v] = index[v]
		stack, onStack[v] = append(stack, v), true
		for _, w := range slices.Sorted(maps.Keys(o.after[v])) {
			if index[w] == 0 {
				visit(w)
				low[v] = min(low[v], low[w])
			} else if onStack[w] {
				low[v] = min(low[v], index[w])
			}
		}
		if low[v] != index[v] {
			return
		}
		at := slices.Index(stack, v)
		knot := slices.Clone(stack[at:])
		stack = stack[:at]
		for _, w := range knot {
			onStack[w] = false
		}
		if len(knot) > 1 {
			slices.Sort(knot)
			out = append(out, knot)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(o.set)) {
		if index[v] == 0 {
			visit(v)
		}
	}
	return out
}

// cycle returns a shortest way from a unit of a knot to itself. It begins in a
// unit that the user can change, if there is one.
func (o order) cycle(knot []string) []string {
	start := slices.MaxFunc(knot, func(a, b string) int { return cmp.Compare(o.set[a].blame, o.set[b].blame) })
	from := map[string]string{}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		for _, w := range slices.Sorted(maps.Keys(o.after[queue[0]])) {
			if w == start {
				out := []string{queue[0]}
				for v := queue[0]; v != start; v = from[v] {
					out = append(out, from[v])
				}
				slices.Reverse(out)
				return out
			}
			if _, seen := from[w]; !seen && slices.Contains(knot, w) {
				from[w] = queue[0]
				queue = append(queue, w)
			}
		}
	}
	return knot // unreachable: every unit of a knot is on a cycle
}
