package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/format"
)

func newImagePlan(e *env) *cobra.Command {
	var (
		role, output, formats, as string
		bill, all                 bool
	)
	c := &cobra.Command{
		Use:   "plan --role ROLE",
		Short: "Say what a build would do",
		Long: `Says what kscratch image build would do with the same flags: what becomes of
the lock, how much of the image is made, which inputs the content store lacks
and how large they are. No server is asked and no file is written.`,
		Example: "  kscratch image plan --role master",
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
			return e.plan(c, r, output, fs, bill, all, as)
		},
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "`role` of the node: master or node")
	f.StringVar(&output, "directory", "out", "`directory` for the image and its manifest")
	f.StringVar(&formats, "format", "raw", "`formats` of the disk, separated by commas: "+strings.Join(format.Names(), ", "))
	f.BoolVar(&bill, "sbom", false, "with the software bill of materials")
	f.BoolVar(&all, "all", false, "name the inputs that the content store has, too")
	f.StringVarP(&as, "output", "o", "text", "text or json")
	return c
}

func (e *env) plan(c *cobra.Command, role builder.Role, dir string, formats []format.Format, bill, all bool, as string) error {
	if as != "text" && as != "json" {
		return usageError{hinted(fmt.Errorf("output %q is not known; known are text, json", as), as, []string{"text", "json"})}
	}
	p, err := e.open(c)
	if err != nil {
		return err
	}
	defer p.close()
	p.options.Formats, p.options.SBOM, p.options.Version = formats, bill, version()
	var lock current
	if builder.HasPKI(p.spec, p.dir) { // without, no lock fits
		if lock, err = p.current(); err != nil {
			return err
		}
	}
	plan, err := builder.PlanBuild(p.spec, lock.lock, lock.plan(), role, dir, p.options)
	if err != nil {
		return err
	}
	if as == "json" {
		return plan.JSON(c.OutOrStdout())
	}
	return plan.Text(c.OutOrStdout(), all)
}
