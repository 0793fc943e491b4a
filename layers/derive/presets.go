package derive

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepPresets = Step{
	Name: "presets",
	Doc:  "which units are on: kscratch's preset, the links in /etc/systemd/system that it implies (systemctl preset-all), multi-user.target as default, no getty, no first-boot questions",
	Run:  presets,
}

// preset is everything that a node has on; what Ignition enables goes before
// it, in /etc/systemd/system-preset/20-ignition.preset. The last line keeps
// off what Debian would enable: getty@tty1, the timers of util-linux,
// e2fsprogs, apt and man-db, systemd-firstboot, homed, pcrlock and the rest.
// docker.socket is not listed: docker.service requires it, and without an
// enabled socket nothing starts docker before the node has its pod CIDR.
const preset = `# Units that a kscratch node runs, see systemd.preset(5). Ignition's
# 20-ignition.preset is read before this file and wins.
enable systemd-networkd.service
enable systemd-networkd-wait-online.service
enable systemd-resolved.service
enable systemd-timesyncd.service
enable containerd.service
enable docker.service
disable *
`

const (
	usrUnits = "usr/lib/systemd/system"
	etcUnits = "etc/systemd/system"
)

// unitSettings are the drop-ins and masks beside the preset. Masks are links
// in /etc, so that Ignition can put something else in their place.
func unitSettings() []layers.File {
	return []layers.File{
		file("usr/lib/systemd/system-preset/30-kscratch.preset", 0o644, preset),
		link(usrUnits+"/default.target", "multi-user.target"),
		// One uplink is enough; cbr0 has no carrier before there is a pod.
		file(usrUnits+"/systemd-networkd-wait-online.service.d/10-kscratch.conf", 0o644,
			"[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any\n"),
		file("usr/lib/systemd/logind.conf.d/10-kscratch.conf", 0o644, "[Login]\nNAutoVTs=0\nReserveVT=0\n"),
		// A getty on a serial console hangs up the other writers to it.
		link("etc/systemd/system-generators/systemd-getty-generator", "/dev/null"),
		link(etcUnits+"/systemd-firstboot.service", "/dev/null"),
	}
}

func presets(_ context.Context, in Input) (Result, error) {
	if !in.has(usrUnits) {
		return Result{}, nil
	}
	settings := unitSettings()
	t, err := layers.Overlay(in.Tree, layers.Of("settings", "", ownedBy("derive:presets", settings)...))
	if err != nil {
		return Result{}, err
	}
	next := Input{Tree: t, Options: in.Options}
	rules, err := next.presetRules()
	if err != nil {
		return Result{}, err
	}
	links, err := presetAll(next, rules)
	if err != nil {
		return Result{}, err
	}
	return Result{Drop: in.enabledLinks(), Files: append(settings, links...)}, nil
}

func ownedBy(owner string, files []layers.File) []layers.File {
	out := slices.Clone(files)
	for i := range out {
		out[i].Owner = owner
	}
	return out
}

// enabledLinks returns the links in /etc that packages bring to enable units;
// preset-all would remove them all before it makes its own.
func (in Input) enabledLinks() []string {
	var out []string
	for f := range in.Tree.Under(etcUnits) {
		if f.Link != "" && f.Link != "/dev/null" {
			out = append(out, f.Path)
		}
	}
	return out
}

// presetRule is a line of a preset file.
type presetRule struct {
	action    string // "enable", "disable" or "ignore"
	pattern   string // a glob over unit names
	instances []string
}

func (in Input) presetRules() ([]presetRule, error) {
	files, err := in.confs(".preset", "etc/systemd/system-preset", "usr/local/lib/systemd/system-preset", "usr/lib/systemd/system-preset")
	if err != nil {
		return nil, err
	}
	var all []presetRule
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		rules, err := parsePreset(string(b))
		if err != nil {
			return nil, fmt.Errorf("reading /%s: %w", f.Path, err)
		}
		all = append(all, rules...)
	}
	return all, nil
}

func parsePreset(s string) ([]presetRule, error) {
	var out []presetRule
	for i, line := range strings.Split(s, "\n") {
		w := strings.Fields(line)
		if len(w) == 0 || w[0][0] == '#' || w[0][0] == ';' {
			continue
		}
		known := slices.Contains([]string{"enable", "disable", "ignore"}, w[0])
		if !known || len(w) < 2 || len(w) > 2 && w[0] != "enable" {
			return nil, fmt.Errorf("line %d: want \"enable|disable|ignore UNIT\", not %q", i+1, line)
		}
		if _, err := path.Match(w[1], ""); err != nil {
			return nil, fmt.Errorf("line %d: pattern %q: %w", i+1, w[1], err)
		}
		out = append(out, presetRule{w[0], w[1], w[2:]})
	}
	return out, nil
}

// match returns the rule for a unit: the first that fits, and enable if none
// does.
func match(rules []presetRule, unit string) presetRule {
	for _, r := range rules {
		if ok, _ := path.Match(r.pattern, unit); ok {
			return r
		}
	}
	return presetRule{action: "enable"}
}

// presetAll returns the links that `systemctl preset-all` makes.
func presetAll(in Input, rules []presetRule) ([]layers.File, error) {
	inst := installer{in: in, done: map[string]bool{}, links: map[string]layers.File{}}
	for _, name := range inst.unitNames() {
		r := match(rules, name)
		if r.action != "enable" {
			continue
		}
		names := []string{name}
		if prefix, suffix, ok := strings.Cut(name, "@."); ok && len(r.instances) > 0 {
			names = nil
			for _, i := range r.instances {
				names = append(names, prefix+"@"+i+"."+suffix)
			}
		}
		for _, n := range names {
			if err := inst.enable(n); err != nil {
				return nil, fmt.Errorf("enabling %s: %w", n, err)
			}
		}
	}
	return inst.files(), nil
}
