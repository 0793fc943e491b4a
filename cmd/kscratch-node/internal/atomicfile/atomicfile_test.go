package atomicfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func TestWrite(t *testing.T) {
	root, dir := open(t)
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What a writer that died has left behind must not be in the way.
	if err := os.WriteFile(filepath.Join(dir, "a/b/.f.new"), []byte("half"), 0o000); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one\n", "", "three\n"} {
		if err := Write(root, "a/b/f", []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "a/b/f"))
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "a/b/f"))
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("got %v, %v, want 0640", st.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "a/b")); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestTemporaryName: whoever takes all files whose names do not begin with a dot
// never sees one that is not whole.
func TestTemporaryName(t *testing.T) {
	root, dir := open(t)
	if err := os.MkdirAll(filepath.Join(dir, "a/f/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Neither the rename nor the removal of the temporary file can succeed.
	if err := os.MkdirAll(filepath.Join(dir, "a/.f.new/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(root, "a/f", []byte("x"), 0o644); err == nil || !strings.Contains(err.Error(), ".f.new") {
		t.Errorf("got %v, want that .f.new is in the way", err)
	}
}

func TestWriteFails(t *testing.T) {
	root, dir := open(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "full/f/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{"file/f", "writing /file/f: "},
		{"full/f", "writing /full/f: "},
		{"out/tmp/f", "path escapes from parent"},
	} {
		err := Write(root, c.name, []byte("x"), 0o644)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "full/.f.new")); !os.IsNotExist(err) {
		t.Errorf("temporary file is left behind: %v", err)
	}
}

func TestRemove(t *testing.T) {
	root, _ := open(t)
	if err := Write(root, "f", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(root, "f"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.Stat("f"); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if err := Remove(root, "../f"); err == nil || !strings.Contains(err.Error(), "removing /../f") {
		t.Errorf("outside: %v", err)
	}
}
