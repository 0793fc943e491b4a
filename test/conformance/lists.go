package conformance

import (
	_ "embed"
	"strings"
)

//go:embed quick.txt
var quick string

//go:embed focus.txt
var focused string

//go:embed full.txt
var full string

// Quick returns a few fast specs over the whole of a cluster: pods, their
// network, services, DNS, volumes, kubectl.
func Quick() []string { return lines(quick) }

// Focus returns what a new cluster of two nodes must be able to do: [Quick],
// and more of each kind.
func Focus() []string { return lines(focused) }

// Full returns every spec that is known to need nothing that this repository
// cannot build, [Quick] included.
func Full() []string { return lines(full) }

// lines returns the lines of a list; "#" starts a comment line.
func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}
