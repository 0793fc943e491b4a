// Package layers says which files an operating system image consists of and
// whose they are.
//
// A [File] is one entry of a file system, with an owner (a package, a tarball,
// a line of the spec) and an opener for its content. A [Layer] is a named,
// digest-addressed sequence of files. [Merge] combines layers into one [Tree];
// two layers that both provide a path are a [Conflict] that names both owners.
// Values are immutable: nothing here changes after it was made.
//
// The package imports nothing of ours; packages below it produce layers.
package layers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Digest names content by its hash, in the form "sha256:<64 hex digits>", as
// the OCI image specification writes it.
type Digest string

// DigestOf returns the SHA-256 digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// DigestOfParts returns the digest of a list of strings, in which the bounds
// between the strings count: {"ab"} and {"a","b"} differ.
func DigestOfParts(parts ...string) Digest {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
	return Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// Hex returns the hexadecimal digits of d, without the algorithm.
func (d Digest) Hex() string {
	_, h, _ := strings.Cut(string(d), ":")
	return h
}

// Check reports whether d is a well-formed SHA-256 digest.
func (d Digest) Check() error {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	if _, err := hex.DecodeString(h); !ok || err != nil || len(h) != 64 || strings.ToLower(h) != h {
		return fmt.Errorf("digest %q: want sha256: and 64 lower-case hex digits", string(d))
	}
	return nil
}

// File is one entry of a file system.
type File struct {
	Path    string            // relative to the root, as fs.ValidPath wants it; "." is the root
	Mode    fs.FileMode       // type and permission bits, with ModeSetuid, ModeSetgid, ModeSticky
	UID     uint32            // numeric owner
	GID     uint32            // numeric group
	ModTime time.Time         // whole seconds, UTC
	Size    int64             // bytes; zero unless regular
	Link    string            // target of a symbolic link
	Rdev    uint64            // device number of a device node, Linux encoding (unix.Mkdev)
	Xattrs  map[string]string // extended attributes by full name, such as security.capability
	Owner   string            // who brings the file: "deb:systemd=257.8-1", "spec:files[2]", …

	// Open gives the content of a regular file. It may be called any number
	// of times, also at once; nil for everything but regular files.
	Open func() (io.ReadCloser, error)
}

// Regular returns a regular file with content b.
func Regular(path string, perm fs.FileMode, owner string, b []byte) File {
	return File{
		Path: path, Mode: perm, Owner: owner, Size: int64(len(b)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
}

// Symlink returns a symbolic link from path to target.
func Symlink(path, target, owner string) File {
	return File{Path: path, Mode: fs.ModeSymlink | 0o777, Link: target, Owner: owner}
}

// Dir returns a directory.
func Dir(path string, perm fs.FileMode, owner string) File {
	return File{Path: path, Mode: fs.ModeDir | perm, Owner: owner}
}

// Check reports the first law of a file that f breaks: a valid relative path,
// an owner, content exactly when it is regular, a target exactly when it is a
// symbolic link.
func (f File) Check() error {
	switch {
	case !fs.ValidPath(f.Path):
		return fmt.Errorf("file %q of %s: not a clean relative path", f.Path, f.Owner)
	case f.Owner == "":
		return fmt.Errorf("file %q: has no owner", f.Path)
	case f.Mode.IsRegular() != (f.Open != nil):
		return fmt.Errorf("file %q of %s: content and type %v do not fit", f.Path, f.Owner, f.Mode.Type())
	case (f.Mode.Type() == fs.ModeSymlink) != (f.Link != ""):
		return fmt.Errorf("file %q of %s: target %q and type %v do not fit", f.Path, f.Owner, f.Link, f.Mode.Type())
	case f.Size < 0 || (f.Size > 0 && !f.Mode.IsRegular()):
		return fmt.Errorf("file %q of %s: size %d for type %v", f.Path, f.Owner, f.Size, f.Mode.Type())
	case strings.ContainsRune(f.Path, 0) || strings.ContainsRune(f.Link, 0):
		return fmt.Errorf("file %q of %s: NUL in its name or target", f.Path, f.Owner)
	}
	return nil
}

// Read returns the content of a regular file.
func (f File) Read() ([]byte, error) {
	if f.Open == nil {
		return nil, fmt.Errorf("reading %q of %s: not a regular file", f.Path, f.Owner)
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("reading %q of %s: %w", f.Path, f.Owner, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading %q of %s: %w", f.Path, f.Owner, err)
	}
	return b, nil
}

// Layer is a source of files. Its digest is known before a file is read and
// changes when any file would: it covers everything the files derive from.
type Layer interface {
	Name() string
	Digest() Digest
	Files() iter.Seq2[File, error]
}

// Of returns a layer of files already at hand. Its digest must cover them:
// use the digest of the inputs that they were made from.
func Of(name string, digest Digest, files ...File) Layer {
	return sliceLayer{name, digest, files}
}

type sliceLayer struct {
	name   string
	digest Digest
	files  []File
}

func (l sliceLayer) Name() string   { return l.name }
func (l sliceLayer) Digest() Digest { return l.digest }
func (l sliceLayer) Files() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for _, f := range l.files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Conflict is two layers that bring different things for one path.
type Conflict struct {
	Path   string
	First  string // owner of the entry that was there
	Second string // owner of the entry that clashes with it
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("conflict at /%s: both %s and %s provide it", c.Path, c.First, c.Second)
}

// Tree is a whole file system: every parent is present and is a directory,
// and each path is there once. The zero Tree is empty.
type Tree struct {
	files map[string]File
	paths []string // sorted
}

// Merge combines layers into one tree. A path below a symbolic link to a
// directory is stored below the link's target, as unpacking would do, so that
// packages with /lib/… fit a merged /usr. Missing parents are made as 0755
// directories owned by the file that needs them. Two layers may share a
// directory (the first one's attributes count) and an identical symbolic
// link; any other shared path is a *[Conflict].
func Merge(ls ...Layer) (*Tree, error) {
	return merge(map[string]File{}, false, ls)
}

// Overlay returns base with the files of ls put over it. A later file takes
// the place of an earlier one; only a directory cannot be replaced by
// something else, nor something else by a directory.
func Overlay(base *Tree, ls ...Layer) (*Tree, error) {
	return merge(maps.Clone(base.files), true, ls)
}

func merge(files map[string]File, replace bool, ls []Layer) (*Tree, error) {
	if files == nil {
		files = map[string]File{}
	}
	// Links first, so that the order of layers does not decide where a path
	// below a linked directory goes.
	var all []File
	for _, l := range ls {
		for f, err := range l.Files() {
			if err != nil {
				return nil, fmt.Errorf("reading layer %s: %w", l.Name(), err)
			}
			if err := f.Check(); err != nil {
				return nil, fmt.Errorf("reading layer %s: %w", l.Name(), err)
			}
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b File) int {
		return rank(a) - rank(b)
	})
	for _, f := range all {
		p, err := resolveParent(files, f.Path)
		if err != nil {
			return nil, fmt.Errorf("placing /%s of %s: %w", f.Path, f.Owner, err)
		}
		f.Path = p
		if err := put(files, f, replace); err != nil {
			return nil, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if err := addParents(files, p); err != nil {
			return nil, err
		}
	}
	return &Tree{files: files, paths: slices.Sorted(maps.Keys(files))}, nil
}

// rank orders the placing of files: top-level links before all else.
func rank(f File) int {
	if f.Mode.Type() == fs.ModeSymlink && !strings.Contains(f.Path, "/") {
		return 0
	}
	return 1
}

func put(files map[string]File, f File, replace bool) error {
	old, ok := files[f.Path]
	if !ok {
		files[f.Path] = f
		return nil
	}
	if old.Mode.IsDir() && f.Mode.IsDir() {
		if replace {
			files[f.Path] = f
		}
		return nil
	}
	if !replace && old.Mode.Type() == fs.ModeSymlink && f.Mode.Type() == fs.ModeSymlink && old.Link == f.Link {
		return nil
	}
	// A directory that a package ships where another has a link to a
	// directory is the link: dpkg keeps the link too.
	if old.Mode.Type() == fs.ModeSymlink && f.Mode.IsDir() {
		return nil
	}
	if !replace || old.Mode.IsDir() != f.Mode.IsDir() {
		return &Conflict{Path: f.Path, First: old.Owner, Second: f.Owner}
	}
	files[f.Path] = f
	return nil
}

func addParents(files map[string]File, p string) error {
	if p == "." {
		return nil
	}
	dir := path.Dir(p)
	d, ok := files[dir]
	if ok && !d.Mode.IsDir() {
		return &Conflict{Path: dir, First: d.Owner, Second: files[p].Owner}
	}
	if ok {
		return nil
	}
	files[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755, ModTime: files[p].ModTime, Owner: files[p].Owner}
	return addParents(files, dir)
}

// maxLinks bounds the following of symbolic links, as ELOOP does in Linux.
const maxLinks = 40

// resolveParent returns p with every symbolic link in its directory resolved;
// the last element stays as it is.
func resolveParent(files map[string]File, p string) (string, error) {
	rest := strings.Split(p, "/")
	dir := "."
	for n := 0; len(rest) > 1; {
		next := path.Join(dir, rest[0])
		rest = rest[1:]
		f, ok := files[next]
		if !ok || f.Mode.Type() != fs.ModeSymlink {
			dir = next
			continue
		}
		if n++; n > maxLinks {
			return "", fmt.Errorf("too many symbolic links at /%s", next)
		}
		target := linkTarget(next, f.Link)
		rest = append(strings.Split(target, "/"), rest...)
		if target == "." {
			rest = rest[1:]
		}
		dir = "."
	}
	return path.Join(dir, rest[0]), nil
}

// linkTarget returns where a link at p leads, as a path from the root; ".."
// at the root stays there, as in the kernel.
func linkTarget(p, link string) string {
	if !path.IsAbs(link) {
		link = path.Join("/", path.Dir(p), link)
	}
	link = strings.TrimPrefix(path.Clean(link), "/")
	if link == "" {
		return "."
	}
	return link
}

// Files yields every file in order of path: a directory before what is in it.
func (t *Tree) Files() iter.Seq[File] {
	return func(yield func(File) bool) {
		for _, p := range t.paths {
			if !yield(t.files[p]) {
				return
			}
		}
	}
}

// Len returns the number of entries.
func (t *Tree) Len() int { return len(t.paths) }

// Lookup returns the entry at p, without following a final symbolic link.
func (t *Tree) Lookup(p string) (File, bool) {
	q, err := resolveParent(t.files, p)
	if err != nil {
		return File{}, false
	}
	f, ok := t.files[q]
	return f, ok
}

// Resolve returns the entry that p names after following symbolic links.
func (t *Tree) Resolve(p string) (File, error) {
	at := p
	for range maxLinks {
		f, ok := t.Lookup(at)
		if !ok {
			return File{}, fmt.Errorf("resolving /%s: /%s: %w", p, at, fs.ErrNotExist)
		}
		if f.Mode.Type() != fs.ModeSymlink {
			return f, nil
		}
		at = linkTarget(f.Path, f.Link)
	}
	return File{}, fmt.Errorf("resolving /%s: too many symbolic links", p)
}

// ReadFile returns the content of the regular file that p names, following
// symbolic links.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	f, err := t.Resolve(p)
	if err != nil {
		return nil, err
	}
	return f.Read()
}

// Glob returns the entries whose path matches pattern, as path.Match has it,
// in order of path.
func (t *Tree) Glob(pattern string) ([]File, error) {
	var out []File
	for _, p := range t.paths {
		ok, err := path.Match(pattern, p)
		if err != nil {
			return nil, fmt.Errorf("matching %q: %w", pattern, err)
		}
		if ok {
			out = append(out, t.files[p])
		}
	}
	return out, nil
}

// Under yields dir and the entries below it in order of path.
func (t *Tree) Under(dir string) iter.Seq[File] {
	return func(yield func(File) bool) {
		for _, p := range t.paths {
			if dir != "." && p != dir && !strings.HasPrefix(p, dir+"/") {
				continue
			}
			if !yield(t.files[p]) {
				return
			}
		}
	}
}

// Filter returns the tree of the entries for which keep is true. What lies
// below a dropped directory is dropped with it.
func (t *Tree) Filter(keep func(File) bool) *Tree {
	out := &Tree{files: map[string]File{}}
	for _, p := range t.paths {
		f := t.files[p]
		if p != "." {
			if _, ok := out.files[path.Dir(p)]; !ok {
				continue
			}
		}
		if keep(f) {
			out.files[p] = f
			out.paths = append(out.paths, p)
		}
	}
	return out
}

// Map returns the tree with every entry replaced by f of it, which must not
// change its path or type.
func (t *Tree) Map(f func(File) File) *Tree {
	out := &Tree{files: make(map[string]File, len(t.files)), paths: t.paths}
	for p, e := range t.files {
		out.files[p] = f(e)
	}
	return out
}

// Check reports the first law of a tree that t breaks: each file's own laws,
// a directory above every entry, and paths in order.
func (t *Tree) Check() error {
	if !slices.IsSorted(t.paths) || len(t.paths) != len(t.files) {
		return fmt.Errorf("internal error: tree of %d files has %d paths or they are out of order", len(t.files), len(t.paths))
	}
	for _, p := range t.paths {
		f := t.files[p]
		if f.Path != p {
			return fmt.Errorf("internal error: entry %q is stored at %q", f.Path, p)
		}
		if err := f.Check(); err != nil {
			return err
		}
		if p == "." {
			continue
		}
		if d, ok := t.files[path.Dir(p)]; !ok || !d.Mode.IsDir() {
			return fmt.Errorf("file /%s of %s: no directory above it", p, f.Owner)
		}
	}
	return nil
}
