package derive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/derive/depmod"
)

var stepModules = Step{
	Name: "modules",
	Doc:  "modules.dep, modules.alias and kmod's other indexes of each kernel in the tree (depmod)",
	Run:  modules,
}

const modulesDir = "usr/lib/modules"

// depmodVersion is part of the cache key; it changes with the output of
// package depmod.
const depmodVersion = "1"

func modules(ctx context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, dir := range children(in, modulesDir) {
		built, err := in.depmod(ctx, dir)
		if err != nil {
			return Result{}, fmt.Errorf("kernel %s: %w", path.Base(dir), err)
		}
		for _, name := range slices.Sorted(maps.Keys(built)) {
			files = append(files, file(path.Join(dir, name), 0o644, string(built[name])))
		}
	}
	return Result{Files: files}, nil
}

// depmod returns the derived files of one kernel, out of the cache if it has
// them. The key covers the content of all that is read.
func (in Input) depmod(ctx context.Context, dir string) (map[string][]byte, error) {
	input, err := in.depmodInput(dir)
	if err != nil || len(input.Modules) == 0 {
		return nil, err
	}
	if in.Cache == nil {
		return depmod.Build(ctx, input)
	}
	key, err := depmodKey(input)
	if err != nil {
		return nil, err
	}
	return cache.Value(ctx, in.Cache, "depmod", key, func(ctx context.Context) (map[string][]byte, error) {
		return depmod.Build(ctx, input)
	})
}

func (in Input) depmodInput(dir string) (depmod.Input, error) {
	var input depmod.Input
	for f := range in.Tree.Under(dir) {
		rel := strings.TrimPrefix(f.Path, dir+"/")
		if f.Mode.IsRegular() && depmod.IsModule(rel) {
			input.Modules = append(input.Modules, depmod.Module{Path: rel, Open: f.Open})
		}
	}
	for _, x := range []struct {
		name string
		to   *[]byte
	}{
		{"modules.order", &input.Order}, {"modules.builtin", &input.Builtin}, {"modules.builtin.modinfo", &input.BuiltinModinfo},
	} {
		p := path.Join(dir, x.name)
		if !in.has(p) {
			continue
		}
		b, err := in.Tree.ReadFile(p)
		if err != nil {
			return input, err
		}
		*x.to = b
	}
	return input, nil
}

func depmodKey(in depmod.Input) (string, error) {
	parts := []string{depmodVersion, string(in.Order), string(in.Builtin), string(in.BuiltinModinfo)}
	for _, m := range in.Modules {
		sum, err := hashOf(m.Open)
		if err != nil {
			return "", fmt.Errorf("reading module %s: %w", m.Path, err)
		}
		parts = append(parts, m.Path, sum)
	}
	return string(layers.DigestOfParts(parts...)), nil
}

func hashOf(open func() (io.ReadCloser, error)) (string, error) {
	r, err := open()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, r.Close())
}

// Modules returns t with kmod's indexes made anew for just the modules that t
// has. An initrd holds some of a root's modules; with the root's indexes kmod
// would look for the others and complain.
func Modules(ctx context.Context, t *layers.Tree, o Options) (*layers.Tree, error) {
	t, _, err := run(ctx, t, o, []Step{stepModules})
	return t, err
}
