//go:build bench || net

package bench

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/direct"
	"github.com/kscratch/kscratch/test/userstore"
)

var program = flag.String("kscratch", "../../bin/kscratch", "the program to measure")

// Limits of one build, on two processors.
const (
	maxRSS = 256 << 20 // bytes
	// A build that takes this many times its target in processor time is an
	// error. What it takes by the clock depends on what else the machine does.
	patience = 8
)

// A bench is a cluster file and a content store of its own: the downloads of
// the user's, by hard links, and nothing derived from them.
type bench struct {
	dir, store string
	settings   int
}

// derived are the kinds of keys in the content store whose values come from
// downloads in seconds. The others are downloads, or were built from source.
var derived = []string{
	"compose", "depmod", "digests", "distro", "flags", "kubernetes-member", "output", "parts", "root", "tar-split", "untar",
}

func newBench(t *testing.T) *bench {
	t.Helper()
	user, err := userstore.Open()
	must(t, err)
	// Beside the user's, for the links.
	store, err := os.MkdirTemp(filepath.Dir(user.Dir()), "kscratch-bench-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(store) })
	b := &bench{dir: t.TempDir(), store: store}
	must(t, os.WriteFile(filepath.Join(b.dir, "cluster.yaml"), builder.DefaultYAML, 0o644))
	// The lock, and what it pins if the user's store lacks it.
	b.kscratch(t, user.Dir(), "image", "build", "--role", "master")
	b.kscratch(t, user.Dir(), "image", "build", "--role", "node")
	must(t, filepath.WalkDir(user.Dir(), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(user.Dir(), p)
		if err != nil {
			return err
		}
		switch top, _, _ := strings.Cut(name, string(filepath.Separator)); {
		case d.IsDir() && (top == "tmp" || top == "locks") && name != top:
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(store, name), 0o755)
		case top == "tmp" || top == "locks":
			return nil
		}
		return os.Link(p, filepath.Join(store, name))
	}))
	b.forget(t)
	return b
}

// forget removes what is derived, and the images.
func (b *bench) forget(t *testing.T) {
	t.Helper()
	for _, kind := range derived {
		must(t, os.RemoveAll(filepath.Join(b.store, "keys", kind)))
	}
	b.clear(t)
}

// clear removes the images.
func (b *bench) clear(t *testing.T) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(b.dir, "out")))
}

// set changes a setting, to another value each time.
func (b *bench) set(t *testing.T) {
	t.Helper()
	b.settings++
	text := strings.Replace(string(builder.DefaultYAML), "\n  maxPods: 0", fmt.Sprintf("\n  maxPods: %d", 50+b.settings), 1)
	if text == string(builder.DefaultYAML) {
		t.Fatal("the built-in cluster file has no line `maxPods: 0`")
	}
	must(t, os.WriteFile(filepath.Join(b.dir, "cluster.yaml"), []byte(text), 0o644))
}

// sample is one run of the program.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // bytes
	out       string
}

func (b *bench) kscratch(t *testing.T, store string, args ...string) sample {
	t.Helper()
	path, err := filepath.Abs(*program)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--cache", store}, args...)...)
	cmd.Dir = b.dir
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, problems.String())
	}
	s := sample{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), out: out.String()}
	s.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	return s
}

func (b *bench) build(t *testing.T, role string) sample {
	t.Helper()
	return b.kscratch(t, b.store, "image", "build", "--role", role)
}

// TestBench measures the cases that a user's day is made of.
func TestBench(t *testing.T) {
	b := newBench(t)
	cases := []struct {
		name   string
		target time.Duration
		before func(*testing.T)
		role   string
	}{
		{"everything, from downloads", 12 * time.Second, b.forget, "master"},
		{"the second role", 2 * time.Second, func(*testing.T) {}, "node"},
		{"a setting changed", 1500 * time.Millisecond, b.set, "master"},
		{"nothing changed", 300 * time.Millisecond, func(*testing.T) {}, "master"},
		{"everything, from what was derived", 0, b.clear, "master"},
	}
	got := make([][]sample, len(cases))
	var limit []sample
	for range runs {
		for i, c := range cases {
			c.before(t)
			got[i] = append(got[i], b.build(t, c.role))
		}
		limit = append(limit, hashed(t, filepath.Join(b.dir, "out", "master.raw")))
	}
	floor := median(limit, func(s sample) time.Duration { return s.wall })
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\twall s\tmin\tmax\tcpu s\tMiB\tof limit\ttarget")
	for i, c := range cases {
		wall := median(got[i], func(s sample) time.Duration { return s.wall })
		low := slices.MinFunc(got[i], func(a, b sample) int { return int(a.wall - b.wall) })
		high := slices.MaxFunc(got[i], func(a, b sample) int { return int(a.wall - b.wall) })
		cpu := median(got[i], func(s sample) time.Duration { return s.cpu })
		rss := slices.MaxFunc(got[i], func(a, b sample) int { return int(a.rss - b.rss) }).rss
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%.1f\t%s\n", c.name, wall.Seconds(), low.wall.Seconds(), high.wall.Seconds(),
			cpu.Seconds(), rss>>20, wall.Seconds()/floor.Seconds(), verdict(wall, c.target))
		if rss > maxRSS {
			t.Errorf("%s: %d MiB of memory, want at most %d", c.name, rss>>20, maxRSS>>20)
		}
		if c.target > 0 && cpu > patience*c.target {
			t.Errorf("%s: %v of processor time, and it should take %v", c.name, cpu, c.target)
		}
	}
	fmt.Fprintf(w, "limit: reading and hashing the disk once\t%.2f\t\t\t%.2f\t\t1.0\t\n",
		floor.Seconds(), median(limit, func(s sample) time.Duration { return s.cpu }).Seconds())
	must(t, w.Flush())
	t.Logf("%d runs each\n%s", runs, table.String())
}

func verdict(d, target time.Duration) string {
	switch {
	case target == 0:
		return ""
	case d <= target:
		return fmt.Sprintf("%.1f met", target.Seconds())
	}
	return fmt.Sprintf("%.1f MISSED", target.Seconds())
}

func median(of []sample, field func(sample) time.Duration) time.Duration {
	var d []time.Duration
	for _, s := range of {
		d = append(d, field(s))
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// hashed is what no build can do without: the digest of the disk.
func hashed(t *testing.T, path string) sample {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	start := time.Now()
	var before, after syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	h := sha256.New()
	r := direct.NewReader(f)
	defer r.Close()
	st, err := f.Stat()
	must(t, err)
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.NewSectionReader(r, 0, st.Size())}, direct.Buffer(1<<20))
	must(t, err)
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := func(u syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	return sample{wall: time.Since(start), cpu: cpu(after) - cpu(before)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
