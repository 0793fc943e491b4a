package fakeworld_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/test/fakeworld"
)

// A world is the same each time; other tests compare what is made of it.
func TestDeterministic(t *testing.T) {
	if a, b := world(t), world(t); a != b {
		t.Errorf("two worlds differ:\n%s\n%s", a, b)
	}
}

func world(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := fakeworld.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		fmt.Fprintf(&out, "%x %s\n", sha256.Sum256(b), p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The programs are real ones.
func TestProgramRuns(t *testing.T) {
	p := filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(p, fakeworld.Program("true"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), p).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v, %q", err, out)
	}
}
