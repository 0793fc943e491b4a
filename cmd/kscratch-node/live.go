package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/live"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// runAttach shows the partitions of an image that cannot be written to.
func runAttach(_ context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("attach", flag.ContinueOnError)
	image := f.String("image", "", "`file` or device with the image")
	if err := parse(f, args); err != nil {
		return err
	}
	dev, err := live.Attach(*image, false)
	if err == nil {
		log.Info("this node runs from a medium that it cannot write to", "image", *image, "device", dev)
	}
	return err
}

// runRepart becomes systemd-repart for the disk that the state is on.
func runRepart(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("repart", flag.ContinueOnError)
	sysroot := f.String("sysroot", "/sysroot", "`directory` of the system to be")
	program := f.String("program", "/usr/bin/systemd-repart", "`path` of systemd-repart")
	if err := parse(f, args); err != nil {
		return err
	}
	argv := []string{*program, "--dry-run=no", "--definitions=" + live.Definitions}
	is, err := live.Mounted("/", *sysroot)
	if err != nil {
		return err
	}
	if is {
		disk, err := stateDisk(ctx, log)
		if err != nil || disk == "" {
			return err
		}
		argv = []string{*program, "--dry-run=no", "--empty=require", "--definitions=" + live.StateDefinitions, disk}
	}
	return fmt.Errorf("running %s: %w", *program, unix.Exec(*program, argv, os.Environ()))
}

// stateDisk returns the disk to make a state partition on; "" if there is one.
func stateDisk(ctx context.Context, log *slog.Logger) (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	want, _ := firstboot.Lookup(firstboot.ParseCommandLine(string(line)), live.Argument)
	place, err := live.State{Dir: "/", Want: want, Wait: live.Patience(500*time.Millisecond, 20)}.Find(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case place.InRAM:
		log.Warn("there is no blank disk: the state of this node is in memory and is lost when it is switched off")
		return live.InMemory("/run/kscratch/state")
	case place.Disk == "":
		log.Info("the state is on a partition that is there")
	default:
		log.Info("the state goes to a blank disk", "disk", place.Disk)
	}
	return place.Disk, nil
}
