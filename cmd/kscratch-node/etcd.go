package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/etcd"
)

func runEtcd(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("etcd", flag.ContinueOnError)
	if err := parse(f, args); err != nil {
		return err
	}
	return etcd.Run(ctx, etcd.Options{Root: "/", NotifySocket: os.Getenv("NOTIFY_SOCKET"), Log: log})
}
