//go:build foreign

package lint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/lint"
)

// systemd finds the cycles that we find, and no others. What the configuration
// enables is started by name: there is no generator here.
func TestSystemdAgrees(t *testing.T) {
	for _, tt := range append(cycles(), each{name: "clean"}) {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := input(t, tt.files).Files
			args := []string{"verify", "--root=" + dir, "--man=no"}
			for p, f := range files {
				write(t, dir, p, f)
				if f.State == "enabled" {
					args = append(args, filepath.Base(p))
					enable(t, dir, filepath.Base(p))
				}
			}
			// Its exit code is about more than order.
			out, err := exec.Command("systemd-analyze", append(args, "default.target")...).CombinedOutput()
			if err != nil && len(out) == 0 {
				t.Fatal(err)
			}
			theirs := strings.Contains(string(out), "ordering cycle")
			if ours := strings.Contains(tt.want, "unit-cycle"); ours != theirs {
				t.Errorf("we find a cycle: %v, systemd: %v\n%s", ours, theirs, out)
			}
		})
	}
}

func write(t *testing.T, dir, p string, f lint.File) {
	t.Helper()
	at := filepath.Join(dir, p)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	switch {
	case f.Mode.IsDir() || len(f.Body) == 0 && f.State == "enabled":
	case f.Link != "":
		if err := os.Symlink(f.Link, at); err != nil {
			t.Fatal(err)
		}
	default:
		if err := os.WriteFile(at, f.Body, f.Mode.Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

func enable(t *testing.T, dir, unit string) {
	t.Helper()
	wants := filepath.Join(dir, "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../"+unit, filepath.Join(wants, unit)); err != nil {
		t.Fatal(err)
	}
}
