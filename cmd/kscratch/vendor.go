package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kscratch/kscratch/builder"
)

func newVendor(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "vendor DIR",
		Short: "Fetch every input of the lock into a directory",
		Long: `Fetches every input that kscratch.lock pins, for the images of all roles, into a
directory: packages, the server tarball and programs (built ones as they are),
container images. Digests are verified, what is there already is kept, and the
file SHA256SUMS, in the form of sha256sum, is written when all of it is there.

kscratch image build --vendor DIR --offline then needs no network.`,
		Example: "  kscratch vendor inputs",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			p, err := e.project(c)
			if err != nil {
				return err
			}
			defer p.close()
			l, err := p.lock(c.Context(), false)
			if err != nil {
				return err
			}
			v, err := builder.Vendor(c.Context(), p.spec, l, a[0], p.options)
			if err != nil {
				return err
			}
			p.close()
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  %d inputs, %.1f MiB; %d written, %d removed\n", a[0], v.Files, float64(v.Bytes)/(1<<20), v.Written, v.Removed)
			return err
		},
	}
}

// supplyFlags adds the flags that say where a build may take its inputs from.
func (e *env) supplyFlags(f *pflag.FlagSet) {
	f.StringVar(&e.vendor, "vendor", e.vendor, "take inputs from a `directory` by kscratch vendor ($KSCRATCH_VENDOR)")
	f.BoolVar(&e.offline, "offline", e.offline, "ask no server: what is missing is an error ($KSCRATCH_OFFLINE)")
	// The same help, whoever asks for it.
	f.Lookup("vendor").DefValue, f.Lookup("offline").DefValue = "", "false"
}

// isSet reports whether a variable of the environment says yes. What is neither
// yes nor no is taken for a yes, which lets less happen.
func isSet(name string) bool {
	v := os.Getenv(name)
	yes, err := strconv.ParseBool(v)
	return v != "" && (yes || err != nil)
}
