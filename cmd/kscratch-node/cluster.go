package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/approve"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/join"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/peers"
)

func runJoin(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("join", flag.ContinueOnError)
	o := join.Options{Root: "/", NotifySocket: os.Getenv("NOTIFY_SOCKET"), Log: log}
	f.StringVar(&o.Kubeconfig, "kubeconfig", "/etc/kubernetes/kube-proxy.kubeconfig", "a kubeconfig `file` that may list nodes")
	if err := parse(f, args); err != nil {
		return err
	}
	return join.Run(ctx, o)
}

func runCluster(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	if err := parse(f, args); err != nil {
		return err
	}
	return peers.Run(ctx, peers.Options{Root: "/", NotifySocket: os.Getenv("NOTIFY_SOCKET"), Log: log})
}

func runApprove(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("approve", flag.ContinueOnError)
	o := approve.Options{Root: "/", Log: log}
	f.StringVar(&o.Kubeconfig, "kubeconfig", "/etc/kubernetes/approver.kubeconfig", "the approver's kubeconfig `file`")
	if err := parse(f, args); err != nil {
		return err
	}
	return approve.Run(ctx, o)
}
