package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
		newImageInspect(), newImageLs(), newImageCat(), newImageWhy(e), newImageDiff(), newImageSBOM(), newImageVerify(e))
	return c
}

// buildFlags are what says which files a build is to write.
type buildFlags struct {
	role, formats, output string
	sbom                  bool
}

func (b *buildFlags) add(f *pflag.FlagSet, output, short string) {
	f.StringVar(&b.role, "role", "", "`role` of the node: master or node")
	f.StringVarP(&b.output, output, short, "out", "`directory` for the image and its manifest")
	f.StringVar(&b.formats, "format", "raw", "`formats` of the disk, separated by commas: "+strings.Join(format.Names(), ", "))
	f.BoolVar(&b.sbom, "sbom", false, "write the image's software bill of materials beside it, ROLE.spdx.json")
}

func (b *buildFlags) parse() (role builder.Role, formats []format.Format, err error) {
	if role, err = parseRole(b.role); err != nil {
		return "", nil, err
	}
	if formats, err = format.Parse(b.formats); err != nil {
		return "", nil, usageError{err}
	}
	return role, formats, nil
}

func newImageBuild(e *env) *cobra.Command {
	var (
		b                    buildFlags
		locked, dry, explain bool
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
			if dry {
				return e.plan(c, b, false, "text")
			}
			return e.build(c, b, locked, explain)
		},
	}
	f := c.Flags()
	b.add(f, "output", "o")
	f.BoolVar(&dry, "dry-run", false, "say what would be done, as kscratch image plan does, and do nothing")
	f.BoolVar(&explain, "explain-cache", false, "say on standard error which inputs have changed since the last build of this role here, by layer")
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

func (e *env) build(c *cobra.Command, b buildFlags, locked, explain bool) error {
	role, formats, err := b.parse()
	if err != nil {
		return err
	}
	p, err := e.project(c)
	if err != nil {
		return err
	}
	defer p.close()
	p.options.Formats, p.options.SBOM, p.options.Version = formats, b.sbom, version()
	lock, err := p.lock(c.Context(), locked)
	if err != nil {
		return err
	}
	if explain {
		why, err := builder.Explain(p.spec, lock, role, p.options)
		if err != nil {
			return err
		}
		if err := why.Text(os.Stderr); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.output, 0o755); err != nil {
		return &builder.OutputError{Path: b.output, Err: err}
	}
	artifacts, err := builder.Make(c.Context(), p.spec, lock, role, b.output, p.options)
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
		fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", filepath.Join(b.output, a.Name), a.Digest)
	}
	return nil
}
