package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/lint"
)

// foundError is the exit code of a check that found errors. They have been told
// already.
type foundError struct{}

func (foundError) Error() string { return "the image would not work" }

// verdict is the answer of image lint as JSON.
type verdict struct {
	Role     builder.Role   `json:"role"`
	Rules    int            `json:"rules"`
	Findings []lint.Finding `json:"findings"`
}

func newImageLint(e *env) *cobra.Command {
	var (
		q    question
		role string
	)
	c := &cobra.Command{
		Use:   "lint [--role ROLE]",
		Short: "Check what an image would contain, without building it",
		Long: `Looks for what would go wrong on a node: static pods whose images are not baked,
units that wait for each other, ranges of addresses that overlap, versions that
do not fit, and more; docs/lint.md lists the rules. image build does the same
before it writes anything: errors stop it, warnings are printed.

Writes neither an image nor kscratch.lock; without a lock whose pins fit, the
newest inputs are judged.

Exit codes: 0 no errors; 2 errors; 3 an input cannot be had.`,
		Example: "  kscratch image lint\n  kscratch image lint --role node -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := q.check(); err != nil {
				return err
			}
			roles := builder.Roles
			if role != "" {
				r, err := parseRole(role)
				if err != nil {
					return err
				}
				roles = []builder.Role{r}
			}
			return e.lint(c, q, roles)
		},
	}
	q.outputFlag(c)
	c.Flags().StringVar(&role, "role", "", "`role` of the node: master or node; empty means all")
	return c
}

func (e *env) lint(c *cobra.Command, q question, roles []builder.Role) error {
	p, err := e.open(c)
	if err != nil {
		return err
	}
	defer p.close()
	if !builder.HasPKI(p.spec, p.dir) {
		return usageError{fmt.Errorf("the cluster has no PKI at %s, which nodes are told of; run `kscratch init`", p.spec.PKI)}
	}
	lock, err := p.judgedLock(c.Context())
	if err != nil {
		return err
	}
	var all []verdict
	bad := 0
	for _, r := range roles {
		found, err := builder.Lint(c.Context(), p.spec, lock, r, p.options)
		if err != nil {
			return err
		}
		bad += len(lint.Errors(found))
		all = append(all, verdict{r, len(lint.Rules), append([]lint.Finding{}, found...)}) // [] rather than null
	}
	p.close()
	if err := q.answer(c, all, func(w io.Writer) error { return verdictText(w, all) }); err != nil {
		return err
	}
	if bad > 0 {
		return foundError{}
	}
	return nil
}

func verdictText(w io.Writer, all []verdict) error {
	for _, v := range all {
		n := len(lint.Errors(v.Findings))
		if _, err := fmt.Fprintf(w, "%s: %s and %s by %d rules\n",
			v.Role, count(n, "error"), count(len(v.Findings)-n, "warning"), v.Rules); err != nil {
			return err
		}
		if err := lint.Text(w, v.Findings); err != nil {
			return err
		}
	}
	return nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
