package apt_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/test/aptfake"
)

func TestSnapshot(t *testing.T) {
	at := time.Date(2026, 11, 25, 4, 22, 31, 0, time.FixedZone("", 2*3600))
	for _, base := range []string{"https://snapshot.example", "https://snapshot.example/"} {
		want := apt.Mirror{
			Archive:  "https://snapshot.example/archive/debian/20261125T022231Z",
			Security: "https://snapshot.example/archive/debian-security/20261125T022231Z",
		}
		if d := cmp.Diff(want, apt.Snapshot(base, at)); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
}

// TestPrefer keeps packages at versions that are not the newest, one of which
// the archive has no more.
func TestPrefer(t *testing.T) {
	a := aptfake.New(t,
		aptfake.Deb{Name: "app", Version: "1", Depends: "lib, editor"}, aptfake.Deb{Name: "app", Version: "2", Depends: "lib (>= 2)"},
		aptfake.Deb{Name: "lib", Version: "2"}, aptfake.Deb{Name: "ed", Version: "1", Provides: "editor"})
	x, err := open(t, newStore(t), a)
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(x *apt.Index, names ...string) string {
		ps, err := x.Resolve(names)
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, p := range ps {
			out = append(out, p.String())
		}
		return strings.Join(out, " ")
	}
	p := apt.Package{
		Name: "lib", Version: "1", Arch: "amd64", Source: "lib", SourceVersion: "1", Archive: apt.Archive,
		Filename: "pool/main/l/lib/lib_1_amd64.deb", Size: 1, Digest: layers.DigestOf([]byte("lib 1")),
	}
	for range 2 { // the second time it is there
		if err := x.Add(p, deb.Paragraph{{Name: "Depends", Value: "ed"}, {Name: "Provides", Value: "thing"}}); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"2", "1"}, x.Versions("lib")); d != "" {
		t.Errorf("versions -want +got:\n%s", d)
	}
	for _, tt := range []struct {
		prefer map[string]string
		names  string
		want   string
	}{
		{nil, "app", "app=2 lib=2"},
		{map[string]string{"app": "1"}, "app", "app=1 ed=1 lib=2"},
		{map[string]string{"app": "1", "lib": "1"}, "app", "app=1 ed=1 lib=1"},
		{map[string]string{"app": "3", "none": "1"}, "app", "app=2 lib=2"},
		{map[string]string{"lib": "1"}, "app", "resolving packages: app → lib (>= 2): cannot be had: the archive has lib 1"},
	} {
		if got := resolve(x.Prefer(tt.prefer), tt.names); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.prefer, got, tt.want)
		}
	}
	if got := resolve(x, "app"); got != "app=2 lib=2" {
		t.Errorf("the index itself has changed: %s", got)
	}
	if got := x.Providers("editor"); !slices.Equal(got, []string{"ed"}) {
		t.Errorf("editor is provided by %v", got)
	}
	p.Name = "../lib"
	if err := x.Add(p, nil); err == nil {
		t.Error("a name with a slash is taken")
	}
}
