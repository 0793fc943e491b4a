//go:build debroot

package derive

import (
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
)

var (
	rootDir = flag.String("root", "", "directory with unpacked Debian packages")
	outDir  = flag.String("out", "", "if set, the derived tree is written there (as root)")
)

// TestDebianRoot runs all steps on real packages:
//
//	go test -tags debroot ./layers/derive -run DebianRoot -args -root DIR -out DIR
func TestDebianRoot(t *testing.T) {
	tree := readTree(t, *rootDir)
	start := time.Now()
	got, changes, err := Run(t.Context(), tree, Options{
		ImageID: "kscratch-master", ImageVersion: "1.2.3", Time: time.Unix(1750000000, 0),
		Packages: []Package{{Name: "bash", Version: "5", Arch: "amd64"}},
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries in, %d out, %d changes in %v", tree.Len(), got.Len(), len(changes), time.Since(start))
	for _, c := range changes {
		if testing.Verbose() {
			fmt.Println(c.Step, c.Action, c.Path)
		}
	}
	if *outDir != "" {
		dumpTree(t, got, *outDir)
	}
}

func readTree(t *testing.T, root string) *layers.Tree {
	t.Helper()
	if root == "" {
		t.Fatal("-root is not set")
	}
	var files []layers.File
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		f := layers.File{
			Path: strings.TrimPrefix(p, root+"/"), Mode: fi.Mode(), UID: st.Uid, GID: st.Gid,
			ModTime: fi.ModTime().Truncate(time.Second), Owner: "deb:some",
		}
		if fi.Mode().IsRegular() {
			f.Size = fi.Size()
			f.Open = func() (io.ReadCloser, error) { return os.Open(p) }
		}
		if fi.Mode().Type() == fs.ModeSymlink {
			f.Link, err = os.Readlink(p)
		}
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := layers.Merge(layers.Of("root", "", files...))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func dumpTree(t *testing.T, tree *layers.Tree, dir string) {
	t.Helper()
	for f := range tree.Files() {
		p := filepath.Join(dir, f.Path)
		var err error
		switch {
		case f.Mode.IsDir():
			err = os.MkdirAll(p, 0o755)
		case f.Mode.Type() == fs.ModeSymlink:
			err = os.Symlink(f.Link, p)
		default:
			var b []byte
			if b, err = f.Read(); err == nil {
				err = os.WriteFile(p, b, 0o600)
			}
		}
		if err == nil {
			err = os.Lchown(p, int(f.UID), int(f.GID))
		}
		if err == nil && f.Link == "" {
			err = os.Chmod(p, f.Mode.Perm()|f.Mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
		}
		if err == nil && f.Link == "" {
			err = os.Chtimes(p, f.ModTime, f.ModTime)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLibrariesNeedNoCache is the evidence for having no ld.so.cache: every
// library that a program or library in the tree asks for is in a directory
// that the dynamic linker searches without one.
//
//	go test -tags debroot ./layers/derive -run NoCache -args -root DIR
func TestLibrariesNeedNoCache(t *testing.T) {
	tree := readTree(t, *rootDir)
	programs, needed := 0, 0
	for f := range tree.Files() {
		b := head(t, f)
		if !bytes.HasPrefix(b, []byte("\x7fELF\x02\x01")) || strings.HasPrefix(f.Path, "usr/lib/modules/") {
			continue
		}
		e, err := elf.Open(filepath.Join(*rootDir, f.Path))
		if err != nil {
			t.Fatal(f.Path, err)
		}
		programs++
		// A private library finds its neighbours through the program that
		// loaded it.
		dirs := append([]string{filepath.Dir(f.Path)}, builtinLibraryDirs...)
		for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
			paths, _ := e.DynString(tag)
			for _, p := range paths {
				for _, d := range strings.Split(p, ":") {
					dirs = append([]string{strings.TrimPrefix(strings.ReplaceAll(d, "$ORIGIN", "/"+filepath.Dir(f.Path)), "/")}, dirs...)
				}
			}
		}
		libs, _ := e.ImportedLibraries()
		for _, l := range libs {
			needed++
			if !slices.ContainsFunc(dirs, func(d string) bool { _, err := tree.Resolve(filepath.Join(d, l)); return err == nil }) {
				t.Errorf("/%s needs %s, which is in none of %v", f.Path, l, dirs)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d ELF files, %d needed libraries", programs, needed)
}

func head(t *testing.T, f layers.File) []byte {
	t.Helper()
	if !f.Mode.IsRegular() {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 6)
	n, _ := io.ReadFull(r, b)
	return b[:n]
}
