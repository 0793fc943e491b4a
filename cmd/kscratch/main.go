// Kscratch turns one cluster file into immutable Kubernetes node images.
//
//	kscratch init                       write cluster.yaml and make the cluster's PKI
//	kscratch image lint                 look for what would not work
//	kscratch image build --role master  build a bootable disk
//	kscratch image convert master.raw   write it in another format
//	kscratch image run master.raw       boot it in QEMU
//	kscratch etcd snapshot FILE         save a running cluster's data; see also restore, replace-member
//	kscratch image inspect master.raw   show what is in it; see also ls, cat, why, diff, sbom
//	kscratch image verify master.raw    prove that it is whole, and rebuild it to compare
//
// Results go to standard output, everything else to standard error.
//
// Exit codes: 0 done; 1 anything not listed here, and images that differ; 2 bad
// usage, a bad cluster file, or an image that would not work; 3 an input cannot
// be had (mirror, registry, toolchain); 4 an input is not what was signed or
// pinned; 5 the output cannot be written (disk full); 6 the node did not become
// Ready; 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers/cache"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnavailable = 3
	exitTampered    = 4
	exitOutput      = 5
	exitNotReady    = 6
	exitInterrupted = 130
)

func main() { os.Exit(start(os.Args[1:])) }

// start runs a command line with the signals of the process.
func start(args []string) int {
	// A write beyond ulimit -f is then an error like any other.
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends at once: give the signals back after the first.
	context.AfterFunc(ctx, stop)
	return run(ctx, args)
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if errors.As(err, new(differError)) {
		return exitFailed // an answer, not a failure
	}
	if errors.As(err, new(foundError)) {
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "kscratch: "+message(err))
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return exitCode(err)
}

// message renders an error as one line; the problems of a cluster file have a
// line each, and so have those of an image and the consoles of machines that did
// not come.
func message(err error) string {
	var (
		spec     *builder.SpecError
		linted   *builder.LintError
		notReady *notReadyError
	)
	if errors.As(err, &spec) || errors.As(err, &linted) || errors.As(err, &notReady) {
		return err.Error()
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func exitCode(err error) int {
	var (
		spec     *builder.SpecError
		linted   *builder.LintError
		usage    usageError
		mismatch *cache.MismatchError
		input    *builder.InputError
		output   *builder.OutputError
		notReady *notReadyError
		netErr   *net.OpError // not net.Error, which every errno is
		dnsErr   *net.DNSError
		urlErr   *url.Error
	)
	switch {
	case errors.As(err, &spec), errors.As(err, &linted), errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &notReady):
		return exitNotReady
	case errors.As(err, &input) && input.Tampered, errors.As(err, &mismatch):
		return exitTampered
	case errors.As(err, &output), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return exitOutput
	case errors.As(err, &input), errors.As(err, &netErr), errors.As(err, &dnsErr), errors.As(err, &urlErr):
		return exitUnavailable
	}
	return exitFailed
}

// env is what every command shares.
type env struct {
	file    string // cluster file
	cache   string // directory of the content store
	vendor  string // vendor directory
	offline bool
	quiet   bool
	verbose bool
}

func newRoot() *cobra.Command {
	e := &env{vendor: os.Getenv("KSCRATCH_VENDOR"), offline: isSet("KSCRATCH_OFFLINE")}
	root := &cobra.Command{
		Use:           "kscratch",
		Short:         "Immutable Kubernetes node images from one cluster file",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          args(cobra.NoArgs),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := root.PersistentFlags()
	f.StringVarP(&e.file, "file", "f", "cluster.yaml", "cluster `file`; a missing cluster.yaml means the built-in default")
	f.StringVar(&e.cache, "cache", defaultCache(), "`directory` of the content store")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "say nothing but results and errors")
	f.BoolVarP(&e.verbose, "verbose", "v", false, "say more")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newInit(e), newImage(e), newCluster(e), newEtcd(e), newTarball(e), newLock(e), newVendor(e), newSchema(), newMan())
	return root
}

// defaultCache is $KSCRATCH_CACHE, else kscratch below the user's cache directory.
func defaultCache() string {
	if d := os.Getenv("KSCRATCH_CACHE"); d != "" {
		return d
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return ".kscratch-cache"
	}
	return d + "/kscratch"
}

// spec loads the cluster file. Only the default name may be missing.
func (e *env) spec(c *cobra.Command) (*builder.Spec, error) {
	return builder.Load(e.file, !c.Flags().Changed("file"))
}

func (e *env) store() (*cache.Store, error) { return cache.Open(e.cache) }

func (e *env) level() slog.Level {
	switch {
	case e.quiet:
		return slog.LevelError
	case e.verbose:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// logger writes plain lines to standard error.
func (e *env) logger() *slog.Logger {
	return slog.New(newLineHandler(os.Stderr, e.level()))
}
