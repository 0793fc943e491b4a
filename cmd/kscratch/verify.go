package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/verify"
	"github.com/kscratch/kscratch/ignition/pki"
)

func newImageVerify(e *env) *cobra.Command {
	var (
		q       question
		rebuild bool
		keys    string
	)
	c := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Prove that a disk image is whole, and rebuild it to compare",
		Long: `Reads all of a disk image: every block of the root against its root hash, both
partition tables, the files of the EFI system partition and of the initrd
against what the image records, and the file against the manifest beside it.

With --rebuild it builds the image again, from the cluster file and the lock in
the image, and compares every byte. If one differs, it names the first file that
does, who brings that file, and what differs. Certificates, keys and passwords
are those that the image gives to its nodes, or, with --pki, those in a
directory.

Exit codes: 0 all is as it should be; 1 the image is whole, and the rebuild made
another; 3 the image, or an input of the rebuild, cannot be had; 4 the image is
damaged, or not what it says, or the PKI is another one.`,
		Example: "  kscratch image verify out/master.qcow2\n  kscratch image verify --rebuild --pki pki out/master.raw",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			if err := q.check(); err != nil {
				return err
			}
			if keys != "" && !rebuild {
				return usageError{errors.New("--pki is for a rebuild: give --rebuild, too")}
			}
			if f := c.Flags(); !rebuild && (f.Changed("vendor") || f.Changed("offline")) {
				return usageError{errors.New("--vendor and --offline are for a rebuild: give --rebuild, too")}
			}
			r, img, err := verify.Check(c.Context(), a[0], os.TempDir())
			if err != nil {
				return err
			}
			if img != nil {
				defer img.Close()
			}
			if rebuild && r.Err() == nil {
				again, err := e.rebuild(c, img, keys)
				if err != nil {
					return err
				}
				r.Rebuild = &again
			}
			if err := q.answer(c, r, r.Text); err != nil {
				return err
			}
			if err := r.Err(); !errors.Is(err, verify.ErrDiffers) {
				return err
			}
			return differError{}
		},
	}
	q.outputFlag(c)
	f := c.Flags()
	e.supplyFlags(f)
	f.BoolVar(&rebuild, "rebuild", false, "build the image again from what it says of itself, and compare")
	f.StringVar(&keys, "pki", "", "`directory` of the cluster's PKI, for --rebuild; empty: as the image has it")
	return c
}

// rebuild compares an image with what its recipe makes.
func (e *env) rebuild(c *cobra.Command, img *inspect.Image, keys string) (verify.Comparison, error) {
	store, err := e.store()
	if err != nil {
		return verify.Comparison{}, err
	}
	bars, log := e.progress()
	defer bars.close()
	o := builder.Options{
		Dir: filepath.Dir(e.file), Store: store, Env: os.Environ(), Now: time.Now(), Log: log, Progress: bars,
		Vendor: e.vendor, Offline: e.offline,
	}
	o.Go, _ = exec.LookPath("go") // without one, source builds say so
	if keys != "" {
		set, err := pki.Load(keys)
		if err != nil {
			return verify.Comparison{}, &builder.InputError{What: "reading the PKI", Err: err}
		}
		o.PKI = &set
	}
	return verify.Rebuild(c.Context(), img, os.TempDir(), o)
}
