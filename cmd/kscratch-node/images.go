package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/images/seed"
)

// bakedImages is where the root holds the images, laid out as docker does.
const bakedImages = "/usr/lib/kscratch/docker"

func runImages(_ context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	if err := parse(f, args); err != nil {
		return err
	}
	b, err := os.ReadFile("/" + firstboot.ConfigPath)
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	cfg, err := firstboot.ParseConfig(b)
	if err != nil {
		return err
	}
	return seed.Install(bakedImages, cfg.DockerDataRoot, log)
}
