package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/podcidr"
)

func runPodCIDR(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("pod-cidr", flag.ContinueOnError)
	if err := parse(f, args); err != nil {
		return err
	}
	_, err := podcidr.Run(ctx, podcidr.Options{
		Root: "/", Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), NotifySocket: os.Getenv("NOTIFY_SOCKET"),
		SetHostname: unix.Sethostname, Log: log,
	})
	return err
}
