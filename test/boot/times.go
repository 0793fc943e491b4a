package boot

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
)

// Stage is a point of a boot.
type Stage struct {
	Name string
	At   time.Duration // since power-on
}

// stageUnits are the units whose activation marks a stage.
var stageUnits = []string{
	"sysinit.target", "systemd-networkd.service", "kscratch-pod-cidr.service", "kscratch-images.service",
	"containerd.service", "docker.service", "cri-docker.service", "kubelet.service", "kube-proxy.service",
	"kscratch-bootstrap.service", "kscratch-health.service", "multi-user.target",
}

// Stages returns how the boot went, in order of time: the kernel's start and
// the end of the initrd from the console, the activation of units from
// systemd, and the API and the node from r.
func (n *Node) Stages(ctx context.Context, r vm.Ready) ([]Stage, error) {
	kernel, ok := kernelStart(n.VM.Console().Lines())
	if !ok {
		return nil, fmt.Errorf("finding the start of the kernel: the console has no line of it")
	}
	res, err := n.Run(ctx, "systemctl show -p Id -p ActiveEnterTimestampMonotonic "+strings.Join(stageUnits, " ")+
		"; systemctl show -p Id -p UserspaceTimestampMonotonic -p InitRDTimestampMonotonic")
	if err != nil {
		return nil, err
	}
	out := []Stage{{"kernel", kernel}}
	for _, s := range parseStamps(res.Stdout) {
		out = append(out, Stage{s.Name, s.At + kernel})
	}
	if r.After > 0 {
		out = append(out, Stage{"API server ready", r.APIAfter}, Stage{"node Ready", r.After})
	}
	slices.SortStableFunc(out, func(a, b Stage) int { return int(a.At - b.At) })
	return out, nil
}

// parseStamps reads what "systemctl show" prints: paragraphs of key=value with
// a unit's name and a time in microseconds since the start of the kernel. A
// unit that is not active has the time 0 and is left out; the manager itself
// has no name.
func parseStamps(text string) []Stage {
	manager := map[string]string{"UserspaceTimestampMonotonic": "systemd", "InitRDTimestampMonotonic": "initrd"}
	var out []Stage
	for p := range strings.SplitSeq(text, "\n\n") {
		var id string
		var at time.Duration
		for l := range strings.Lines(p) {
			k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
			us, err := strconv.ParseInt(v, 10, 64)
			switch name := manager[k]; {
			case k == "Id":
				id = v
			case err != nil || us <= 0:
			case name != "":
				out = append(out, Stage{name, time.Duration(us) * time.Microsecond})
			case k == "ActiveEnterTimestampMonotonic":
				at = time.Duration(us) * time.Microsecond
			}
		}
		if id != "" && at > 0 {
			out = append(out, Stage{id, at})
		}
	}
	return out
}

// printk matches the kernel's own time stamp in seconds.
var printk = regexp.MustCompile(`^\[ *(\d+\.\d{6})\] `)

// kernelStart returns when the kernel's clock was zero: no line of it can be
// seen before it was printed.
func kernelStart(lines []vm.Line) (at time.Duration, ok bool) {
	for _, l := range lines {
		m := printk.FindStringSubmatch(l.Text)
		if m == nil {
			continue
		}
		s, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			continue
		}
		zero := l.At - time.Duration(s*float64(time.Second))
		if !ok || zero < at {
			at, ok = zero, true
		}
	}
	return at, ok
}

// Table returns stages as lines of seconds and names.
func Table(ss []Stage) string {
	var b strings.Builder
	for _, s := range ss {
		fmt.Fprintf(&b, "%7.1f s  %s\n", s.At.Seconds(), s.Name)
	}
	return b.String()
}
