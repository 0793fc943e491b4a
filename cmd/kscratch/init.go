package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
)

// schemaFile is where init puts the schema, and editorLine tells editors.
const (
	schemaFile = "cluster.schema.json"
	editorLine = "# yaml-language-server: $schema=" + schemaFile + "\n"
)

func newInit(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Write a commented cluster.yaml and make the cluster's PKI",
		Long: `Writes cluster.yaml, the default with comments, with its JSON schema for editors
beside it, and makes the certificates and keys of the cluster in the directory
that the file names (pki). What is there already is kept as it is.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return e.init(c) },
	}
}

func (e *env) init(c *cobra.Command) error {
	schema, err := builder.Schema()
	if err != nil {
		return err
	}
	dir := filepath.Dir(e.file)
	for _, f := range []struct {
		path string
		body []byte
	}{
		{e.file, append([]byte(editorLine), builder.DefaultYAML...)},
		{filepath.Join(dir, schemaFile), schema},
	} {
		wrote, err := createFile(f.path, f.body)
		if err != nil {
			return err
		}
		if wrote {
			fmt.Fprintln(c.OutOrStdout(), f.path)
		}
	}
	spec, err := builder.Load(e.file, false)
	if err != nil {
		return err
	}
	pki, err := builder.EnsurePKI(spec, dir, time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.OutOrStdout(), pki)
	return nil
}

// createFile writes a file that must not be there yet; it reports whether it
// did. A file that is there is kept.
func createFile(path string, b []byte) (bool, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, errors.Join(err, os.Remove(path))
	}
	return true, nil
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of cluster.yaml",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := builder.Schema()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
}

// version is the module version that this program was built from, if it was
// built as a released module.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
