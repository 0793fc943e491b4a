//go:build cluster

package conformance

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kscratch/kscratch/test/e2e"
)

// TestSuite asks the real suite whether the lists and obstacles are about
// specs that it has, and whether exactly the chosen ones would run.
func TestSuite(t *testing.T) {
	o, err := e2e.Local(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e2e.Suite(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "e2e.test")
	if err := e2e.Install(b, exe); err != nil {
		t.Fatal(err)
	}
	specs, err := List(t.Context(), exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s has %d conformance specs", e2e.Version, len(specs))
	if err := check(specs, Full()); err != nil {
		t.Error(err)
	}
	for _, o := range obstacles {
		if !slices.ContainsFunc(specs, func(s Spec) bool { return o.specs.MatchString(s.Name) }) {
			t.Errorf("no spec %s: %s", o.reason, o.specs)
		}
	}
	for name, list := range map[string][]string{"quick": Quick(), "focus": Focus(), "full": Full()} {
		if got := dryRun(t, exe, dir, list); !slices.Equal(got, sorted(list)) {
			t.Errorf("%s: the suite would run %d specs, want %d: %q", name, len(got), len(list), got)
		}
	}
}

func sorted(l []string) []string {
	l = slices.Clone(l)
	slices.Sort(l)
	return l
}

// dryRun returns what Ginkgo would run, in order of name. It needs no cluster.
func dryRun(t *testing.T, exe, dir string, specs []string) []string {
	t.Helper()
	s := suite{kubeconfig: filepath.Join(dir, "kubeconfig")}
	report := filepath.Join(dir, "report.json")
	args := append(s.args(report, time.Minute, specs), "-ginkgo.dry-run")
	if err := execute(t.Context(), 2*time.Minute, dir, io.Discard, exe, args...); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(report)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ran, err := readReport(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for name := range ran {
		out = append(out, name)
	}
	return sorted(out)
}
