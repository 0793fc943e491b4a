// Command kscratch-node is the one program of kscratch's that runs on a node.
// It is static and has a sub-command for each thing that no program of
// systemd's, Ignition's or Kubernetes's does:
//
//	pod-cidr   wait for the node's pod CIDR, give it to the bridge, name the node
//	images     let docker know the container images baked into the root
//	etcd       let this master's member of etcd run when it may (on masters)
//	join       wait until no other machine has this one's place in the cluster
//	cluster    publish the node's pod CIDR, keep routes to its peers' pods
//	approve    approve the certificates that kubelets serve with (on masters)
//	after      wait for the API server or etcd, then become a program that needs it
//	health     wait until the node is healthy; the gate of a good boot
//	etc        mount the image's own writable /etc (in the initrd)
//	platform   tell Ignition where it runs (in the initrd)
//	attach     show the partitions of an image in memory or on a CD (in the initrd)
//	repart     make the partitions of the disk that the state is on (in the initrd)
//
// Called by the name setfiles, it stands in for that SELinux program; see
// setfiles.go.
//
// Everything it says goes to stderr, hence to the journal. Exit codes: 0 done,
// 1 failed, with the reason in the last line, 2 called wrongly. It leaves
// signals alone: a sub-command that waits dies of SIGTERM, which a unit of
// Type=oneshot counts as a failure, so that nothing starts that requires it;
// every file it writes is whole at any time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// command is a sub-command.
type command struct {
	name  string
	about string
	run   func(ctx context.Context, log *slog.Logger, args []string) error
}

// commands lists the sub-commands in the order of a boot.
var commands = []command{
	{"attach", "show the partitions of an image in memory or on a CD (in the initrd)", runAttach},
	{"repart", "make the partitions of the disk that the state is on (in the initrd)", runRepart},
	{"platform", "tell Ignition where it runs (in the initrd)", runPlatform},
	{"etc", "mount the image's own writable /etc (in the initrd)", runEtc},
	{"pod-cidr", "wait for the node's pod CIDR, give it to the bridge, name the node", runPodCIDR},
	{"images", "let docker know the container images baked into the root", runImages},
	{"etcd", "let this master's member of etcd run when it may (on masters)", runEtcd},
	{"join", "wait until no other machine has this one's place in the cluster", runJoin},
	{"cluster", "publish the node's pod CIDR, keep routes to its peers' pods", runCluster},
	{"approve", "approve the certificates that kubelets serve with (on masters)", runApprove},
	{"after", "wait for the API server or etcd, then become a program that needs it", runAfter},
	{"health", "wait until the node is healthy; the gate of a good boot", runHealth},
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	args := os.Args[1:]
	if name := filepath.Base(os.Args[0]); name == "setfiles" {
		args = append([]string{name}, args...)
	}
	os.Exit(run(context.Background(), log, os.Stderr, args))
}

// withoutTime drops the time of a log line: the journal has a better one.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// run calls a sub-command and returns the exit code.
func run(ctx context.Context, log *slog.Logger, stderr io.Writer, args []string) int {
	err := dispatch(ctx, log, args)
	var wrong usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "kscratch-node: %v\n\n%s", err, usage())
		return exitUsage
	}
	fmt.Fprintf(stderr, "kscratch-node: %v\n", err)
	return exitFailed
}

func dispatch(ctx context.Context, log *slog.Logger, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("want a sub-command")}
	}
	if args[0] == "setfiles" {
		return setfiles("/")
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, log, args[1:])
		}
	}
	return usageError{fmt.Errorf("there is no sub-command %q", args[0])}
}

// usageError is the caller's mistake.
type usageError struct{ error }

func usage() string {
	text := "usage: kscratch-node COMMAND [FLAGS]\n"
	for _, c := range commands {
		text += fmt.Sprintf("  %-9s  %s\n", c.name, c.about)
	}
	return text + "kscratch-node COMMAND --help shows its flags.\n"
}

// parse reads the flags of a sub-command that takes no other arguments.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if f.NArg() > 0 {
		return usageError{fmt.Errorf("%s takes flags only, not %q", f.Name(), f.Arg(0))}
	}
	return nil
}
