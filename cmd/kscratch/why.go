package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/inspect"
)

func newImageWhy(e *env) *cobra.Command {
	var q question
	c := &cobra.Command{
		Use:   "why IMAGE PATH...",
		Short: "Say who put files into a disk image, and why",
		Long: `Says for paths of the node who brings them: a Debian package, Kubernetes, a
container image, kscratch, or what the first boot writes; which entry of the
lock pins that; and which keys of the cluster file decide about it. Where they
stand is looked up in the cluster file (-f), if it is there.`,
		Example: "  kscratch image why out/master.raw /etc/docker/daemon.json",
		Args:    args(cobra.MinimumNArgs(2)),
		RunE: q.ask(func(c *cobra.Command, i *inspect.Image, rest []string) error {
			places, err := e.places(c, i)
			if err != nil {
				return err
			}
			var reasons []inspect.Reason
			for _, p := range rest {
				rs, err := i.Why(p, places)
				if err != nil {
					return err
				}
				reasons = append(reasons, rs...)
			}
			return q.answer(c, reasons, func(w io.Writer) error { return inspect.WhyText(w, reasons) })
		}),
	}
	q.outputFlag(c)
	return c
}

// places returns where the keys of the cluster file stand; nil if there is no
// such file, or, with a remark, if the image was built from another one.
func (e *env) places(c *cobra.Command, i *inspect.Image) (map[string]string, error) {
	b, err := os.ReadFile(e.file)
	if errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("file") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading cluster file: %w", err)
	}
	spec, err := builder.Parse(e.file, b)
	if err != nil {
		return nil, err
	}
	d, err := spec.Digest()
	if err != nil {
		return nil, err
	}
	if d != i.Build.Spec {
		e.logger().Warn("lines are not shown: the image was built from another cluster file, or from this one before it was changed", "file", e.file)
		return nil, nil
	}
	return builder.Places(e.file, b)
}
