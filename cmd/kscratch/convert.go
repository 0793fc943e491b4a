package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/format"
)

func newImageConvert(e *env) *cobra.Command {
	var name, output string
	c := &cobra.Command{
		Use:   "convert IMAGE --format FORMAT",
		Short: "Write a disk image in another format",
		Long: `Reads a disk image, whose format its content tells (raw, raw.zst, qcow2, vhd,
vmdk, ova, iso or gce), and writes it in another one. A pxe set is written from
any of them and not read: it has no boot partition. The same content gives the
same bytes. The new file appears whole or not at all; one of its name is replaced.

Prints the path of the new file and its SHA-256 digest.`,
		Example: "  kscratch image convert out/master.raw --format vhd",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(c *cobra.Command, a []string) error { return e.convert(c, a[0], name, output) },
	}
	f := c.Flags()
	f.StringVar(&name, "format", "", "`format` of the new file: "+strings.Join(format.Names(), ", "))
	f.StringVarP(&output, "output", "o", "", "new `file`; the default is beside the image, with the ending of the format")
	return c
}

func (e *env) convert(c *cobra.Command, image, name, output string) error {
	if name == "" {
		return usageError{fmt.Errorf("which format? name one with --format: %s", strings.Join(format.Names(), ", "))}
	}
	fs, err := format.Parse(name)
	if err != nil {
		return usageError{err}
	}
	if len(fs) > 1 {
		return usageError{fmt.Errorf("format %q: only one at a time", name)}
	}
	if output == "" {
		output = fs[0].FileName(image)
	}
	if output == image {
		return usageError{errors.New("the new file would replace the image; name another with --output")}
	}
	bars, log := e.progress()
	defer bars.close()
	a, err := builder.Convert(c.Context(), image, output, fs[0], builder.Options{Log: log, Progress: bars})
	if err != nil {
		return err
	}
	bars.close()
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", a.Name, a.Digest)
	return err
}
