package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
)

// runAfter becomes another program once the API server is ready. What needs
// the API server would otherwise start, give up after ten seconds, and start
// again with ever longer pauses, while it keeps the API server from starting.
func runAfter(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("after", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", "", "kubeconfig `file` of the API server to wait for; required")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if *kubeconfig == "" || f.NArg() == 0 {
		return usageError{errors.New("after takes --kubeconfig, then a program and its arguments")}
	}
	program, err := exec.LookPath(f.Arg(0))
	if err != nil {
		return fmt.Errorf("looking for the program to become: %w", err)
	}
	api, err := kube.New(*kubeconfig)
	if err != nil {
		return err
	}
	for said := ""; ; {
		err := api.Ready(ctx)
		if err == nil {
			break
		}
		if err.Error() != said {
			said = err.Error()
			log.Info("waiting for the API server", "reason", err)
		}
		if err := kube.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return fmt.Errorf("becoming %s: %w", program, unix.Exec(program, f.Args(), os.Environ()))
}
