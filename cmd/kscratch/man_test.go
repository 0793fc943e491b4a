package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

// TestReference: docs/cli.md says what the commands say.
func TestReference(t *testing.T) {
	const page = "../../docs/cli.md"
	var got bytes.Buffer
	if err := writeReference(&got, plain(newRoot())); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not what the commands say: run `go test ./cmd/kscratch -run TestReference -update`", page)
	}
}

// TestMan: there is a page for every command, the same each time.
func TestMan(t *testing.T) {
	pages := func() map[string]string {
		dir := filepath.Join(t.TempDir(), "man")
		root := newRoot()
		root.SetArgs([]string{"man", dir})
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		names, err := filepath.Glob(dir + "/*.1")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Base(n)] = string(b)
		}
		return out
	}
	first, again := pages(), pages()
	for name, text := range first {
		if again[name] != text {
			t.Errorf("%s differs from one time to the next", name)
		}
	}
	for _, name := range []string{"kscratch.1", "kscratch-image-build.1", "kscratch-cluster-run.1"} {
		if !bytes.Contains([]byte(first[name]), []byte("SYNOPSIS")) {
			t.Errorf("no page %s among %d", name, len(first))
		}
	}
}
