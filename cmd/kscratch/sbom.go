package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder/sbom"
)

func newImageSBOM() *cobra.Command {
	var form string
	c := &cobra.Command{
		Use:   "sbom IMAGE",
		Short: "Print the software bill of materials of a disk image",
		Long: `Prints what software is in an image: Debian packages, programs, container
images, and the Go modules inside of every Go program. The same image gives the
same bytes.`,
		Example: "  kscratch image sbom out/master.raw --format cyclonedx",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			render := map[string]func(sbom.Bill) ([]byte, error){"spdx": sbom.SPDX, "cyclonedx": sbom.CycloneDX}[form]
			if render == nil {
				return usageError{fmt.Errorf("format %q is not known; known are spdx and cyclonedx", form)}
			}
			i, err := open(c, a[0])
			if err != nil {
				return err
			}
			defer i.Close()
			b, err := i.Bill(c.Context(), version())
			if err != nil {
				return err
			}
			out, err := render(b)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(out)
			return err
		},
	}
	c.Flags().StringVar(&form, "format", "spdx", "`format`: spdx (SPDX 2.3) or cyclonedx (CycloneDX 1.6), both in JSON")
	return c
}
