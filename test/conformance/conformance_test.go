//go:build conformance

package conformance

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/e2e"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "administrator's kubeconfig of a running cluster with the images of test/e2e")
	server     = flag.String("server", "https://127.0.0.1:6443", "URL of the cluster's API server")
	list       = flag.String("list", "full", "specs to run: quick, focus, full, or a file with a spec per line")
	limit      = flag.Duration("limit", 2*time.Hour, "time for all specs")
	parallel   = flag.Int("parallel", 1, "processes of the suite at once")
	work       = flag.String("dir", "", "directory for logs; default: a temporary one")
	markdown   = flag.String("markdown", "", "file to write the whole report to")
)

// TestConformance judges a cluster that runs already. The suite and kubectl
// come from the user's content store, or are built into it.
func TestConformance(t *testing.T) {
	if *kubeconfig == "" {
		t.Fatal("which cluster? Give its -kubeconfig and -server")
	}
	config, err := os.ReadFile(*kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	dir := *work
	if dir == "" {
		dir = t.TempDir()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	programs(t, bin)
	report, err := Run(t.Context(), Config{
		Suite: filepath.Join(bin, "e2e.test"), Kubectl: filepath.Join(bin, "kubectl"),
		Kubeconfig: config, Server: *server, Dir: dir, Specs: specs(t), Timeout: *limit, Parallel: *parallel,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report {
		if r.Took > 0 {
			t.Logf("%6.1f s %s: %s %s", r.Took.Seconds(), r.Outcome, r.Name, r.Reason)
		}
	}
	t.Log(report.Summary())
	for _, r := range report.With(Failed) {
		t.Errorf("%s: %s", r.Name, r.Reason)
	}
	if *markdown == "" {
		return
	}
	var b strings.Builder
	if err := report.WriteMarkdown(&b, e2e.Version, nodes(t, bin)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*markdown, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nodes says how many nodes the cluster has.
func nodes(t *testing.T, bin string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), "--kubeconfig", *kubeconfig, "--server", *server, "get", "nodes", "-o", "name")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	n := len(lines(string(out)))
	if n == 1 {
		return "one node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func specs(t *testing.T) []string {
	switch *list {
	case "quick":
		return Quick()
	case "focus":
		return Focus()
	case "full":
		return Full()
	}
	b, err := os.ReadFile(*list)
	if err != nil {
		t.Fatal(err)
	}
	return lines(string(b))
}

// programs writes e2e.test and kubectl into dir.
func programs(t *testing.T, dir string) {
	t.Helper()
	o, err := e2e.Local(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	for name, get := range map[string]func(context.Context, e2e.Options) (cache.Blob, error){"e2e.test": e2e.Suite, "kubectl": e2e.Kubectl} {
		b, err := get(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := e2e.Install(b, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
