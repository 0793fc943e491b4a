package derive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// tree makes a tree of lines in the form of ls:
//
//	usr/lib/                   a directory
//	usr/bin/sh -> dash         a symbolic link
//	usr/bin/su 4755 0:42 = x   a file with mode, owner and content; \n and \t as in Go
//	usr/bin/ls = text          a file, 0644 0:0
func tree(t testing.TB, lines string) *layers.Tree {
	t.Helper()
	var files []layers.File
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			files = append(files, parseLine(t, line))
		}
	}
	out, err := layers.Merge(layers.Of("test", "", files...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parseLine(t testing.TB, line string) layers.File {
	t.Helper()
	if p, target, ok := strings.Cut(line, " -> "); ok {
		return layers.Symlink(p, target, "deb:test")
	}
	left, content, isFile := strings.Cut(line, " =")
	w := strings.Fields(left)
	f := layers.Dir(strings.TrimSuffix(w[0], "/"), 0o755, "deb:test")
	if isFile {
		content = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(strings.TrimPrefix(content, " "))
		f = layers.Regular(w[0], 0o644, "deb:test", []byte(content))
	}
	if len(w) > 1 {
		n, err := strconv.ParseUint(w[1], 8, 12)
		if err != nil {
			t.Fatal(err)
		}
		f.Mode = f.Mode.Type() | fs.FileMode(n&0o777)
		for bit, m := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
			if n&bit != 0 {
				f.Mode |= m
			}
		}
	}
	if len(w) > 2 {
		if _, err := fmt.Sscanf(w[2], "%d:%d", &f.UID, &f.GID); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// listing is the reverse of tree, for what a step added, replaced or removed;
// content is shown where it is short.
func listing(t testing.TB, got *layers.Tree, changes []Change) string {
	t.Helper()
	var out strings.Builder
	for _, c := range changes {
		f, ok := got.Lookup(c.Path)
		switch {
		case c.Action == Removed && !ok:
			fmt.Fprintf(&out, "- %s\n", c.Path)
		case c.Action == Removed:
		case f.Link != "":
			fmt.Fprintf(&out, "%s %s -> %s\n", mark(c), c.Path, f.Link)
		case f.Mode.IsDir():
			fmt.Fprintf(&out, "%s %s/ %04o %d:%d\n", mark(c), c.Path, unixMode(f.Mode), f.UID, f.GID)
		default:
			b, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(b), "\n", `\n`)
			if len(text) > 700 || strings.Contains(text, "\x00") {
				text = "…"
			}
			fmt.Fprintf(&out, "%s %s %04o %d:%d = %s\n", mark(c), c.Path, unixMode(f.Mode), f.UID, f.GID, text)
		}
	}
	return out.String()
}

func mark(c Change) string {
	if c.Action == Added {
		return "+"
	}
	return "~"
}

var testOptions = Options{
	ImageID: "kscratch-master", ImageVersion: "20260701.1",
	Time:     time.Unix(1_700_000_000, 0).UTC(),
	Packages: []Package{{Name: "udev", Version: "257.13-1", Arch: "amd64", Source: "systemd"}, {Name: "bash", Version: "5.2", Arch: "amd64"}},
}

func runStep(t testing.TB, s Step, in *layers.Tree) (*layers.Tree, string, error) {
	t.Helper()
	got, changes, err := run(t.Context(), in, testOptions, []Step{s})
	if err != nil {
		return nil, "", err
	}
	return got, listing(t, got, changes), nil
}

// TestSteps runs one step on a small tree; want lists the changes.
func TestSteps(t *testing.T) {
	for _, tt := range stepTests {
		t.Run(tt.step.Name+"/"+tt.name, func(t *testing.T) {
			_, got, err := runStep(t, tt.step, tree(t, tt.tree))
			if err != nil {
				t.Fatal(err)
			}
			if want := unindent(tt.want); got != want {
				t.Errorf("changes:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func unindent(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		if line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), "\t"); line != "" {
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

func TestStepsRefuse(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.step.Name+"/"+tt.name, func(t *testing.T) {
			_, _, err := runStep(t, tt.step, tree(t, tt.tree))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "deriving "+tt.step.Name+": ") {
				t.Errorf("error %v, want %q in it, and the step's name", err, tt.want)
			}
		})
	}
}

func TestStepsAreDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Steps {
		if s.Name == "" || s.Doc == "" || s.Run == nil || seen[s.Name] {
			t.Errorf("step %q: want a name of its own, a doc and a function", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestRunOfNothing(t *testing.T) {
	got, _, err := Run(t.Context(), tree(t, "usr/bin/"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Lookup("etc/hosts"); !ok {
		t.Error("no /etc/hosts")
	}
}

func TestRunTwiceIsTheSame(t *testing.T) {
	in := tree(t, wholeTree)
	a, ca, err := Run(t.Context(), in, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	b, cb, err := Run(t.Context(), in, testOptions)
	if err != nil || !slices.Equal(ca, cb) || dump(t, a) != dump(t, b) {
		t.Fatalf("two runs differ: %v", err)
	}
	for f := range a.Files() {
		if f.Owner == "" || strings.HasPrefix(f.Owner, "derive:") && !f.ModTime.Equal(testOptions.Time) {
			t.Errorf("%s: owner %q, time %v", f.Path, f.Owner, f.ModTime)
		}
	}
	for _, c := range ca {
		f, ok := a.Lookup(c.Path)
		if c.Action == Added && ok && f.Owner != "derive:"+c.Step && !strings.HasPrefix(f.Path, factory) {
			t.Errorf("%s was added by %s but is owned by %s", c.Path, c.Step, f.Owner)
		}
	}
}

// dump describes all of a tree.
func dump(t testing.TB, tr *layers.Tree) string {
	t.Helper()
	var out strings.Builder
	for f := range tr.Files() {
		fmt.Fprintln(&out, f.Path, f.Mode, f.UID, f.GID, f.ModTime, f.Link, f.Owner)
		if f.Mode.IsRegular() {
			b, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			out.Write(b)
		}
	}
	return out.String()
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Run(ctx, tree(t, "usr/"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestUnchangedIsNotReported(t *testing.T) {
	same := Step{"same", "", func(context.Context, Input) (Result, error) {
		return Result{Files: []layers.File{file("a", 0o644, "x"), link("b", "a"), dir("c", 0o755)}, Drop: []string{"gone"}}, nil
	}}
	in := tree(t, "a = x\nb -> a\nc/")
	got, changes, err := run(t.Context(), in, testOptions, []Step{same})
	if err != nil || len(changes) != 0 || got != in {
		t.Errorf("changes %v, error %v", changes, err)
	}
}

func TestConfs(t *testing.T) {
	in := Input{Tree: tree(t, `
		etc/x.d/10-a.conf = etc
		usr/lib/x.d/10-a.conf = hidden
		usr/lib/x.d/05-b.conf = b
		etc/x.d/20-c.conf -> /dev/null
		usr/lib/x.d/20-c.conf = masked
		usr/lib/x.d/30-d.conf -> ../../share/d
		usr/share/d = linked
		usr/lib/x.d/README = no`)}
	files, err := in.confs(".conf", "etc/x.d", "usr/lib/x.d")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Path)
	}
	if want := []string{"usr/lib/x.d/05-b.conf", "etc/x.d/10-a.conf", "usr/share/d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
