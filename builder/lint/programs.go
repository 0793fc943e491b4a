package lint

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// commands are the settings of a service that name a program.
var commands = []string{"ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost"}

// unitMissing looks at the units of the configuration; what Debian's require is
// Debian's business.
func unitMissing(n *node) []Finding {
	var out []Finding
	for _, name := range n.units.configured() {
		it := n.units.load(name)
		if it == nil {
			if f := n.Files[etcUnits+name]; f.State == "enabled" {
				out = append(out, Finding{Severity: Warning, Where: n.Files.where(etcUnits + name), What: "is enabled, and there is no such unit",
					Fix: "correct the name, give the unit contents, or add the package that has it to base.packages"})
			}
			continue
		}
		for _, l := range it.lines {
			if l.section != "Unit" || !n.Files[l.file].Config || l.key != "Requires" && l.key != "BindsTo" && l.key != "Requisite" {
				continue
			}
			for other := range strings.FieldsSeq(l.value) {
				if made := []string{".mount", ".device", ".swap", ".slice", ".scope", ".automount"}; slices.Contains(made, path.Ext(other)) {
					continue // generators and systemd itself make these
				}
				if need := n.units.load(other); need == nil || need.masked {
					out = append(out, Finding{Severity: Error, Where: n.Files.where(l.file), What: l.key + "=" + other + ": there is no such unit, so this one cannot start",
						Fix: "correct the name, or add the unit"})
				}
			}
		}
	}
	return out
}

// unitProgram looks at the services that a boot starts or that are called
// later, and at those of the configuration. Those of Debian's that start on a condition are left alone.
func unitProgram(n *node) []Finding {
	boot := n.units.boot()
	for _, name := range n.units.configured() {
		boot.pull(name)
	}
	for _, it := range maps.Clone(boot.set) {
		for _, name := range boot.triggers(it) {
			boot.pull(name)
		}
	}
	var out []Finding
	for _, it := range boot.set {
		conditional := slices.ContainsFunc(it.lines, func(l line) bool {
			return l.section == "Unit" && strings.HasPrefix(l.key, "Condition")
		})
		for _, key := range commands {
			for _, l := range it.values("Service", key) {
				what := n.program(l.value)
				s := Error
				if !n.Files[l.file].Config {
					s = Warning
				}
				if what == "" || s == Warning && conditional {
					continue
				}
				out = append(out, Finding{Severity: s, Where: n.Files.where(l.file), What: key + ": " + what,
					Fix: "correct the path, add the package that has the program to base.packages, or write a file with mode 0755 below /etc"})
			}
		}
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
