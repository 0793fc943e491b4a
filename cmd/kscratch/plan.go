package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
)

func newImagePlan(e *env) *cobra.Command {
	var (
		b   buildFlags
		all bool
		as  string
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
			return e.plan(c, b, all, as)
		},
	}
	f := c.Flags()
	b.add(f, "directory", "")
	f.BoolVar(&all, "all", false, "name the inputs that the content store has, too")
	f.StringVarP(&as, "output", "o", "text", "text or json")
	return c
}

func (e *env) plan(c *cobra.Command, b buildFlags, all bool, as string) error {
	role, formats, err := b.parse()
	if err != nil {
		return err
	}
	if as != "text" && as != "json" {
		return usageError{hinted(fmt.Errorf("output %q is not known; known are text, json", as), as, []string{"text", "json"})}
	}
	p, err := e.open(c)
	if err != nil {
		return err
	}
	defer p.close()
	p.options.Formats, p.options.SBOM, p.options.Version = formats, b.sbom, version()
	var lock current
	if builder.HasPKI(p.spec, p.dir) { // without, no lock fits
		if lock, err = p.current(); err != nil {
			return err
		}
	}
	plan, err := builder.PlanBuild(p.spec, lock.lock, lock.plan(), role, b.output, p.options)
	if err != nil {
		return err
	}
	if as == "json" {
		return plan.JSON(c.OutOrStdout())
	}
	return plan.Text(c.OutOrStdout(), all)
}
