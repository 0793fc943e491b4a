// Package depmod computes the files that kmod needs to find kernel modules:
// modules.dep, modules.alias, modules.symbols, modules.softdep,
// modules.weakdep, modules.devname and the binary indexes modprobe reads.
//
// It does what depmod(8) of kmod 34 does for a directory of modules in their
// usual places. The binary indexes are tries in the format that kmod's
// libkmod-index.c documents; see [Index].
//
// Not supported: /etc/depmod.d (search order, overrides, external directories),
// symbol prefixes, checks against System.map or Module.symvers, gzip-ed
// modules, modules of a dependency cycle (they are an error here; depmod
// leaves them out).
package depmod

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Module is a kernel module file.
type Module struct {
	Path string // relative to the directory of the kernel version: kernel/fs/ext4/ext4.ko.xz
	Open func() (io.ReadCloser, error)
}

// Input is what lies in /lib/modules/<version>.
type Input struct {
	Modules        []Module // in any order
	Order          []byte   // modules.order: which of two modules for an alias wins
	Builtin        []byte   // modules.builtin
	BuiltinModinfo []byte   // modules.builtin.modinfo
}

// IsModule reports whether a file of this name is a module that [Build] reads.
func IsModule(name string) bool {
	_, ok := cutSuffix(name)
	return ok
}

func cutSuffix(name string) (string, bool) {
	for _, s := range []string{".ko", ".ko.xz", ".ko.zst"} {
		if base, ok := strings.CutSuffix(name, s); ok && path.Base(base) != "." {
			return base, true
		}
	}
	return name, false
}

// Name returns the name of the module in a file, as the kernel writes it: the
// base name without suffix, dashes made underscores.
func Name(p string) string {
	base, _ := cutSuffix(path.Base(p))
	return strings.ReplaceAll(base, "-", "_")
}

// mod is a module that has been read.
type mod struct {
	path, name string
	info       []field
	exports    []string
	imports    []string
	idx        int // by modules.order
	deps       []*mod
	users      int
	depth      int // position in the topological order, users first
}

// field is one key=value of a module's .modinfo.
type field struct{ key, value string }

func (m *mod) values(key string) []string {
	var out []string
	for _, f := range m.info {
		if f.key == key {
			out = append(out, f.value)
		}
	}
	return out
}

// Build returns the content of the derived files by name. It reads modules on
// all processors; the result does not depend on their number.
func Build(ctx context.Context, in Input) (map[string][]byte, error) {
	mods, err := readAll(ctx, in.Modules)
	if err != nil {
		return nil, err
	}
	if err := order(mods, in.Order); err != nil {
		return nil, err
	}
	symbols := resolve(mods)
	if err := sortTopologically(mods); err != nil {
		return nil, err
	}
	builtin, err := parseBuiltin(in.Builtin, in.BuiltinModinfo)
	if err != nil {
		return nil, err
	}
	return render(mods, symbols, builtin)
}

func readAll(ctx context.Context, in []Module) ([]*mod, error) {
	mods := make([]*mod, len(in))
	errs := make([]error, len(in))
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				mods[i], errs[i] = read(in[i])
			}
		})
	}
	for i := range in {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return mods, cmp.Or(errs...)
}

// order sorts mods by modules.order, which lists modules without the suffix
// of their compression; what is not listed comes after, by path.
func order(mods []*mod, list []byte) error {
	rank := map[string]int{}
	for line := range strings.Lines(string(list)) {
		p, _ := cutSuffix(strings.TrimSpace(line))
		if _, ok := rank[p]; !ok {
			rank[p] = len(rank)
		}
	}
	key := func(m *mod) int {
		p, _ := cutSuffix(m.path)
		if r, ok := rank[p]; ok {
			return r
		}
		return len(rank)
	}
	slices.SortFunc(mods, func(a, b *mod) int {
		return cmp.Or(key(a)-key(b), strings.Compare(a.path, b.path))
	})
	names := map[string]string{}
	for i, m := range mods {
		m.idx = i
		if p, ok := names[m.name]; ok {
			return fmt.Errorf("modules %s and %s have one name", p, m.path)
		}
		names[m.name] = m.path
	}
	return nil
}

// symbol is an exported symbol and the module that has it.
type symbol struct {
	name  string
	owner *mod
}

// resolve fills in who depends on whom and returns all exported symbols by
// name. A symbol that no module exports is the kernel's own.
func resolve(mods []*mod) []symbol {
	owner := map[string]*mod{}
	for _, m := range mods {
		for _, s := range m.exports {
			owner[s] = m
		}
	}
	for _, m := range mods {
		for _, s := range m.imports {
			o := owner[strings.TrimPrefix(s, ".")]
			if o != nil && o != m && !slices.Contains(m.deps, o) {
				m.deps = append(m.deps, o)
				o.users++
			}
		}
	}
	var all []symbol
	for s, m := range owner {
		all = append(all, symbol{s, m})
	}
	slices.SortFunc(all, func(a, b symbol) int { return strings.Compare(a.name, b.name) })
	return all
}

// sortTopologically numbers modules so that each comes before those it
// depends on; modprobe loads dependencies in the reverse of that order. Among
// the orders possible it takes depmod's, which is depth first from the last
// module.
func sortTopologically(mods []*mod) error {
	var stack []*mod
	users := make([]int, len(mods))
	for i, m := range mods {
		if users[i] = m.users; m.users == 0 {
			stack = append(stack, m)
		}
	}
	n := 0
	for ; len(stack) > 0; n++ {
		m := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		m.depth = n
		for _, d := range m.deps {
			if users[d.idx]--; users[d.idx] == 0 {
				stack = append(stack, d)
			}
		}
	}
	if n == len(mods) {
		return nil
	}
	var loop []string
	for i, m := range mods {
		if users[i] > 0 {
			loop = append(loop, m.name)
		}
	}
	return fmt.Errorf("modules depend on each other in a cycle: %s", strings.Join(loop, " "))
}

// allDeps returns everything that m needs, in topological order.
func (m *mod) allDeps() []*mod {
	seen := map[*mod]bool{}
	var walk func(*mod)
	walk = func(m *mod) {
		for _, d := range m.deps {
			if !seen[d] {
				seen[d] = true
				walk(d)
			}
		}
	}
	walk(m)
	var out []*mod
	for d := range seen {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *mod) int { return a.depth - b.depth })
	return out
}

// depLine is the line of m in modules.dep.
func (m *mod) depLine() string {
	var b strings.Builder
	b.WriteString(m.path + ":")
	for _, d := range m.allDeps() {
		b.WriteString(" " + d.path)
	}
	return b.String()
}

// builtinModule is a module that is part of the kernel.
type builtinModule struct {
	name    string
	listed  bool // in modules.builtin; a part of another module is not
	aliases []string
}

// parseBuiltin reads modules.builtin (a path a line) and
// modules.builtin.modinfo (NUL-terminated "module.key=value").
func parseBuiltin(list, modinfo []byte) ([]builtinModule, error) {
	at := map[string]int{}
	var out []builtinModule
	add := func(name string) int {
		if i, ok := at[name]; ok {
			return i
		}
		at[name] = len(out)
		out = append(out, builtinModule{name: name})
		return at[name]
	}
	for line := range strings.Lines(string(list)) {
		if p := strings.TrimSpace(line); p != "" {
			out[add(Name(p))].listed = true
		}
	}
	for _, e := range bytes.Split(modinfo, []byte{0}) {
		if len(e) == 0 {
			continue
		}
		name, rest, ok := strings.Cut(string(e), ".")
		key, value, ok2 := strings.Cut(rest, "=")
		if !ok || !ok2 {
			return nil, fmt.Errorf("reading modules.builtin.modinfo: %q is not \"module.key=value\"", e)
		}
		if key == "alias" {
			i := add(strings.ReplaceAll(name, "-", "_"))
			out[i].aliases = append(out[i].aliases, value)
		}
	}
	return out, nil
}
