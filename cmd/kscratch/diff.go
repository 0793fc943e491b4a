package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/inspect"
)

// differError is the exit code of a comparison that found something. It has
// been told already.
type differError struct{}

func (differError) Error() string { return "there are differences" }

func newImageDiff() *cobra.Command {
	var (
		q   question
		all bool
	)
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two disk images by what they mean",
		Long: `Compares two disk images: versions, the cluster file, packages, the kernel's
configuration and parameters, flags of static pods, units, Kubernetes objects,
container images, secrets by name, sizes and files. Then says whether a node may
go from A to B and back, by the version skew policies of Kubernetes and etcd.

Exit codes: 0 both hold the same; 1 they differ; 3 one cannot be read.`,
		Example: "  kscratch image diff old/master.raw out/master.raw",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			if err := q.check(); err != nil {
				return err
			}
			d, err := compare(c, a[0], a[1])
			if err != nil {
				return err
			}
			most := 20
			if all {
				most = 0
			}
			if err := q.answer(c, d, func(w io.Writer) error { return d.Text(w, most) }); err != nil {
				return err
			}
			if !d.Same {
				return differError{}
			}
			return nil
		},
	}
	q.outputFlag(c)
	c.Flags().BoolVar(&all, "all", false, "show all changes, not the first 20 of each kind; JSON always has all")
	return c
}

func compare(c *cobra.Command, a, b string) (inspect.Diff, error) {
	x, err := open(c, a)
	if err != nil {
		return inspect.Diff{}, err
	}
	defer x.Close()
	y, err := open(c, b)
	if err != nil {
		return inspect.Diff{}, err
	}
	defer y.Close()
	d, err := inspect.Compare(c.Context(), x, y)
	if err != nil {
		return inspect.Diff{}, &builder.InputError{What: "comparing images", Err: err}
	}
	return d, nil
}
