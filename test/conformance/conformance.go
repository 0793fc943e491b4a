// Package conformance judges a running cluster with upstream's end-to-end
// suite and tells, for each spec of the Kubernetes conformance programme, how
// it went or why it was not tried.
//
// [Run] starts e2e.test (see test/e2e) in one or several processes, each with
// a part of the list of specs, and reads Ginkgo's JSON reports. [Quick],
// [Focus] and [Full] are lists for everyday use. The cluster is the caller's: a
// kubeconfig and the address at which its API server answers. Its nodes must be
// Ready and have the images of test/e2e; every pod of kube-system must come up,
// or the suite runs nothing.
//
// This is not a certification: that needs all specs to pass on several nodes.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"
)

// Config says what to run against which cluster. All but Parallel and Log is
// required.
type Config struct {
	Suite      string        // path of e2e.test
	Kubectl    string        // path of kubectl, which some specs run
	Kubeconfig []byte        // of an administrator, with certificates embedded
	Server     string        // URL of the API server, such as https://127.0.0.1:6443
	Dir        string        // for logs, Ginkgo's reports and scratch files; made if missing
	Specs      []string      // full texts, such as those of [Quick]
	Timeout    time.Duration // for all of it; what is not done by then was not tried
	Parallel   int           // processes for the specs that may run beside others; 0 means 1
	Log        *slog.Logger  // nil discards
}

// Run runs the specs and returns a report on every spec of the conformance
// programme. Specs that fail are in the report; the error says that the suite
// itself could not do its work.
func Run(ctx context.Context, c Config) (Report, error) {
	r, err := run(ctx, c)
	if err != nil {
		return Report{}, fmt.Errorf("running the e2e suite: %w", err)
	}
	return r, nil
}

func run(ctx context.Context, c Config) (Report, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return Report{}, err
	}
	known, err := List(ctx, c.Suite)
	if err != nil {
		return Report{}, err
	}
	if err := check(known, c.Specs); err != nil {
		return Report{}, err
	}
	kubeconfig, err := redirect(c.Kubeconfig, c.Server)
	if err != nil {
		return Report{}, err
	}
	s := suite{c: c, kubeconfig: filepath.Join(c.Dir, "kubeconfig"), deadline: time.Now().Add(c.Timeout)}
	if err := os.WriteFile(s.kubeconfig, kubeconfig, 0o600); err != nil {
		return Report{}, err
	}
	ran, err := s.all(ctx)
	if err != nil {
		return Report{}, err
	}
	return newReport(known, c.Specs, ran), nil
}

// check refuses specs that the suite does not have: they would be left out
// silently.
func check(known []Spec, asked []string) error {
	if len(asked) == 0 {
		return errors.New("no spec is asked for")
	}
	for _, name := range asked {
		if !slices.ContainsFunc(known, func(s Spec) bool { return s.Name == name }) {
			return fmt.Errorf("the suite has no conformance spec %q: the list is for another version", name)
		}
	}
	return nil
}

// redirect returns a kubeconfig whose clusters are all at server.
func redirect(kubeconfig []byte, server string) ([]byte, error) {
	var k map[string]any
	if err := yaml.Unmarshal(kubeconfig, &k); err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	clusters, _ := k["clusters"].([]any)
	for _, c := range clusters {
		named, _ := c.(map[string]any)
		cluster, ok := named["cluster"].(map[string]any)
		if !ok {
			return nil, errors.New("reading the kubeconfig: an entry of clusters has no cluster")
		}
		cluster["server"] = server
	}
	if len(clusters) == 0 {
		return nil, errors.New("reading the kubeconfig: it names no cluster")
	}
	return yaml.Marshal(k)
}

// suite is one run of the suite.
type suite struct {
	c          Config
	kubeconfig string
	deadline   time.Time
}

// all runs what may run at once, in as many processes as are wanted, and then
// what needs the cluster for itself.
func (s suite) all(ctx context.Context) (map[string]result, error) {
	shared, alone := partition(s.c.Specs, max(s.c.Parallel, 1))
	parts := make([]map[string]result, len(shared)+1)
	g, gctx := errgroup.WithContext(ctx)
	for i, specs := range shared {
		g.Go(func() (err error) {
			parts[i], err = s.process(gctx, "shared-"+strconv.Itoa(i+1), specs)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var err error
	if parts[len(shared)], err = s.process(ctx, "alone", alone); err != nil {
		return nil, err
	}
	out := map[string]result{}
	for _, p := range parts {
		for name, r := range p {
			out[name] = r
		}
	}
	return out, nil
}

// partition deals the specs out to n processes. Those that upstream marks as
// serial or disruptive are kept apart.
func partition(specs []string, n int) (shared [][]string, alone []string) {
	shared = make([][]string, n)
	next := 0
	for _, s := range specs {
		if strings.Contains(s, "[Serial]") || strings.Contains(s, "[Disruptive]") {
			alone = append(alone, s)
			continue
		}
		shared[next%n] = append(shared[next%n], s)
		next++
	}
	return shared, alone
}

// process runs one e2e.test with specs and returns its results. Its output is
// kept in Dir.
func (s suite) process(ctx context.Context, name string, specs []string) (_ map[string]result, err error) {
	left := time.Until(s.deadline)
	if len(specs) == 0 || left < startup {
		return nil, nil
	}
	s.log().Info("running specs", "process", name, "specs", len(specs))
	out, err := os.Create(filepath.Join(s.c.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	report := filepath.Join(s.c.Dir, name+".json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Ginkgo ends at its own limit, writes the report and cleans up.
	ended := execute(ctx, left+grace, s.c.Dir, out, s.c.Suite, s.args(report, left, specs)...)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(report)
	if err != nil {
		return nil, fmt.Errorf("process %s wrote no report (%w); see %s", name, errors.Join(ended, err), out.Name())
	}
	defer f.Close()
	return readReport(f)
}

func (s suite) args(report string, limit time.Duration, specs []string) []string {
	args := []string{
		"-kubeconfig=" + s.kubeconfig, "-kubectl-path=" + s.c.Kubectl, "-provider=skeleton",
		"-allowed-not-ready-nodes=0", "-e2e-output-dir=" + s.c.Dir,
		"-disable-log-dump", "-dump-logs-on-failure=false", // what is wrong is in the report, the node's journal is the caller's
		"-ginkgo.seed=1", "-ginkgo.no-color", "-ginkgo.v",
		"-ginkgo.timeout=" + limit.Round(time.Second).String(), "-ginkgo.json-report=" + report,
	}
	for _, spec := range specs {
		args = append(args, "-ginkgo.focus="+focus(spec))
	}
	return args
}

func (s suite) log() *slog.Logger {
	if s.c.Log == nil {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return s.c.Log
}
