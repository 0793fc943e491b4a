package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/kscratch/kscratch/builder"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages",
		Long:    "Writes a manual page for each command into a directory, which is made if it is\nmissing. The same kscratch writes the same pages.",
		Example: "  kscratch man /usr/local/share/man/man1",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			if err := os.MkdirAll(a[0], 0o755); err != nil {
				return &builder.OutputError{Path: a[0], Err: err}
			}
			root := plain(newRoot())
			// The date of a page is that of its software, and the version says which.
			header := &doc.GenManHeader{Section: "1", Source: "kscratch " + version(), Manual: "kscratch", Date: &time.Time{}}
			if err := doc.GenManTree(root, header, a[0]); err != nil {
				return &builder.OutputError{Path: a[0], Err: err}
			}
			return nil
		},
	}
}

// plain takes out of a command line what differs from machine to machine.
func plain(root *cobra.Command) *cobra.Command {
	root.DisableAutoGenTag = true
	root.InitDefaultCompletionCmd("kscratch")
	f := root.PersistentFlags().Lookup("cache")
	f.DefValue = "~/.cache/kscratch"
	return root
}

// writeReference writes the help of all commands as one Markdown page.
func writeReference(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString(`# Command line

What ` + "`kscratch COMMAND --help`" + ` says of each command. This page is written by
` + "`go test ./cmd/kscratch -run TestReference -update`" + `, ` + "`kscratch man DIR`" + ` writes the
same as manual pages, and ` + "`kscratch completion bash`" + ` (or zsh, fish, powershell)
what completes it in a shell.
`)
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.IsAvailableCommand() && c != root || c.Name() == "completion" || c.Name() == "help" {
			return
		}
		c.InitDefaultHelpFlag()
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s", c.CommandPath(), escapeMarkdown(cmp.Or(c.Long, c.Short)), c.UsageString())
		b.WriteString("```\n")
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(root)
	_, err := io.WriteString(w, b.String())
	return err
}

// escapeMarkdown keeps what looks like an element or emphasis as it is written.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*", "_", "\\_").Replace(s)
}
