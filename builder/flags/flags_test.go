package flags

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// TestMain lets the test's own program be those that are asked: one with
// pflag, one with Go's flag, and some that cannot be asked.
func TestMain(m *testing.M) {
	if play, ok := programs[os.Args[0]]; ok {
		os.Exit(play(os.Args[1:]))
	}
	os.Exit(m.Run())
}

var programs = map[string]func(args []string) int{
	"pflags": func(args []string) int {
		f := pflag.NewFlagSet("pflags", pflag.ContinueOnError)
		f.Int32("max-pods", 110, "Number of pods.\n--not-a-flag of this text")
		f.CountP("verbosity", "v", "Level of the log.")
		f.StringToString("node-labels", nil, "Labels `key=value` of the node.")
		f.Duration("sync-frequency", time.Minute, "How often.")
		f.Bool("fail-swap-on", true, "Whether to fail.")
		f.String("quiet", "", "Hidden.")
		if err := f.MarkHidden("quiet"); err != nil {
			return 3
		}
		f.Usage = func() {}
		switch err := f.Parse(args); {
		case errors.Is(err, pflag.ErrHelp):
			fmt.Print("Usage:\n" + f.FlagUsages())
		case err != nil:
			fmt.Fprintln(os.Stderr, "Error:", err)
			return 1
		}
		return 0
	},
	"goflags": func(args []string) int {
		f := flag.NewFlagSet("goflags", flag.ContinueOnError)
		f.SetOutput(os.Stderr)
		f.Uint64("snapshot-count", 1, "")
		f.Bool("pre-vote", true, "")
		f.Usage = func() {}
		switch err := f.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			fmt.Println("Member:\n  --snapshot-count '1'\n    When to take one.\n  --pre-vote 'true'\n    Whether to.")
		case err != nil:
			return 2
		}
		return 0
	},
	"surroundings": func([]string) int {
		dir, err := os.ReadDir(".")
		fmt.Printf("  --dir-%d-env-%d-args-%d\n", len(dir), len(os.Environ()), len(os.Args))
		return exit(err)
	},
	"mute":     func([]string) int { return 0 },
	"failing":  func([]string) int { fmt.Println("  --flag"); return 4 },
	"hanging":  func([]string) int { time.Sleep(time.Minute); return 0 },
	"chatting": func([]string) int { fmt.Print("  --flag\n", strings.Repeat("x", 3*atMost)); return 0 },
}

func exit(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func asker(t *testing.T) Asker {
	t.Helper()
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Asker{Store: store}
}

// played is the test's own program under another name.
func played(t *testing.T, name string) Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Program{name, "v1.2.3", layers.DigestOf([]byte(name)), func() (io.ReadCloser, error) { return os.Open(self) }}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct{ program, name, value, want string }{
		{"pflags", "max-pods", "20", ""},
		{"pflags", "node-labels", "a=b,c=d", ""},
		{"pflags", "sync-frequency", "5s", ""},
		{"pflags", "fail-swap-on", "false", ""},
		{"pflags", "quiet", "x", ""}, // not in the list
		{"pflags", "max-pod", "20", "max-pod: is no flag of pflags v1.2.3; did you mean max-pods?"},
		{"pflags", "not-a-flag", "20", "not-a-flag: is no flag of pflags v1.2.3"},
		{"pflags", "max-pods", "many", `max-pods: is refused by pflags v1.2.3: invalid argument "many" for "--max-pods" flag: strconv.ParseInt: parsing "many": invalid syntax`},
		{"pflags", "sync-frequency", "5", `sync-frequency: is refused by pflags v1.2.3: invalid argument "5" for "--sync-frequency" flag: time: missing unit in duration "5"`},
		{"pflags", "fail-swap-on", "", `fail-swap-on: is refused by pflags v1.2.3: invalid argument "" for "--fail-swap-on" flag: strconv.ParseBool: parsing "": invalid syntax`},
		{"goflags", "snapshot-count", "5", ""},
		{"goflags", "snapshot-counts", "5", "snapshot-counts: is no flag of goflags v1.2.3; did you mean snapshot-count?"},
		{"goflags", "snapshot-count", "-5", `snapshot-count: is refused by goflags v1.2.3: invalid value "-5" for flag -snapshot-count: parse error`},
		{"goflags", "pre-vote", "yes", `pre-vote: is refused by goflags v1.2.3: invalid boolean value "yes" for -pre-vote: parse error`},
		{"chatting", "flag", "x", ""},
		{"surroundings", "x", "y", ""},
	} {
		t.Run(tt.program+" "+tt.name+"="+tt.value, func(t *testing.T) {
			got, err := asker(t).Check(t.Context(), played(t, tt.program), map[string]string{tt.name: tt.value})
			if err != nil {
				t.Fatal(err)
			}
			var text string
			for _, p := range got {
				text += p.String()
			}
			if text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestSurroundings(t *testing.T) {
	a := asker(t)
	e := &executable{Program: played(t, "surroundings"), store: a.Store}
	names, err := e.names(t.Context())
	if want := "dir-1-env-0-args-2"; err != nil || len(names) != 1 || names[0] != want { // the directory has the program
		t.Errorf("got %q, %v, want %s", names, err, want)
	}
	if err := e.close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(a.Store.Dir(), "tmp", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCannotBeAsked(t *testing.T) {
	one := map[string]string{"flag": "x"}
	for name, want := range map[string]string{
		"mute":    "asking mute v1.2.3 for its flags: --help lists none (exit code 0): is it the right program?",
		"failing": "asking failing v1.2.3 for its flags: --help lists none (exit code 4): is it the right program?",
	} {
		if _, err := asker(t).Check(t.Context(), played(t, name), one); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	text := Program{"text", "v1", layers.DigestOf(nil), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("text")), nil }}
	if _, err := asker(t).Check(t.Context(), text, one); err == nil || !strings.HasSuffix(err.Error(), "exec format error") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := asker(t).Check(ctx, played(t, "hanging"), one); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	other := asker(t)
	other.Host = "linux/arm64"
	var host *HostError
	if _, err := other.Check(t.Context(), played(t, "pflags"), one); !errors.As(err, &host) || host.Host != "linux/arm64" {
		t.Errorf("got %v", err)
	}
}

// TestAskedOnce: what a program said is known the next time.
func TestAskedOnce(t *testing.T) {
	a, p := asker(t), played(t, "pflags")
	for range 2 {
		got, err := a.Check(t.Context(), p, map[string]string{"max-pods": "x", "sync-frequency": "1s"})
		if err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
		p.Open = func() (io.ReadCloser, error) { return nil, errors.New("opened again") }
	}
	p.Digest = layers.DigestOf([]byte("another build"))
	if _, err := a.Check(t.Context(), p, nil); err == nil {
		t.Error("another program was not asked")
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ help, want string }{
		{"", ""},
		{"Flags:\n      --config string       The file.\n  -v, --v Level   number for the log level\n      --v2.x=1[=true]   x\n", "config v v2.x"},
		{"  --name 'default'\n    Human-readable.\n      text that goes on with --name\n  --name\n", "name"},
		{"run with --flag\n                       --deep in a text\n--at-the-margin\n", ""},
	} {
		if got := strings.Join(Names(tt.help), " "); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.help, got, tt.want)
		}
	}
}

func TestReason(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"\nError: a\nb\n": "Error: a",
		"Error: invalid argument \"a\"\nUsage:\n":                                 `invalid argument "a"`,
		`E1 run.go:72] "command failed" err="parse: invalid argument \"a\" x: y"`: `invalid argument "a" x: y`,
	} {
		if got := reason(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("  -v, --v Level   number\n      --a.b-c string\n")
	f.Add("  --name 'default'\r\n\x00--x")
	f.Fuzz(func(t *testing.T, help string) {
		for _, n := range Names(help) {
			if !strings.Contains(help, "--"+n) {
				t.Errorf("%q is not in the text", n)
			}
		}
	})
}
