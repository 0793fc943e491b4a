package main

import (
	"context"
	"flag"
	"log/slog"
	"time"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/health"
)

func runHealth(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("health", flag.ContinueOnError)
	o := health.Options{Root: "/", Log: log}
	f.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "how long the node may take")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "/var/lib/kubelet/kubeconfig", "the kubelet's kubeconfig `file`; empty: do not look at the node object")
	if err := parse(f, args); err != nil {
		return err
	}
	return health.Wait(ctx, o)
}
