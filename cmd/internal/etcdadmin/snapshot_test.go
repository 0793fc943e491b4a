package etcdadmin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestPublish: with hard links or without, a file gets its name whole, and
// never takes that of another.
func TestPublish(t *testing.T) {
	for name, do := range map[string]func(tmp, file string) error{"publish": publish, "takeName": takeName} {
		dir := t.TempDir()
		tmp, file := filepath.Join(dir, ".tmp"), filepath.Join(dir, "file")
		for i, want := range []error{nil, fs.ErrExist} {
			if err := os.WriteFile(tmp, []byte{byte('a' + i)}, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := do(tmp, file); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", name, err, want)
			}
			if b, err := os.ReadFile(file); string(b) != "a" {
				t.Errorf("%s: the file has %q, %v", name, b, err)
			}
			_ = os.Remove(tmp) // a rename has taken it
		}
		if err := do(tmp, filepath.Join(dir, "other")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: without a file: %v", name, err)
		}
		if left, _ := filepath.Glob(dir + "/*"); len(left) != 1 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}
