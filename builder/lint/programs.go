package lint

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// unitMissing looks at the units of the configuration; what Debian's require is
// Debian's business.
func unitMissing(n *node) []Finding {
	var out []Finding
	for _, name := range n.units.configured() {
		it := n.units.load(name)
		if it == nil && n.Files[etcUnits+name].State == "enabled" {
			out = append(out, Finding{Severity: Warning, Where: n.Files.where(etcUnits + name), What: "is enabled, and there is no such unit",
				Fix: "correct the name, give the unit contents, or add the package that has it to base.packages"})
		}
		for _, w := range n.units.lacks(it) {
			out = append(out, Finding{Severity: Error, Where: n.Files.where(w.file), What: w.key + "=" + w.name + ": there is no such unit, so this one cannot start",
				Fix: "correct the name, or add the unit"})
		}
	}
	return out
}

// madeKinds are of units that generators and systemd itself make.
var madeKinds = []string{".mount", ".device", ".swap", ".slice", ".scope", ".automount"}

// lacks returns what a unit cannot start without and does not find, so far as
// the configuration says so.
func (u units) lacks(it *unit) []wish {
	if it == nil {
		return nil
	}
	var out []wish
	for _, l := range it.lines {
		if l.section != "Unit" || !u.files[l.file].Config || !slices.Contains([]string{"Requires", "BindsTo", "Requisite"}, l.key) {
			continue
		}
		for name := range strings.FieldsSeq(l.value) {
			if other := u.load(name); !slices.Contains(madeKinds, path.Ext(name)) && (other == nil || other.masked) {
				out = append(out, wish{name, l.key, l.file})
			}
		}
	}
	return out
}

// unitProgram leaves alone those of Debian's services that start on a condition.
func unitProgram(n *node) []Finding {
	var out []Finding
	for _, it := range n.units.used() {
		conditional := slices.ContainsFunc(it.lines, func(l line) bool {
			return l.section == "Unit" && strings.HasPrefix(l.key, "Condition")
		})
		for _, l := range it.commands() {
			what, s := n.program(l.value), Error
			if !n.Files[l.file].Config {
				s = Warning
			}
			if what == "" || s == Warning && conditional {
				continue
			}
			out = append(out, Finding{Severity: s, Where: n.Files.where(l.file), What: l.key + ": " + what,
				Fix: "correct the path, add the package that has the program to base.packages, or write a file with mode 0755 below /etc"})
		}
	}
	return out
}

// used returns the units that a boot starts, that sockets, timers and paths of
// these call later, and that the configuration has.
func (u units) used() map[string]*unit {
	boot := u.boot()
	for _, name := range u.configured() {
		boot.pull(name)
	}
	for _, it := range maps.Clone(boot.set) {
		for _, name := range boot.triggers(it) {
			boot.pull(name)
		}
	}
	return boot.set
}

// commands returns the command lines of a service's start.
func (it *unit) commands() []line {
	var out []line
	for _, key := range []string{"ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost"} {
		out = append(out, it.values("Service", key)...)
	}
	return out
}

// program says what is wrong with the program of a command line; "" if nothing
// is, if it may be missing, or if that cannot be known before a node runs.
func (n *node) program(command string) string {
	const prefixes = "@-:+!|" // systemd.service(5), "Special executable prefixes"
	bare := strings.TrimLeft(command, prefixes)
	if strings.Contains(command[:len(command)-len(bare)], "-") {
		return ""
	}
	w := words(bare)
	if len(w) == 0 || strings.ContainsAny(w[0], "$%") {
		return ""
	}
	dirs := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"}
	if path.IsAbs(w[0]) {
		dirs = []string{"/"}
	}
	for _, dir := range dirs {
		at, f, ok := n.Files.find(path.Join(dir, w[0]))
		switch {
		case strings.HasPrefix(at, "/var/"), strings.HasPrefix(at, "/run/"), strings.HasPrefix(at, "/proc/"):
			if !ok {
				return "" // what is written at run time
			}
		case !ok:
			continue
		}
		if !f.Mode.IsRegular() || f.Mode&0o111 == 0 {
			return fmt.Sprintf("%s cannot be executed: it has mode %v", w[0], f.Mode)
		}
		return ""
	}
	return w[0] + " is not in the image"
}
