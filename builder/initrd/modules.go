package initrd

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// moduleIndex is what depmod(8) says about the modules of a kernel.
type moduleIndex struct {
	dir     string
	files   map[string]string   // by name, relative to dir
	deps    map[string][]string // files that a file needs, all of them
	soft    map[string][]string // names and aliases that a name asks for
	builtin map[string]bool
	aliases []alias
}

type alias struct{ pattern, name string }

// modules adds kernel modules, what they need, and the index files.
func (s *selector) modules(names []string) {
	ix, err := s.readIndex()
	if err != nil {
		s.fail("%v", err)
		return
	}
	seen := map[string]bool{}
	for _, n := range names {
		why := fmt.Sprintf("the selection of modules %q", n)
		if !s.module(ix, n, why, seen) {
			s.fail("kernel module %s is missing from /%s; %s wants it", n, ix.dir, why)
		}
	}
	index, err := s.root.Glob(escape(ix.dir) + "/modules.*")
	if err != nil {
		s.fail("%v", err)
	}
	for _, f := range index {
		s.add(f.Path, "modprobe")
	}
}

// module adds the modules that a name or alias means. It reports whether there
// is one, in the kernel or as a file.
func (s *selector) module(ix *moduleIndex, name, why string, seen map[string]bool) bool {
	names := ix.lookup(name)
	for _, n := range names {
		if seen[n] {
			continue
		}
		seen[n] = true
		file := ix.files[n]
		if file == "" {
			continue // part of the kernel
		}
		s.add(path.Join(ix.dir, file), why)
		for _, d := range ix.deps[file] {
			s.add(path.Join(ix.dir, d), "module "+n)
			s.soft(ix, moduleName(d), seen)
		}
		s.soft(ix, n, seen)
	}
	return len(names) > 0
}

// soft adds what a module asks for softly. modprobe goes on without it.
func (s *selector) soft(ix *moduleIndex, name string, seen map[string]bool) {
	for _, d := range ix.soft[name] {
		s.module(ix, d, "module "+name, seen)
	}
}

// lookup returns the modules that a name or alias means.
func (ix *moduleIndex) lookup(name string) []string {
	n := underscore(name)
	if ix.files[n] != "" || ix.builtin[n] {
		return []string{n}
	}
	var out []string
	for _, a := range ix.aliases {
		if ok, err := path.Match(a.pattern, n); err == nil && ok && !slices.Contains(out, a.name) {
			out = append(out, a.name)
		}
	}
	return out
}

func underscore(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName returns the name of the module in a file such as
// kernel/fs/overlayfs/overlay.ko.xz.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return underscore(name)
}

const modulesDir = "usr/lib/modules"

// readIndex reads the index of the kernel that is meant.
func (s *selector) readIndex() (*moduleIndex, error) {
	version := s.o.Kernel
	if version == "" {
		found, err := s.root.Glob(modulesDir + "/*")
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("/%s has modules for %d kernels: want one, or a version", modulesDir, len(found))
		}
		version = path.Base(found[0].Path)
	}
	ix := &moduleIndex{
		dir: path.Join(modulesDir, version), files: map[string]string{}, deps: map[string][]string{},
		soft: map[string][]string{}, builtin: map[string]bool{},
	}
	for _, x := range []struct {
		name     string
		required bool
		parse    func(string)
	}{
		{"modules.dep", true, ix.parseDep}, {"modules.builtin", false, ix.parseBuiltin},
		{"modules.softdep", false, ix.parseSoftdep}, {"modules.alias", false, ix.parseAlias},
	} {
		p := path.Join(ix.dir, x.name)
		if !x.required && !s.there(p) {
			continue
		}
		b, err := s.root.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("reading index of kernel modules: %w", err)
		}
		x.parse(string(b))
	}
	return ix, nil
}

// parseDep reads lines such as "kernel/a.ko: kernel/b.ko kernel/c.ko".
func (ix *moduleIndex) parseDep(text string) {
	for line := range strings.Lines(text) {
		file, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(file, "#") {
			continue
		}
		ix.files[moduleName(file)] = file
		ix.deps[file] = strings.Fields(deps)
	}
}

func (ix *moduleIndex) parseBuiltin(text string) {
	for line := range strings.Lines(text) {
		ix.builtin[moduleName(strings.TrimSpace(line))] = true
	}
}

// parseSoftdep reads lines such as "softdep a pre: b c post: d".
func (ix *moduleIndex) parseSoftdep(text string) {
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 2 || w[0] != "softdep" {
			continue
		}
		n := underscore(w[1])
		for _, d := range w[2:] {
			if d != "pre:" && d != "post:" {
				ix.soft[n] = append(ix.soft[n], d)
			}
		}
	}
}

// parseAlias reads lines such as "alias fs-ext3 ext4".
func (ix *moduleIndex) parseAlias(text string) {
	for line := range strings.Lines(text) {
		if w := strings.Fields(line); len(w) == 3 && w[0] == "alias" {
			ix.aliases = append(ix.aliases, alias{underscore(w[1]), underscore(w[2])})
		}
	}
}
