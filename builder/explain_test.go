package builder_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder"
)

// The inputs that have changed since the last build are told by layer.
func TestExplain(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	why := func() string {
		e, err := builder.Explain(p.spec, l, builder.Master, p.options)
		must(t, err)
		var out []string
		for _, layer := range e.Layers {
			for _, c := range layer.Changed {
				out = append(out, fmt.Sprintf("%s: %s: %s → %s", layer.Name, c.Name, c.Old, c.New))
			}
		}
		if e.First {
			out = append(out, "first")
		}
		return strings.Join(out, "\n")
	}
	if got := why(); got != "first" {
		t.Errorf("before the first build: %s", got)
	}
	_, err := builder.Make(t.Context(), p.spec, l, builder.Master, t.TempDir(), p.options)
	must(t, err)
	if got := why(); got != "" {
		t.Errorf("nothing changed: %s", got)
	}
	p.spec.Network.MTU = 1400
	if got, want := why(), "configuration: cluster.yaml: network.mtu: 0 → 1400"; got != want {
		t.Errorf("a setting: got %s, want %s", got, want)
	}
	p.spec.Network.MTU = 0
	old := l.Files[1]
	l.Files[1].Version = "v9"
	got := why()
	for _, want := range []string{
		"programs: " + old.Name + ": " + old.Version + " ", "→ v9 ", "root: programs: ", "configuration: root: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("a program: got\n%s\nwant %s in it", got, want)
		}
	}
	if strings.Contains(got, "packages") {
		t.Errorf("a program changes packages:\n%s", got)
	}
	e, err := builder.Explain(p.spec, l, builder.Worker, p.options)
	must(t, err)
	var text strings.Builder
	must(t, e.Text(&text))
	if !e.First || !strings.Contains(text.String(), "this is the first build here") {
		t.Errorf("another role: %s", text.String())
	}
}
