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
	var update, check, newest bool
	c := &cobra.Command{
		Use:   "lock [--update [NAME...] | --check]",
		Short: "Pin the newest inputs in kscratch.lock",
		Long: `Asks every source what is newest, pins the answers in kscratch.lock beside the
cluster file, and says what has changed since the last time.

With --update and names, only those are pinned anew, and all else stays: names
of packages, of components (kubernetes, cri-dockerd, flannel, etcd, coredns,
pause) and of images.

With --check, asks nobody and writes nothing: it exits with 0 if the lock is what
the cluster file, the files that it names and the PKI need, else with 1 and a
line for each difference. Use it where the lock is under version control. With
--newest it also asks what is newer than the pins.`,
		Example: "  kscratch lock --update docker.io containerd\n  kscratch lock --check",
		RunE: func(c *cobra.Command, names []string) error {
			switch {
			case len(names) > 0 && !update:
				return usageError{fmt.Errorf("names are for --update: kscratch lock --update %s", names[0])}
			case update && check:
				return usageError{errors.New("--update changes the lock and --check does not; choose one")}
			case newest && !check:
				return usageError{errors.New("--newest is for --check; kscratch lock itself pins the newest")}
			case e.offline && (newest || !check):
				return usageError{errors.New("a lock says what servers have: unset KSCRATCH_OFFLINE; offline, there is only kscratch lock --check")}
			case check:
				return e.checkLock(c, newest)
			case update:
				return e.updateLock(c, names)
			}
			return e.lock(c)
		},
	}
	f := c.Flags()
	f.BoolVar(&update, "update", false, "pin anew only what is named, or everything if nothing is, and print what changed")
	f.BoolVar(&check, "check", false, "only say whether the lock fits")
	f.BoolVar(&newest, "newest", false, "with --check: say what is newer than the pins, too")
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

func (e *env) updateLock(c *cobra.Command, names []string) error {
	p, err := e.project(c)
	if err != nil {
		return err
	}
	defer p.close()
	path := filepath.Join(p.dir, "kscratch.lock")
	old, err := builder.ReadLock(path)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError{errors.New(path + " is missing; run `kscratch lock`")}
	}
	if err != nil {
		return err
	}
	l, err := builder.Update(c.Context(), p.spec, old, names, p.options)
	if err != nil {
		return err
	}
	if err := builder.WriteLock(path, l); err != nil {
		return err
	}
	p.close()
	return writeChanges(c.OutOrStdout(), builder.Changes(old, l))
}

func writeChanges(w io.Writer, changes []builder.LockChange) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t→ %s\n", c.Kind, c.Name, cmp.Or(c.Old, "none"), cmp.Or(c.New, "none"))
	}
	return t.Flush()
}

// checkLock prints in what way the lock does not fit, a line for each. That it
// does not is an answer, not a failure.
func (e *env) checkLock(c *cobra.Command, newest bool) error {
	p, err := e.open(c)
	if err != nil {
		return err
	}
	defer p.close()
	if !builder.HasPKI(p.spec, p.dir) {
		return fmt.Errorf("the PKI %s is missing; run `kscratch init`: %w", filepath.Join(p.dir, p.spec.PKI), fs.ErrNotExist)
	}
	path := filepath.Join(p.dir, "kscratch.lock")
	l, err := builder.ReadLock(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(path + " is missing; run `kscratch lock`")
	}
	if err != nil {
		return err
	}
	wrong, err := builder.CheckLock(c.Context(), p.spec, l, p.options)
	if err != nil {
		return err
	}
	var newer []builder.LockChange
	if newest {
		if newer, err = builder.Newest(c.Context(), p.spec, l, p.options); err != nil {
			return err
		}
	}
	p.close()
	for _, w := range wrong {
		if _, err := fmt.Fprintln(c.OutOrStdout(), w); err != nil {
			return err
		}
	}
	if err := writeChanges(c.OutOrStdout(), newer); err != nil {
		return err
	}
	if len(wrong)+len(newer) > 0 {
		return differError{}
	}
	return nil
}
