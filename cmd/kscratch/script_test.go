package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kscratch":      main,
		"kscratch-odd":  odd,
		"kscratch-full": full,
	})
}

// TestScripts runs the command line as a user would; see test/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../test/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KSCRATCH_CACHE", e.WorkDir+"/cache")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "archive": archive, "flip": flip, "mode": mode,
			"world": newWorld, "tarball": tarball, "edit": edit, "cut": cut, "leaves": leaves,
		},
	})
}

// exits runs kscratch and compares its exit code: exits CODE ARG...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("kscratch", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("kscratch exited with %s, want %s", got, args[0])
	}
	_, message, told := strings.Cut("\n"+ts.ReadFile("stderr"), "\nkscratch: ")
	if got == "1" && !told && ts.ReadFile("stdout") != "" {
		return // differences were asked for
	}
	// Only the problems of a cluster file have a line each.
	if got != "0" && got != "2" && strings.Count(message, "\n") != 1 {
		ts.Fatalf("the message of kscratch is not one line: %q", message)
	}
}

// newWorld makes a world, see package fakeworld: world DIR [NAME=VERSION...].
// The packages named are there in that version, too. There is a package clash
// that has a file of the package bash.
func newWorld(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	more := []aptfake.Deb{{
		Name: "clash", Files: []layers.File{layers.Regular("usr/bin/bash", 0o755, "t", []byte("x"))},
	}}
	debs, err := fakeworld.Debs()
	ts.Check(err)
	for _, a := range args[1:] {
		name, version, _ := strings.Cut(a, "=")
		for _, d := range debs {
			if d.Name == name {
				d.Version = version
				more = append(more, d)
			}
		}
	}
	ts.Check(fakeworld.Write(context.Background(), dir, more...))
}

// tarball writes a server tarball with programs for another machine: tarball FILE
func tarball(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(fakeworld.WriteTarball(context.Background(), ts.MkAbs(args[0]), elf.EM_AARCH64))
}

// edit replaces the first match of a regular expression: edit FILE PATTERN NEW.
// A \n in NEW is a line break.
func edit(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.MkAbs(args[0])
	old := ts.ReadFile(p)
	at := regexp.MustCompile(args[1]).FindStringIndex(old)
	if at == nil {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(p, []byte(old[:at[0]]+strings.ReplaceAll(args[2], `\n`, "\n")+old[at[1]:]), 0o644))
}

// cut drops the second half of a file: cut FILE
func cut(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.MkAbs(args[0])
	b, err := os.ReadFile(p)
	ts.Check(err)
	ts.Check(os.WriteFile(p, b[:len(b)/2], 0o644))
}

// leaves checks which disk images are in the working directory, and that
// nothing is under way there or in out: leaves FILE...
func leaves(ts *testscript.TestScript, _ bool, args []string) {
	var got []string
	for _, dir := range []string{".", "out"} {
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		for _, e := range entries {
			hidden := strings.HasPrefix(e.Name(), ".") && e.Type().IsRegular()
			if hidden || dir == "." && regexp.MustCompile(`\.(raw|qcow2|vhd|vmdk|ova|gz)$`).MatchString(e.Name()) && e.Name() != "kubernetes-server-linux-amd64.tar.gz" {
				got = append(got, e.Name())
			}
		}
	}
	if strings.Join(got, " ") != strings.Join(args, " ") {
		ts.Fatalf("there are %q", got)
	}
}

// archive writes a signed Debian archive with a few small packages, and its
// keys beside it: archive DIR
func archive(ts *testscript.TestScript, _ bool, args []string) {
	keys, err := aptfake.Write(ts.MkAbs(args[0]),
		aptfake.Deb{Name: "hello", Version: "1.0", Depends: "libhello (>= 1)"},
		aptfake.Deb{Name: "libhello", Version: "1.2"})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pgp"), keys, 0o644))
}

// flip changes one byte in the middle of a file: flip FILE
func flip(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.MkAbs(args[0])
	b, err := os.ReadFile(p)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(p, b, 0o644))
}

// mode compares permission bits: mode 0700 FILE
func mode(ts *testscript.TestScript, _ bool, args []string) {
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
