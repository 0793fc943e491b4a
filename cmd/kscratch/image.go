package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/format"
)

func newImage(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Build, run and look into node images",
		Args:  args(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newImageBuild(e), newImagePlan(e), newImageLint(e), newImageConvert(e), newImageRun(e),
		newImageInspect(), newImageLs(), newImageCat(), newImageWhy(e), newImageDiff(), newImageSBOM())
	return c
}

func newImageBuild(e *env) *cobra.Command {
	var (
		role, output, formats string
		locked, bill, dry     bool
	)
	c := &cobra.Command{
		Use:   "build --role ROLE",
		Short: "Build a bootable disk image",
		Long: `Builds the image of a role from cluster.yaml. Everything that goes into it is
pinned in kscratch.lock beside the cluster file; the lock is made if it is
missing. A change of settings keeps what it pins; a change of what is pinned
(packages, versions, images, sources) makes it anew.

Of an image that is there only what has changed is made again: nothing, or what
the cluster file decides, or all of it. The bytes are the same.

Prints a line for each file written: its path and its SHA-256 digest.`,
		Example: "  kscratch image build --role master --output out --format qcow2,vhd",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := parseRole(role)
			if err != nil {
				return err
			}
			fs, err := format.Parse(formats)
			if err != nil {
				return usageError{err}
			}
			if dry {
				return e.plan(c, r, output, fs, bill, false, "text")
			}
			return e.build(c, r, output, fs, locked, bill)
		},
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "`role` of the node: master or node")
	f.StringVarP(&output, "output", "o", "out", "`directory` for the image and its manifest")
	f.StringVar(&formats, "format", "raw", "`formats` of the disk, separated by commas: "+strings.Join(format.Names(), ", "))
	f.BoolVar(&bill, "sbom", false, "write the image's software bill of materials beside it, ROLE.spdx.json")
	f.BoolVar(&dry, "dry-run", false, "say what would be done, as kscratch image plan does, and do nothing")
	e.supplyFlags(f)
	f.BoolVar(&locked, "locked", false, "fail if kscratch.lock is missing or out of date, rather than make it anew")
	return c
}

func parseRole(name string) (builder.Role, error) {
	var names []string
	for _, r := range builder.Roles {
		if string(r) == name {
			return r, nil
		}
		names = append(names, string(r))
	}
	if name == "" {
		return "", usageError{fmt.Errorf("which role? name one with --role: %v", builder.Roles)}
	}
	return "", usageError{hinted(fmt.Errorf("role %q is not known; known are %v", name, builder.Roles), name, names)}
}

func (e *env) build(c *cobra.Command, role builder.Role, output string, formats []format.Format, locked, bill bool) error {
	p, err := e.project(c)
	if err != nil {
		return err
	}
	defer p.close()
	p.options.Formats, p.options.SBOM, p.options.Version = formats, bill, version()
	lock, err := p.lock(c.Context(), locked)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return &builder.OutputError{Path: output, Err: err}
	}
	artifacts, err := builder.Make(c.Context(), p.spec, lock, role, output, p.options)
	if err != nil {
		return err
	}
	p.close()
	if !e.quiet {
		if err := p.summary.table(os.Stderr); err != nil {
			return err
		}
	}
	for _, a := range artifacts {
		fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", filepath.Join(output, a.Name), a.Digest)
	}
	return nil
}
