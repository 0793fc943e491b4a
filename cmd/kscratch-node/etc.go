package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"log/slog"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/etcoverlay"
)

func runEtc(_ context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("etc", flag.ContinueOnError)
	o := etcoverlay.Options{Root: "/", Random: rand.Reader, Log: log}
	f.StringVar(&o.Sysroot, "sysroot", "/sysroot", "`directory` of the system to be")
	f.StringVar(&o.Image, "image", "", "image `id`; empty: as in /"+etcoverlay.ImageIDPath)
	done := f.Bool("done", false, "record that Ignition has completed for this image")
	prune := f.Bool("prune", false, "in the real root: remove what old images have stored")
	if err := parse(f, args); err != nil {
		return err
	}
	switch {
	case *done && *prune:
		return usageError{errors.New("etc: --done and --prune do not go together")}
	case *done:
		return etcoverlay.Done(o)
	case *prune:
		o.Sysroot = o.Root
		_, err := etcoverlay.Prune(o)
		return err
	}
	return etcoverlay.Start(o)
}
