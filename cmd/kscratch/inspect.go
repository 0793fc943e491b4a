package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/layers"
)

// question is what the commands that question images share.
type question struct {
	output string // text or json
	esp    bool
	initrd bool
	config bool
}

// outputFlag adds -o.
func (q *question) outputFlag(c *cobra.Command) {
	c.Flags().StringVarP(&q.output, "output", "o", "text", "`form` of the answer: text or json")
}

// treeFlags add the choice of another tree than the root.
func (q *question) treeFlags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&q.esp, "esp", false, "look into the EFI system partition")
	f.BoolVar(&q.initrd, "initrd", false, "look into the initrd")
	f.BoolVar(&q.config, "first-boot", false, "look into what the first boot writes")
}

// tree returns the tree that the flags choose.
func (q *question) tree(i *inspect.Image) *layers.Tree {
	switch {
	case q.esp:
		return i.ESP
	case q.initrd:
		return i.Initrd
	case q.config:
		return i.Config
	}
	return i.Root
}

// check refuses what makes no sense before an image is opened.
func (q *question) check() error {
	if q.output != "text" && q.output != "json" && q.output != "" {
		return usageError{fmt.Errorf("form %q is not known; known are text and json", q.output)}
	}
	if q.esp && q.initrd || q.esp && q.config || q.initrd && q.config {
		return usageError{errors.New("only one of --esp, --initrd and --first-boot at a time")}
	}
	return nil
}

// ask runs a command on the image that its first argument names.
func (q *question) ask(run func(c *cobra.Command, i *inspect.Image, rest []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, a []string) error {
		if err := q.check(); err != nil {
			return err
		}
		i, err := open(c, a[0])
		if err != nil {
			return err
		}
		defer i.Close()
		return run(c, i, a[1:])
	}
}

// answer prints a value as JSON, or as the text that write makes of it.
func (q *question) answer(c *cobra.Command, v any, write func(io.Writer) error) error {
	if q.output == "text" {
		return write(c.OutOrStdout())
	}
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// open opens an image; what must be unpacked goes to the directory for
// temporary files.
func open(c *cobra.Command, path string) (*inspect.Image, error) {
	return inspect.Open(c.Context(), path, os.TempDir())
}

func newImageInspect() *cobra.Command {
	var (
		q      question
		verify bool
	)
	c := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what is in a disk image",
		Long: `Shows what a disk image is made of: partitions, root hash, unified kernel image,
versions, packages, container images, what the first boot accepts and writes,
the names of the secrets that it holds, and set-user-ID programs.

Reads every format that image convert reads (raw, raw.zst, qcow2, vhd, vmdk,
ova, iso, gce), mounts nothing and needs no privileges. With --verify, a root that does
not match its root hash is exit code 4.`,
		Example: "  kscratch image inspect out/master.raw --verify",
		Args:    args(cobra.ExactArgs(1)),
		RunE: q.ask(func(c *cobra.Command, i *inspect.Image, _ []string) error {
			r, err := i.Report(c.Context(), verify)
			if err != nil {
				return err
			}
			if err := q.answer(c, r, r.Text); err != nil {
				return err
			}
			return r.Damage()
		}),
	}
	q.outputFlag(c)
	c.Flags().BoolVar(&verify, "verify", false, "read all of the root and compare it with its root hash")
	return c
}

func newImageLs() *cobra.Command {
	var (
		q          question
		long, deep bool
	)
	c := &cobra.Command{
		Use:     "ls IMAGE [PATH]",
		Short:   "List files of a disk image",
		Long:    "Lists a directory of the root file system, or of another part of the image.\nWith -l a line has type, mode, owner, size, path, and who brings the file.",
		Example: "  kscratch image ls -l out/master.raw /usr/bin",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: q.ask(func(c *cobra.Command, i *inspect.Image, rest []string) error {
			path := strings.Join(rest, "") // one, or none: the root
			entries, err := i.List(q.tree(i), path, deep)
			if err != nil {
				return err
			}
			return q.answer(c, entries, func(w io.Writer) error { return inspect.ListText(w, entries, long) })
		}),
	}
	q.outputFlag(c)
	q.treeFlags(c)
	c.Flags().BoolVarP(&long, "long", "l", false, "show more than the paths")
	c.Flags().BoolVarP(&deep, "recursive", "R", false, "show directories below, too")
	return c
}

func newImageCat() *cobra.Command {
	var q question
	c := &cobra.Command{
		Use:     "cat IMAGE PATH",
		Short:   "Print a file of a disk image",
		Example: "  kscratch image cat out/master.raw /etc/os-release\n  kscratch image cat --first-boot out/master.raw /etc/docker/daemon.json",
		Args:    args(cobra.ExactArgs(2)),
		RunE: q.ask(func(c *cobra.Command, i *inspect.Image, rest []string) error {
			return inspect.Cat(q.tree(i), rest[0], c.OutOrStdout())
		}),
	}
	q.treeFlags(c)
	return c
}
