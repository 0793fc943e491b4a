package lint

import (
	"path"
	"slices"
	"strings"
)

// order says which units systemd starts after which others when it boots, with
// what it adds to unit files by itself (systemd.unit(5) and the page of each
// kind, "Implicit Dependencies" and "Default Dependencies"). Only units that
// start together wait for each other, so those that sockets, timers and paths
// call later are left out, as are slices and devices, which nothing is ordered
// after but what is in them.
type order struct {
	units units
	set   map[string]*unit           // that a boot starts
	after map[string]map[string]edge // by unit and the one that goes first
}

// edge is why a unit goes after another.
type edge struct {
	why  string // an assignment, or a rule of systemd's
	file string // that has it; empty: none
}

// boot returns the units of a boot, in no order. What the configuration enables
// is always one of them: boot-complete.target is pulled in by a generator.
func (u units) boot() order {
	o := order{units: u, set: map[string]*unit{}, after: map[string]map[string]edge{}}
	o.pull("default.target")
	for _, name := range u.configured() {
		if u.files[etcUnits+name].State == "enabled" {
			o.pull(name)
		}
	}
	return o
}

func (u units) order() order {
	o := u.boot()
	for _, it := range o.set {
		o.explicit(it)
		o.implicit(it)
	}
	for _, it := range o.set {
		o.targets(it)
	}
	return o
}

// pull adds a unit, and what it starts.
func (o order) pull(name string) {
	it := o.units.load(name)
	if it == nil || it.masked || o.set[it.name] != nil {
		return
	}
	o.set[it.name] = it
	for _, w := range o.starts(it) {
		o.pull(w.name)
	}
	if !it.no("Unit", "DefaultDependencies") && path.Ext(it.name) != ".target" {
		o.pull("sysinit.target")
	}
}

// starts returns the units that one starts with itself.
func (o order) starts(it *unit) []wish {
	var out []wish
	for _, l := range it.lines {
		if l.section == "Unit" && slices.Contains([]string{"Requires", "Wants", "BindsTo", "Upholds"}, l.key) {
			for name := range strings.FieldsSeq(l.value) {
				out = append(out, wish{name, l.key, l.file})
			}
		}
	}
	out = append(out, o.units.wanted[it.name]...)
	if of, _, ok := template(it.name); ok {
		out = append(out, o.units.wanted[of]...)
	}
	return out
}

// triggers returns the units that a socket, timer or path starts later.
func (o order) triggers(it *unit) []string {
	kind := path.Ext(it.name)
	section, ok := map[string]string{".socket": "Socket", ".timer": "Timer", ".path": "Path"}[kind]
	if !ok {
		return nil
	}
	key := "Unit"
	if kind == ".socket" {
		if key = "Service"; it.value(section, "Accept") == "yes" || it.value(section, "Accept") == "true" {
			return nil // an instance for each connection
		}
	}
	if name := it.value(section, key); name != "" {
		return []string{name}
	}
	return []string{strings.TrimSuffix(it.name, kind) + ".service"}
}

// add says that second goes after first, if a boot starts both.
func (o order) add(first, second string, e edge) {
	a, b := o.units.load(first), o.units.load(second)
	if a == nil || b == nil || a == b || o.set[a.name] == nil || o.set[b.name] == nil {
		return
	}
	if o.after[b.name] == nil {
		o.after[b.name] = map[string]edge{}
	}
	// Of several reasons one that a file gives, and always the same one.
	old, ok := o.after[b.name][a.name]
	if !ok || old.file == "" && e.file != "" || (old.file == "") == (e.file == "") && e.file+e.why < old.file+old.why {
		o.after[b.name][a.name] = e
	}
}

func (o order) explicit(it *unit) {
	for _, l := range it.lines {
		if l.section != "Unit" {
			continue
		}
		for name := range strings.FieldsSeq(l.value) {
			e := edge{l.key + "=" + name, l.file}
			switch l.key {
			case "After":
				o.add(name, it.name, e)
			case "Before":
				o.add(it.name, name, e)
			case "RequiresMountsFor", "WantsMountsFor":
				o.mounts(it, name, e)
			}
		}
	}
}

// mounts puts a unit after the mount units of a path.
func (o order) mounts(it *unit, p string, e edge) {
	for _, m := range o.set {
		where := m.value("Mount", "Where")
		if m != it && where != "" && (p == where || strings.HasPrefix(p, strings.TrimSuffix(where, "/")+"/")) {
			o.add(m.name, it.name, e)
		}
	}
}

// implicit adds what systemd does for a kind of unit.
func (o order) implicit(it *unit) {
	kind := path.Ext(it.name)
	by := func(why string) edge { return edge{why: why} }
	after := func(why string, names ...string) {
		for _, n := range names {
			o.add(n, it.name, by(why))
		}
	}
	before := func(why string, names ...string) {
		for _, n := range names {
			o.add(it.name, n, by(why))
		}
	}
	before("it starts it", o.triggers(it)...)
	switch kind {
	case ".service":
		if t := it.value("Service", "Type"); t == "dbus" || t == "" && it.value("Service", "BusName") != "" {
			after("Type=dbus", "dbus.socket")
		}
		if out := it.value("Service", "StandardOutput"); out == "" || strings.HasPrefix(out, "journal") || strings.HasPrefix(out, "kmsg") {
			after("it logs to the journal", "systemd-journald.socket")
		}
		if p := it.value("Service", "PrivateTmp"); p != "" && !it.no("Service", "PrivateTmp") {
			after("PrivateTmp="+p, "systemd-tmpfiles-setup.service")
		}
	case ".mount":
		if where := it.value("Mount", "Where"); where != "" && where != "/" {
			o.mounts(it, path.Dir(where), by("it is mounted below"))
		}
	}
	if it.no("Unit", "DefaultDependencies") {
		return
	}
	const why = "DefaultDependencies=yes"
	switch kind {
	case ".service":
		after(why, "sysinit.target", "basic.target")
	case ".socket":
		after(why, "sysinit.target")
		before(why, "sockets.target")
	case ".timer":
		after(why, "sysinit.target")
		before(why, "timers.target")
		if it.value("Timer", "OnCalendar") != "" {
			after(why, "time-set.target", "time-sync.target")
		}
	case ".path":
		after(why, "sysinit.target")
		before(why, "paths.target")
	case ".mount":
		after(why, "local-fs-pre.target")
		before(why, "local-fs.target")
	}
}

// targets puts a target after what it starts, unless one of the two does
// without default dependencies or asks for the opposite.
func (o order) targets(it *unit) {
	if path.Ext(it.name) != ".target" || it.no("Unit", "DefaultDependencies") {
		return
	}
	for _, w := range o.starts(it) {
		other := o.units.load(w.name)
		if other == nil || other.no("Unit", "DefaultDependencies") {
			continue
		}
		if _, opposite := o.after[other.name][it.name]; !opposite {
			o.add(other.name, it.name, edge{why: it.name + " starts it"})
		}
	}
}
