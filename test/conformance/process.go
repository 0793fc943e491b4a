package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	startup = 30 * time.Second // less than this is not worth starting the suite
	grace   = 2 * time.Minute  // for cleaning up after Ginkgo's own limit
)

// Spec is a test of the conformance programme.
type Spec struct {
	Name string `json:"codename"` // the full text, by which it is chosen
	File string `json:"file"`     // in the Kubernetes repository
}

// List returns the conformance specs of a suite, in order of name.
func List(ctx context.Context, suite string) ([]Spec, error) {
	out, err := exec.CommandContext(ctx, suite, "-list-conformance-tests").Output()
	if err != nil {
		return nil, fmt.Errorf("asking %s for its specs: %w", suite, err)
	}
	var specs []Spec
	if err := yaml.Unmarshal(out, &specs); err != nil {
		return nil, fmt.Errorf("asking %s for its specs: %w", suite, err)
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("asking %s for its specs: it has none", suite)
	}
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs, nil
}

// focus is the regular expression for one spec and no other. Ginkgo matches it
// against the text with the suite's name before it.
func focus(spec string) string { return " " + regexp.QuoteMeta(spec) + "$" }

// execute runs a program with all that it starts in a process group, which is
// killed when ctx ends or after limit.
func execute(ctx context.Context, limit time.Duration, dir string, out io.Writer, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	// A home of its own: no configuration and no cache of the user.
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd.Run()
}
