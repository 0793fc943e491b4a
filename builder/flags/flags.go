// Package flags asks a program which flags it takes.
//
// The program that goes into an image is run on the machine that builds, with
// the flag in question and then --help. Its own parser judges name and value;
// then --help ends it before it does anything. So there is no list of flags
// here to fall behind a release, and flags that --help keeps quiet about are
// known, too. The list that --help prints serves to guess what was meant by a
// flag that is unknown.
//
// It works for programs whose parser takes arguments in their order and fails
// with the first bad one, as github.com/spf13/pflag and Go's flag do: all of
// Kubernetes' and etcd. A value that parses may still be refused when the
// program starts.
//
// A program runs without environment, in an empty directory, for a minute at
// most. What it said is kept in the content store by the program's digest.
package flags

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Program is a static program for linux/amd64.
type Program struct {
	Name    string // it is run under this name, such as "kubelet"
	Version string // for messages
	Digest  layers.Digest
	Open    func() (io.ReadCloser, error)
}

// Asker asks programs. Store is required.
type Asker struct {
	Store *cache.Store
	Host  string // what this machine runs, such as "linux/arm64"; empty: what kscratch was built for
}

// HostError says that this machine cannot run a program.
type HostError struct{ Program, Host string }

func (e *HostError) Error() string {
	return fmt.Sprintf("%s is a program for %s, and this machine runs %s", e.Program, platform, e.Host)
}

const platform = "linux/amd64"

// Check returns a problem for each flag that the program does not take, or not
// with that value; by name, without dashes. On a machine that cannot run the
// program it fails with a *[HostError].
func (a Asker) Check(ctx context.Context, p Program, flags map[string]string) (out []field.Problem, err error) {
	host := a.Host
	if host == "" {
		host = runtime.GOOS + "/" + runtime.GOARCH
	}
	if host != platform {
		return nil, &HostError{p.Name, host}
	}
	e := &executable{Program: p, store: a.Store}
	defer func() { err = errors.Join(err, e.close()) }()
	known, err := e.names(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		said, err := e.ask(ctx, "--"+name+"="+flags[name])
		if err != nil {
			return nil, err
		}
		switch {
		case said.Code == 0:
		case slices.Contains(known, name):
			out = append(out, field.Problem{Path: name, Msg: fmt.Sprintf("is refused by %s %s: %s", p.Name, p.Version, reason(said.Errors))})
		default:
			out = append(out, field.Problem{Path: name, Msg: fmt.Sprintf("is no flag of %s %s", p.Name, p.Version), Fix: field.DidYouMean(name, known)})
		}
	}
	return out, nil
}

// names returns the flags that a program lists.
func (e *executable) names(ctx context.Context) ([]string, error) {
	said, err := e.ask(ctx)
	if err != nil {
		return nil, err
	}
	names := Names(said.Output)
	if said.Code != 0 || len(names) == 0 {
		return nil, fmt.Errorf("asking %s %s for its flags: --help lists none (exit code %d): is it the right program?", e.Name, e.Version, said.Code)
	}
	return names, nil
}

// answer is what a program said.
type answer struct {
	Code   int    `json:"code"` // it exited with
	Output string `json:"output"`
	Errors string `json:"errors"`
}

// ask runs a program with arguments and then --help, unless what it said then
// is known.
func (e *executable) ask(ctx context.Context, args ...string) (answer, error) {
	args = append(args, "--help")
	key := layers.DigestOfParts(append([]string{"1", string(e.Digest), e.Name}, args...)...)
	said, err := cache.Value(ctx, e.store, "flags", string(key), func(ctx context.Context) (answer, error) { return e.run(ctx, args) })
	if err != nil {
		return answer{}, fmt.Errorf("asking %s %s for its flags: %w", e.Name, e.Version, err)
	}
	return said, nil
}

// listed is a line of --help that begins with a flag, as pflag writes it
// ("  -v, --v Level" and "      --config string") and etcd ("  --name 'x'").
var listed = regexp.MustCompile(`(?m)^ {1,8}(?:-[A-Za-z0-9?], )?--([a-z0-9][a-z0-9.-]*)`)

// Names returns the names of the flags that a program's help lists, sorted,
// each once.
func Names(help string) []string {
	var out []string
	for _, m := range listed.FindAllStringSubmatch(help, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// refused is how pflag and flag begin to say what is wrong with a value.
var refused = regexp.MustCompile(`invalid (?:argument|value|boolean value) .*`)

// reason finds in what a program wrote why it refused a value.
func reason(said string) string {
	for line := range strings.Lines(said) {
		m := refused.FindString(strings.TrimSpace(line))
		if m == "" {
			continue
		}
		if strings.Contains(line, `err="`) { // of the kubelet's log, which quotes the message
			m = strings.ReplaceAll(strings.TrimSuffix(m, `"`), `\"`, `"`)
		}
		return m
	}
	first, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return first
}
