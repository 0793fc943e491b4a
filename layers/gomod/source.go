package gomod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

// source is what go mod download -json says about a module.
type source struct {
	Dir      string // unpacked, in the module cache
	Sum      string // h1: of the module
	GoModSum string // h1: of its go.mod
	Error    string
}

// fetch downloads the recipe's module and compares its sum with the pinned one.
func (b *build) fetch(ctx context.Context) error {
	b.o.log().Debug("downloading module", "module", b.r.String())
	out, runErr := b.tc.run(ctx, b.work, "mod", "download", "-json", b.r.String())
	var src source
	err := json.Unmarshal(out, &src)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case src.Error != "":
		return fmt.Errorf("downloading the module: %w", b.hint(errors.New(src.Error)))
	case runErr != nil:
		return fmt.Errorf("downloading the module: %w", runErr)
	case err != nil:
		return fmt.Errorf("reading the answer of go mod download: %w", err)
	case src.Dir == "" || src.Sum == "" || src.GoModSum == "":
		return fmt.Errorf("reading the answer of go mod download: it lacks the directory or a sum: %s", out)
	case b.r.Sum != "" && src.Sum != b.r.Sum:
		return fmt.Errorf("downloading the module: it has the sum %s, want %s: the module proxy serves something else", src.Sum, b.r.Sum)
	}
	b.src = src
	return nil
}

// hint adds the remedy to go's complaint that it is too old for a module.
func (b *build) hint(err error) error {
	if !strings.Contains(err.Error(), "GOTOOLCHAIN=local)") {
		return err
	}
	return fmt.Errorf("%s is %s, which is too old: install a newer Go from https://go.dev/dl/ and put it first in PATH: %w", b.tc.path, b.tc.version, err)
}

func readGoMod(dir string) (*modfile.File, error) {
	name := filepath.Join(dir, "go.mod")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the module's go.mod: %w", err)
	}
	f, err := modfile.Parse(name, data, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the module's go.mod: %w", err)
	}
	return f, nil
}

// writeMain writes a main module into dir that requires the recipe's module
// and selects the versions that the module's authors build with. Its go.sum
// begins as the module's own: what the checksum database cannot vouch for any
// more is still pinned there.
func writeMain(dir string, r Recipe, src source) error {
	own, err := readGoMod(src.Dir)
	if err != nil {
		return err
	}
	mod, err := mainModule(r, own)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := writeSource(filepath.Join(dir, sourceDir), r, src); err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(src.Dir, "go.sum"))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("reading the module's go.sum: %w", err)
	}
	if n := len(sum); n > 0 && sum[n-1] != '\n' {
		sum = append(sum, '\n')
	}
	sum = fmt.Appendf(sum, "%s %s %s\n%s %s/go.mod %s\n", r.Module, r.Version, src.Sum, r.Module, r.Version, src.GoModSum)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644)
}

// sourceDir is where a main module has the copy of a module that is built
// without some imports. The module cache itself is read-only, and go refuses
// an overlay on it.
const sourceDir = "source"

// writeSource copies the module to dir without the imports that the recipe
// takes away; it does nothing when there are none.
func writeSource(dir string, r Recipe, src source) error {
	if len(r.Unimport) == 0 {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(src.Dir)); err != nil {
		return fmt.Errorf("copying the module: %w", err)
	}
	for _, p := range r.Packages {
		at := filepath.Join(dir, strings.TrimPrefix(p.Path, r.Module))
		for _, u := range r.Unimport {
			if err := unimport(at, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// unimport takes the blank import of a package out of the package in dir,
// which must have it: else the recipe is for another version.
func unimport(dir, pkg string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	line, found := []byte("_ \""+pkg+"\"\n"), false
	for _, f := range files {
		old, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		text := bytes.Replace(old, line, []byte("\n"), 1)
		if bytes.Equal(text, old) {
			continue
		}
		found = true
		if err := replaceFile(f, text); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("leaving out %s: no file imports it for its side effects: the recipe needs another list for this version", pkg)
	}
	return nil
}

// replaceFile writes a file anew: those of a module are read-only.
func replaceFile(name string, data []byte) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// mainPath cannot be fetched from anywhere: .invalid is reserved by RFC 2606.
const mainPath = "kscratch.invalid/build"

// defaultGo is the language of modules that do not name one
// (https://go.dev/ref/mod#go-mod-file-go).
const defaultGo = "1.16"

// mainModule returns the go.mod of the main module for a recipe whose module
// has the go.mod own.
func mainModule(r Recipe, own *modfile.File) ([]byte, error) {
	f := new(modfile.File)
	if err := f.AddModuleStmt(mainPath); err != nil {
		return nil, err
	}
	goVersion := defaultGo
	if own.Go != nil {
		goVersion = own.Go.Version
	}
	if err := f.AddGoStmt(goVersion); err != nil {
		return nil, err
	}
	f.AddNewRequire(r.Module, r.Version, false)
	for _, q := range own.Require {
		if q.Mod.Path != r.Module {
			f.AddNewRequire(q.Mod.Path, q.Mod.Version, q.Indirect)
		}
	}
	for _, g := range own.Godebug {
		if err := f.AddGodebug(g.Key, g.Value); err != nil {
			return nil, err
		}
	}
	for _, e := range own.Exclude {
		if err := f.AddExclude(e.Mod.Path, e.Mod.Version); err != nil {
			return nil, err
		}
	}
	if err := addReplaces(f, r, own); err != nil {
		return nil, err
	}
	f.Cleanup()
	out, err := f.Format()
	if err != nil {
		return nil, err
	}
	// Names with quotes and line breaks do not survive being written; go would
	// not say where they come from.
	if _, err := modfile.Parse("go.mod", out, nil); err != nil {
		return nil, fmt.Errorf("reading the module's go.mod: a name in it is not a module path: %w", err)
	}
	return out, nil
}

// placeholder is what monorepos require of modules in their own directories.
const placeholder = "v0.0.0"

// addReplaces takes over the module's own replacements. One by a directory
// becomes the pinned version; without a pin it is dropped, as it is for anybody
// else who requires the module, unless then no version would be left.
func addReplaces(f *modfile.File, r Recipe, own *modfile.File) error {
	placed := map[string]bool{}
	for _, q := range own.Require {
		placed[q.Mod.Path] = q.Mod.Version == placeholder
	}
	done := map[string]bool{}
	if len(r.Unimport) > 0 {
		if err := f.AddReplace(r.Module, "", "./"+sourceDir, ""); err != nil {
			return err
		}
	}
	for _, p := range own.Replace {
		newPath, newVersion := p.New.Path, p.New.Version
		if modfile.IsDirectoryPath(newPath) || newVersion == "" {
			v, ok := pinned(r.Pins, p.Old.Path)
			if !ok && placed[p.Old.Path] {
				return fmt.Errorf("%s replaces %s by the directory %s, which the published module does not hold: the recipe needs a pin for it", r, p.Old.Path, p.New.Path)
			}
			if !ok {
				continue
			}
			newPath, newVersion = p.Old.Path, v
		}
		if err := f.AddReplace(p.Old.Path, p.Old.Version, newPath, newVersion); err != nil {
			return err
		}
		done[p.Old.Path] = true
	}
	for _, q := range own.Require {
		if v, ok := pinned(r.Pins, q.Mod.Path); ok && q.Mod.Version == placeholder && !done[q.Mod.Path] {
			if err := f.AddReplace(q.Mod.Path, "", q.Mod.Path, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func pinned(pins []Pin, path string) (string, bool) {
	for _, p := range pins {
		if strings.HasPrefix(path, p.Prefix) {
			return p.Version, true
		}
	}
	return "", false
}
