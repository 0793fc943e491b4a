package derive

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// unitTrees are units and presets with the links that preset-all makes. They
// are also put before systemctl, see foreign_test.go.
var unitTrees = []struct{ name, tree, want string }{
	{"wanted, required, upheld", `
		usr/lib/systemd/system/a.service = [Install]\nWantedBy=m.target n.target\nRequiredBy=r.target\n
		usr/lib/systemd/system-preset/1.preset = enable *`, `
		m.target.wants/a.service a.service
		n.target.wants/a.service a.service
		r.target.requires/a.service a.service`},
	{"first rule counts, none means enable", `
		usr/lib/systemd/system/a.service = [Install]\nWantedBy=m.target
		usr/lib/systemd/system/b.service = [Install]\nWantedBy=m.target
		usr/lib/systemd/system/c.timer = [Install]\nWantedBy=m.target
		usr/lib/systemd/system-preset/1.preset = # none\n; none\ndisable [a]*\nenable a.service
		usr/lib/systemd/system-preset/2.preset = disable b.service
		etc/systemd/system-preset/1.preset = enable b.service\ndisable a.service`, `
		m.target.wants/b.service b.service
		m.target.wants/c.timer c.timer`},
	{"also pulls in what is disabled", `
		usr/lib/systemd/system/a.service = [Install]\nWantedBy=m.target\nAlso=a.socket gone.service\nAlias=x.service
		usr/lib/systemd/system/a.socket = [Install]\nWantedBy=sockets.target
		usr/lib/systemd/system-preset/1.preset = enable a.service\ndisable *`, `
		m.target.wants/a.service a.service
		sockets.target.wants/a.socket a.socket
		x.service a.service`},
	{"templates", `
		usr/lib/systemd/system/d@.service = [Install]\nWantedBy=m.target\nDefaultInstance=one
		usr/lib/systemd/system/i@.service = [Install]\nWantedBy=%i.target\n
		usr/lib/systemd/system/n@.service = [Install]\nAlias=none
		usr/lib/systemd/system-preset/1.preset = enable d@.service\nenable i@.service x y\ndisable *`, `
		m.target.wants/d@one.service d@.service
		x.target.wants/i@x.service i@.service
		y.target.wants/i@y.service i@.service`},
	{"aliases, masks and what is no unit", `
		usr/lib/systemd/system/a.service = [Service]\nExecStart=/a\n[Install]\nWantedBy = \\n m.target\n[Other]\nWantedBy=o.target
		usr/lib/systemd/system/b.service -> a.service
		usr/lib/systemd/system/c.service = [Install]\nWantedBy=m.target
		etc/systemd/system/c.service -> /dev/null
		usr/lib/systemd/system/README = [Install]\nWantedBy=m.target
		usr/lib/systemd/system-preset/1.preset = enable *`, `
		m.target.wants/a.service a.service`},
	{"drop-ins", `
		usr/lib/systemd/system/a.service = [Install]\nWantedBy=m.target
		usr/lib/systemd/system/a.service.d/1.conf = [Install]\nWantedBy=n.target
		usr/lib/systemd/system-preset/1.preset = enable *`, `
		m.target.wants/a.service a.service
		n.target.wants/a.service a.service`},
}

func TestPresetAll(t *testing.T) {
	for _, tt := range unitTrees {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := presetLinks(t, tt.tree), unindent(tt.want); got != want {
				t.Errorf("links:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func presetLinks(t *testing.T, lines string) string {
	t.Helper()
	in := Input{Tree: tree(t, lines)}
	rules, err := in.presetRules()
	if err != nil {
		t.Fatal(err)
	}
	links, err := presetAll(in, rules)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, l := range links {
		fmt.Fprintln(&out, strings.TrimPrefix(l.Path, etcUnits+"/"), strings.TrimPrefix(l.Link, "/"+usrUnits+"/"))
	}
	return out.String()
}

func TestExpand(t *testing.T) {
	for _, tt := range []struct{ value, unit, want string }{
		{"m.target", "a.service", "m.target"},
		{"%p-%i.target", "a@b.service", "a-b.target"},
		{"%n %N %%", "a@b.service", "a@b.service a@b %"},
		{"%j", "x-y@b.service", "y"},
	} {
		if got, err := expand(tt.value, tt.unit); err != nil || got != tt.want {
			t.Errorf("%q of %s is %q, %v; want %q", tt.value, tt.unit, got, err, tt.want)
		}
	}
	for _, s := range []string{"%", "%H", "a%"} {
		if _, err := expand(s, "a.service"); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzPreset(f *testing.F) {
	f.Add(preset)
	f.Add("enable a@.service x y\n;\n\tdisable *\nignore [a-b]?")
	f.Fuzz(func(t *testing.T, s string) {
		rules, err := parsePreset(s)
		if err != nil {
			return
		}
		if r := match(rules, "a.service"); !slices.Contains([]string{"enable", "disable", "ignore"}, r.action) {
			t.Errorf("action %q", r.action)
		}
	})
}

func FuzzInstallSection(f *testing.F) {
	f.Add("[Install]\nWantedBy=%i.target \\\n x\nAlias=\nDefaultInstance=a", "a@b.service")
	f.Fuzz(func(t *testing.T, s, unit string) {
		sec := installSection{lists: map[string][]string{}}
		sec.read(s)
		for _, l := range sec.lists {
			for _, v := range l {
				_, _ = expand(v, unit)
			}
		}
	})
}
