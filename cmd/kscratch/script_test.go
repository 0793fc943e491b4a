package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kscratch/kscratch/test/aptfake"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kscratch": func() { os.Exit(run(context.Background(), os.Args[1:])) },
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
