package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kscratch/kscratch/ignition/field"
)

// args turns cobra's complaints about arguments into usage errors. To those of
// a command that only has commands it adds the one that was probably meant.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		err := check(c, a)
		if err == nil {
			return nil
		}
		if c.HasSubCommands() && len(a) > 0 {
			var names []string
			for _, s := range c.Commands() {
				names = append(names, s.Name())
			}
			err = hinted(err, a[0], names)
		}
		return usageError{err}
	}
}

// flagError adds the flag that was probably meant to the complaint about one
// that is not known.
func flagError(c *cobra.Command, err error) error {
	if word, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		err = hinted(err, "--"+word, names)
	}
	return usageError{err}
}

// hinted adds the candidate that is nearest to a word, if one is near.
func hinted(err error, word string, candidates []string) error {
	if hint := field.DidYouMean(word, candidates); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}
