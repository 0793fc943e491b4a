package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/kube"
)

// runAfter becomes another program once the API server is ready, or whatever
// else answers 200 at a URL. What needs the API server would otherwise start,
// give up after ten seconds, and start again with ever longer pauses, while it
// keeps the API server from starting; the API server does the same without etcd.
func runAfter(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("after", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", "", "kubeconfig `file` of the API server to wait for")
	url := f.String("url", "", "`URL` to wait for in its place, such as that of etcd's readyz")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if (*kubeconfig == "") == (*url == "") || f.NArg() == 0 {
		return usageError{errors.New("after takes --kubeconfig or --url, then a program and its arguments")}
	}
	program, err := exec.LookPath(f.Arg(0))
	if err != nil {
		return fmt.Errorf("looking for the program to become: %w", err)
	}
	ready := func(ctx context.Context) error { return answers(ctx, *url) }
	if *url == "" {
		api, err := kube.New(*kubeconfig)
		if err != nil {
			return err
		}
		ready = api.Ready
	}
	for said := ""; ; {
		err := ready(ctx)
		if err == nil {
			break
		}
		if err.Error() != said {
			said = err.Error()
			log.Info("waiting before becoming "+program, "reason", err)
		}
		if err := kube.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return fmt.Errorf("becoming %s: %w", program, unix.Exec(program, f.Args(), os.Environ()))
}

// answers reports why a URL does not answer 200.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	plain := &http.Transport{} // the default one looks for proxies
	defer plain.CloseIdleConnections()
	resp, err := plain.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
