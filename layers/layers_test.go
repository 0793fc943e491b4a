package layers_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
)

// list renders a tree, a line an entry: "path: mode owner [-> target]".
func list(t *layers.Tree) string {
	var b strings.Builder
	for f := range t.Files() {
		fmt.Fprintf(&b, "%s %v %s", f.Path, f.Mode, f.Owner)
		if f.Link != "" {
			fmt.Fprintf(&b, " -> %s", f.Link)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func layer(name string, files ...layers.File) layers.Layer {
	return layers.Of(name, layers.DigestOf([]byte(name)), files...)
}

func TestMerge(t *testing.T) {
	usrmerge := layer("base",
		layers.Symlink("lib", "usr/lib", "base"),
		layers.Dir("usr/lib", 0o755, "base"))
	tests := []struct {
		name string
		in   []layers.Layer
		want string
		err  string
	}{
		{"nothing", nil, "", ""},
		{"parents are made", []layers.Layer{layer("a", layers.Regular("a/b/c", 0o644, "a", nil))},
			". drwxr-xr-x a\na drwxr-xr-x a\na/b drwxr-xr-x a\na/b/c -rw-r--r-- a\n", ""},
		{"a path below a link goes to its target, whatever the order",
			[]layers.Layer{layer("a", layers.Regular("lib/x", 0o644, "a", nil)), usrmerge},
			". drwxr-xr-x base\nlib Lrwxrwxrwx base -> usr/lib\nusr drwxr-xr-x base\nusr/lib drwxr-xr-x base\nusr/lib/x -rw-r--r-- a\n", ""},
		{"a shipped directory gives way to a link to one",
			[]layers.Layer{usrmerge, layer("a", layers.Dir("lib", 0o755, "a"))},
			". drwxr-xr-x base\nlib Lrwxrwxrwx base -> usr/lib\nusr drwxr-xr-x base\nusr/lib drwxr-xr-x base\n", ""},
		{"a clash names both owners",
			[]layers.Layer{layer("a", layers.Regular("x", 0o644, "deb:a=1", nil)), layer("b", layers.Regular("x", 0o644, "deb:b=2", nil))},
			"", "conflict at /x: both deb:a=1 and deb:b=2 provide it"},
		{"a clash through a link is found",
			[]layers.Layer{usrmerge, layer("a", layers.Regular("lib/x", 0o644, "a", nil)), layer("b", layers.Regular("usr/lib/x", 0o644, "b", nil))},
			"", "conflict at /usr/lib/x: both a and b provide it"},
		{"a file is no directory",
			[]layers.Layer{layer("a", layers.Regular("x", 0o644, "a", nil)), layer("b", layers.Regular("x/y", 0o644, "b", nil))},
			"", "conflict at /x: both a and b provide it"},
		{"a loop of links", []layers.Layer{layer("a", layers.Symlink("x", "y", "a"), layers.Symlink("y", "x", "a"), layers.Regular("x/z", 0, "a", nil))},
			"", "placing /x/z of a: too many symbolic links at /x"},
		{"a path out of the root", []layers.Layer{layer("a", layers.Regular("../x", 0o644, "a", nil))},
			"", `reading layer a: file "../x" of a: not a clean relative path`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := layers.Merge(tt.in...)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := tree.Check(); err != nil {
				t.Error(err)
			}
			if got := list(tree); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func TestConflictIsTyped(t *testing.T) {
	_, err := layers.Merge(layer("a", layers.Regular("x", 0, "a", nil)), layer("b", layers.Dir("x", 0o755, "b")))
	var c *layers.Conflict
	if !errors.As(err, &c) || c.Path != "x" {
		t.Fatalf("got %v, want a conflict at x", err)
	}
}

func TestOverlay(t *testing.T) {
	base, err := layers.Merge(layer("a", layers.Regular("etc/x", 0o644, "a", []byte("old")), layers.Symlink("etc/l", "x", "a")))
	if err != nil {
		t.Fatal(err)
	}
	over, err := layers.Overlay(base, layer("b", layers.Regular("etc/x", 0o600, "b", []byte("new")), layers.Symlink("etc/l", "y", "b")))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := over.ReadFile("etc/x"); string(b) != "new" {
		t.Errorf("over: got %q", b)
	}
	if b, _ := base.ReadFile("etc/l"); string(b) != "old" {
		t.Errorf("the base changed: got %q", b)
	}
	if _, err := layers.Overlay(base, layer("c", layers.Regular("etc", 0, "c", nil))); err == nil {
		t.Error("a file took the place of a directory")
	}
}

func TestResolve(t *testing.T) {
	tree, err := layers.Merge(layer("a",
		layers.Symlink("bin", "usr/bin", "a"),
		layers.Symlink("usr/bin/sh", "dash", "a"),
		layers.Symlink("usr/bin/abs", "/bin/dash", "a"),
		layers.Symlink("usr/bin/up", "../../../bin/sh", "a"),
		layers.Regular("usr/bin/dash", 0o755, "a", []byte("#")),
		layers.Symlink("loop", "loop", "a")))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"bin/sh", "usr/bin/abs", "usr/bin/up", "usr/bin/dash"} {
		f, err := tree.Resolve(p)
		if err != nil || f.Path != "usr/bin/dash" {
			t.Errorf("%s: got %q, %v", p, f.Path, err)
		}
	}
	if _, err := tree.Resolve("loop"); err == nil {
		t.Error("loop: no error")
	}
	if _, err := tree.Resolve("bin/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bin/none: got %v", err)
	}
}

type nopCloser struct{ io.ReaderAt }

func (nopCloser) Close() error { return nil }

func tarLayer(b []byte) layers.Tar {
	return layers.Tar{Title: "t", Content: layers.DigestOf(b), Owner: "o", Size: int64(len(b)),
		Open: func() (layers.ReaderAtCloser, error) { return nopCloser{bytes.NewReader(b)}, nil }}
}

func tarOf(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTar(t *testing.T) {
	reg := tar.Header{Name: "./a/f", Typeflag: tar.TypeReg, Size: 700, Mode: 0o4755}
	tests := []struct {
		name string
		in   []byte
		want string
		err  string
	}{
		{"kinds", tarOf(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, reg,
			tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a/f"},
			tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../etc"}),
			". drwxr-xr-x o\na drwxr-xr-x o\na/f urwxr-xr-x o\nh urwxr-xr-x o\nl Lrwxrwxrwx o -> ../../etc\n", ""},
		{"traversal", tarOf(t, tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}), "", "leads out of the archive"},
		{"hard link out", tarOf(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../etc/passwd"}), "", "leads out of the archive"},
		{"hard link to nothing", tarOf(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "y"}), "", "not a file before it"},
		{"truncated", tarOf(t, reg)[:600], "", "truncated"},
		{"absolute", tarOf(t, tar.Header{Name: "/etc/x", Typeflag: tar.TypeReg}), ". drwxr-xr-x o\netc drwxr-xr-x o\netc/x ---------- o\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := layers.Merge(tarLayer(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := list(tree); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
	tree, err := layers.Merge(tarLayer(tests[0].in))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a/f", "h"} {
		if b, err := tree.ReadFile(p); err != nil || string(b) != strings.Repeat("x", 700) {
			t.Errorf("%s: got %d bytes, %v", p, len(b), err)
		}
	}
}

func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := layers.Merge(tarLayer(b))
		if err != nil {
			return
		}
		if err := tree.Check(); err != nil {
			t.Fatal(err)
		}
	})
}
