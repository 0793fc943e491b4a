package main

import (
	"context"
	"flag"
	"log/slog"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/platform"
)

func runPlatform(_ context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("platform", flag.ContinueOnError)
	if err := parse(f, args); err != nil {
		return err
	}
	p, err := platform.Write("/")
	if err != nil {
		return err
	}
	log.Info("Ignition's platform", "id", p.ID, "vendor", p.Vendor, "because", p.Why)
	return nil
}
