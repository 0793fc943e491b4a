package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers/kubernetes"
)

func newTarball(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "tarball",
		Short: "Build Kubernetes' server tarball",
		Args:  args(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var version, output string
	build := &cobra.Command{
		Use:   "build",
		Short: "Build the server tarball from Go modules",
		Long: `Compiles Kubernetes from its published Go modules and writes a tarball in the
layout of a release: programs, image tags and images in kubernetes/server/bin.
The same version and Go toolchain give the same bytes. Needs Go, and about a
quarter of an hour on two cores the first time.`,
		Example: "  kscratch tarball build --version v1.36.3",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := e.store()
			if err != nil {
				return err
			}
			goTool, _ := exec.LookPath("go") // without one, the build says so
			a, err := builder.BuildTarball(c.Context(), version, output, builder.Options{
				Store: store, Go: goTool, Env: os.Environ(), Now: time.Now(), Log: e.logger(), Offline: e.offline,
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", a.Name, a.Digest)
			return err
		},
	}
	f := build.Flags()
	f.StringVar(&version, "version", builder.Default().Kubernetes.Version, "`release` of Kubernetes")
	f.StringVarP(&output, "output", "o", kubernetes.FileName(""), "`file` to write")
	c.AddCommand(build)
	return c
}
