package builder

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// TestWithModules reads what our own program on a node is built from.
func TestWithModules(t *testing.T) {
	node, err := programs.Node()
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(t.TempDir(), "kscratch-node")
	if err := os.WriteFile(self, node, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := withModules(LockedFile{Name: "t"}, gomod.Recipe{}, cache.Blob{Path: self}, cache.Blob{Path: self})
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^[^ ]+ v[^ ]+ h1:[A-Za-z0-9+/]{43}=$`)
	for _, m := range f.Modules {
		if !line.MatchString(m) {
			t.Errorf("got %q", m)
		}
	}
	if !strings.HasPrefix(f.Go, "go1.") || len(f.Modules) < 10 || !slices.IsSorted(f.Modules) {
		t.Errorf("built with %q from %d modules", f.Go, len(f.Modules))
	}
	if _, err := withModules(LockedFile{Name: "t"}, gomod.Recipe{}, cache.Blob{Path: "modules.go"}); err == nil {
		t.Error("a text has modules")
	}
}

func TestModuleLine(t *testing.T) {
	r := gomod.Recipe{Module: "m", Sum: "h1:recipe"}
	for _, tt := range []struct {
		m    debug.Module
		want string
	}{
		{debug.Module{Path: "a", Version: "v1.0.0", Sum: "h1:a"}, "a v1.0.0 h1:a"},
		{debug.Module{Path: "a", Version: "v1.0.0", Sum: "h1:a", Replace: &debug.Module{Path: "b", Version: "v2.0.0", Sum: "h1:b"}}, "b v2.0.0 h1:b"},
		{debug.Module{Path: "m", Version: "v1.0.0", Replace: &debug.Module{Path: "./source"}}, "m v1.0.0 h1:recipe"},
		{debug.Module{Path: "kscratch.invalid/build", Version: "(devel)"}, ""},
		{debug.Module{Path: "kscratch.invalid/build"}, ""},
	} {
		got, ok := moduleLine(&tt.m, r)
		if !ok {
			got = ""
		}
		if got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.m, got, tt.want)
		}
	}
}

func TestDifferentBuild(t *testing.T) {
	locked := LockedFile{Go: "go1.26.8", Modules: []string{"a v1", "b v1"}}
	for _, tt := range []struct {
		now  LockedFile
		want string
	}{
		{locked, ""},
		{LockedFile{}, ""},
		{LockedFile{Go: "go1.26.9"}, "it was built with go1.26.8, and the go command at hand is go1.26.9"},
		{LockedFile{Go: "go1.26.8", Modules: []string{"a v1", "b v2"}}, "it is built from b v2 now"},
	} {
		if got := differentBuild(locked, tt.now); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
