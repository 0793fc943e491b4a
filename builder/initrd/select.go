package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// SelectOptions say how far a selection goes. The zero value works.
type SelectOptions struct {
	Suggested bool   // also take libraries that programs suggest for dlopen
	Kernel    string // version of the kernel whose modules are meant; "" if the tree has only one
}

// Select returns the part of root that holds the wanted paths and kernel
// modules, and all that they need.
//
// A want is a path, or a pattern as path.Match has it, from the root; a leading
// slash does not matter. A directory means all below it; a link to a directory
// means the link and the directory itself. A want that is not there is an
// error. What is chosen brings with it
//   - the targets of symbolic links, and every link on the way;
//   - the shared libraries that ELF files need (DT_NEEDED), searched for as
//     ld.so(8) does: DT_RPATH or DT_RUNPATH with $ORIGIN, ld.so.conf, the
//     system's directories, and for a library what else is chosen under that
//     name; and their interpreter;
//   - the libraries that ELF files open with dlopen and say so
//     (https://uapi-group.org/specifications/specs/elf_dlopen_metadata/): those
//     they require, and those they recommend or, by option, suggest, if the
//     tree has them;
//   - the interpreters of scripts.
//
// A module is given by its name or an alias, and brings the modules it depends
// on (modules.dep) and those it asks for softly (modules.softdep) if they are
// there; the index files of modules come along. A module that is part of the
// kernel needs nothing.
//
// It does not know what scripts call, what programs dlopen without saying so
// (such as NSS modules), what units start, glibc-hwcaps, and firmware: those
// must be wanted. A link that dangles is an error unless it leads to where files
// are only at run time: dev, proc, run, sys, tmp.
func Select(root *layers.Tree, want []string, modules []string, o SelectOptions) (*layers.Tree, error) {
	s := &selector{root: root, o: o, keep: map[string]bool{".": true}, problems: map[string]bool{}}
	for _, w := range want {
		s.want(w)
	}
	if len(modules) > 0 {
		s.modules(modules)
	}
	for len(s.queue) > 0 { // grows at most once per file of the tree
		next := s.queue[0]
		s.queue = s.queue[1:]
		s.scan(next)
	}
	s.settle()
	if len(s.problems) > 0 {
		return nil, s.err()
	}
	return root.Filter(func(f layers.File) bool { return s.keep[f.Path] }), nil
}

type selector struct {
	root     *layers.Tree
	o        SelectOptions
	keep     map[string]bool
	queue    []layers.File // regular files to be looked into
	confDirs []string      // of ld.so.conf
	confRead bool
	unmet    []unmet
	problems map[string]bool
}

// fail notes a problem; all are reported at once.
func (s *selector) fail(format string, args ...any) {
	s.problems[fmt.Sprintf(format, args...)] = true
}

func (s *selector) err() error {
	var errs []error
	for p := range s.problems {
		errs = append(errs, errors.New(p))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return fmt.Errorf("selecting files: %w", errors.Join(errs...))
}

// by names a file as the one who wants something.
func by(f layers.File) string { return fmt.Sprintf("/%s of %s", f.Path, f.Owner) }

func (s *selector) want(w string) {
	why := fmt.Sprintf("the selection %q", w)
	p := strings.TrimPrefix(path.Clean("/"+w), "/")
	fixed, pattern := splitPattern(p)
	dir, ok := s.add(fixed, why)
	if !ok {
		return
	}
	if pattern == "" {
		if f, ok := s.root.Lookup(fixed); ok {
			s.below(f, why)
		}
		return
	}
	found, err := s.root.Glob(path.Join(escape(dir), pattern))
	if err != nil {
		s.fail("%s: %v", why, err)
		return
	}
	if len(found) == 0 {
		s.fail("nothing matches %s", why)
	}
	for _, f := range found {
		s.add(f.Path, why)
		s.below(f, why)
	}
}

// splitPattern splits a path before its first element that is a pattern.
func splitPattern(p string) (fixed, pattern string) {
	elems := strings.Split(p, "/")
	i := slices.IndexFunc(elems, func(e string) bool { return strings.ContainsAny(e, `*?[\`) })
	if i < 0 {
		i = len(elems)
	}
	return path.Join(append([]string{"."}, elems[:i]...)...), strings.Join(elems[i:], "/")
}

func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

// below adds what is in a directory; of other entries, nothing.
func (s *selector) below(dir layers.File, why string) {
	if !dir.Mode.IsDir() {
		return
	}
	for f := range s.root.Under(dir.Path) {
		s.add(f.Path, why)
	}
}

// maxLinks bounds the links on the way to a file, as ELOOP does in Linux.
const maxLinks = 40

// add keeps the entry at p, the directories and links on the way, and where a
// last link leads. It returns the place where the way ends.
func (s *selector) add(p, why string) (string, bool) {
	p = strings.TrimPrefix(p, "/")
	cur, links := ".", 0
	rest := split(p)
	for len(rest) > 0 {
		elem := rest[0]
		rest = rest[1:]
		if elem == ".." {
			cur = path.Dir(cur)
			continue
		}
		at := path.Join(cur, elem)
		f, ok := s.root.Lookup(at)
		if !ok {
			if links == 0 || !atRunTime(at) {
				s.missing(p, at, why)
			}
			return "", false
		}
		s.keepFile(f)
		if f.Mode.Type() != fs.ModeSymlink {
			cur = at
			continue
		}
		if links++; links > maxLinks {
			s.fail("/%s: too many symbolic links; %s wants it", p, why)
			return "", false
		}
		if path.IsAbs(f.Link) {
			cur = "."
		}
		rest = append(split(f.Link), rest...)
	}
	return cur, true
}

func (s *selector) missing(p, at, why string) {
	if p == at {
		s.fail("/%s is missing; %s wants it", p, why)
		return
	}
	s.fail("/%s is missing, where /%s leads; %s wants it", at, p, why)
}

func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(e string) bool { return e == "" || e == "." })
}

// atRunTime reports whether a path is in a file system that is filled at run
// time.
func atRunTime(p string) bool {
	top, _, _ := strings.Cut(p, "/")
	return slices.Contains([]string{"dev", "proc", "run", "sys", "tmp"}, top)
}

func (s *selector) keepFile(f layers.File) {
	if s.keep[f.Path] {
		return
	}
	s.keep[f.Path] = true
	if f.Mode.IsRegular() && f.Size > 0 {
		s.queue = append(s.queue, f)
	}
}

// scan looks into a file for what it needs.
func (s *selector) scan(f layers.File) {
	if err := s.look(f); err != nil {
		s.fail("reading %s: %v", by(f), err)
	}
}

func (s *selector) look(f layers.File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		s.script(f, head)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		at, ok := r.(io.ReaderAt)
		if !ok {
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			at = bytes.NewReader(append(head, b...))
		}
		return s.elf(f, at)
	}
	return nil
}

// script adds the interpreter of a script; with env(1), what env looks for.
func (s *selector) script(f layers.File, head []byte) {
	line, _, _ := strings.Cut(string(head[2:]), "\n")
	words := strings.Fields(line)
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return
	}
	s.add(words[0], by(f))
	if path.Base(words[0]) != "env" {
		return
	}
	i := slices.IndexFunc(words[1:], func(w string) bool { return !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") })
	if i < 0 {
		return
	}
	name := words[1+i]
	for _, dir := range []string{"usr/local/bin", "usr/bin", "usr/sbin", "bin", "sbin"} {
		if p := path.Join(dir, name); s.there(p) {
			s.add(p, by(f))
			return
		}
	}
	s.fail("%s is missing from the directories of programs; %s wants it", name, by(f))
}

func (s *selector) there(p string) bool {
	_, err := s.root.Resolve(p)
	return err == nil
}
