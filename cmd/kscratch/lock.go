package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
)

func newLock(e *env) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "lock",
		Short: "Pin the newest inputs in kscratch.lock",
		Long: `Asks every source what is newest, pins the answers in kscratch.lock beside the
cluster file, and says what has changed since the last time.

With --check, asks nobody and writes nothing: it exits with 0 if the lock fits
the cluster file, the files that it names and the PKI, else with 1 and the
reason. Use it where the lock is under version control.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if check {
				return e.checkLock(c)
			}
			return e.lock(c)
		},
	}
	c.Flags().BoolVar(&check, "check", false, "only say whether the lock fits")
	return c
}

func (e *env) lock(c *cobra.Command) error {
	p, err := e.project(c)
	if err != nil {
		return err
	}
	defer p.close()
	path := filepath.Join(p.dir, "kscratch.lock")
	old, readErr := builder.ReadLock(path)
	l, err := p.resolve(c.Context(), path)
	if err != nil || readErr != nil || e.quiet {
		return err // of a lock that is new, or could not be read, all is new
	}
	p.close()
	return writeChanges(c.ErrOrStderr(), builder.Changes(old, l))
}

func writeChanges(w io.Writer, changes []builder.LockChange) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t→ %s\n", c.Kind, c.Name, cmp.Or(c.Old, "none"), cmp.Or(c.New, "none"))
	}
	return t.Flush()
}

// checkLock exits with 1 and a reason if the lock does not fit.
func (e *env) checkLock(c *cobra.Command) error {
	p, err := e.open(c)
	if err != nil {
		return err
	}
	defer p.close()
	if !builder.HasPKI(p.spec, p.dir) {
		return fmt.Errorf("the PKI %s is missing; run `kscratch init`: %w", filepath.Join(p.dir, p.spec.PKI), fs.ErrNotExist)
	}
	lock, err := p.current()
	if err != nil {
		return err
	}
	if lock.stale() {
		return errors.New(lock.complaint())
	}
	return nil
}
