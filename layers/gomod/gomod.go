// Package gomod builds programs from published Go modules, the same bytes each
// time.
//
// A [Recipe] is data: a module at a version, packages in it, flags. [Build]
// downloads the module through the Go module proxy (the go command checks it
// against the checksum database, see https://go.dev/ref/mod), writes a private
// main module that requires it with the versions that the module's own go.mod
// and go.sum name, and compiles static programs with -trimpath. Each program
// is kept in the content store by everything that it depends on.
//
// Not supported: cgo (a recipe can leave out a plugin that needs it), modules that need generated code which they do not ship,
// modules replaced by directories (unless a [Pin] gives their version), and
// other toolchains than the installed one (GOTOOLCHAIN is local).
package gomod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/module"

	"github.com/kscratch/kscratch/layers/cache"
)

// revision is part of every key: raise it when Build makes other bytes from
// the same recipe.
const revision = "1"

// Recipe says what to build. It is pure data.
type Recipe struct {
	Module   string    // path, such as k8s.io/kubernetes
	Version  string    // canonical version, such as v1.36.3
	Sum      string    // h1: sum of the module, checked; empty if not known
	Packages []Package // programs to build
	Pins     []Pin     // versions in place of directories
	Unimport []string  // packages that the programs import for their side effects, to build without
	Tags     []string  // build tags
	Ldflags  string    // for the linker, as go build -ldflags takes them
}

// Package is a program of a module.
type Package struct {
	Path string // import path of package main
	Name string // of the program file
	Test bool   // build the package's test binary, as go test -c does
}

// Pin gives a version to the modules below a path prefix that the recipe's
// module takes from directories of its own repository.
type Pin struct{ Prefix, Version string }

// Options say how to build. Go is required.
type Options struct {
	Go   string       // path of the go command; see [MissingGoError]
	Env  []string     // the caller's environment, "NAME=value"; only what the go command needs for proxies, caches and certificates is used
	Arch string       // GOARCH; empty means amd64
	Jobs int          // packages compiled at once; 0 means one per processor
	Log  *slog.Logger // nil discards
}

func (o Options) arch() string {
	if o.Arch == "" {
		return "amd64"
	}
	return o.Arch
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// MissingGoError says that a source build has no go command to use.
type MissingGoError struct{ Recipe string }

func (e *MissingGoError) Error() string {
	return fmt.Sprintf("building %s: no go command found: install Go (https://go.dev/dl/) and put it in PATH, or take this input from a release or a path", e.Recipe)
}

// String returns module@version.
func (r Recipe) String() string { return r.Module + "@" + r.Version }

var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Check reports what is wrong with a recipe.
func (r Recipe) Check() error {
	if err := module.Check(r.Module, r.Version); err != nil {
		return fmt.Errorf("checking recipe: %w", err)
	}
	if len(r.Packages) == 0 {
		return fmt.Errorf("checking recipe %s: it names no package", r)
	}
	seen := map[string]bool{}
	for _, p := range r.Packages {
		if err := module.CheckImportPath(p.Path); err != nil {
			return fmt.Errorf("checking recipe %s: %w", r, err)
		}
		if !programName.MatchString(p.Name) || seen[p.Name] {
			return fmt.Errorf("checking recipe %s: program name %q is not a plain file name or is there twice", r, p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// Build returns the programs of a recipe by name. What the store does not have
// is compiled in one run of the go command. Two builds of one program at once
// are serialised by the store. When ctx ends, go and all it started are killed.
func Build(ctx context.Context, store *cache.Store, r Recipe, o Options) (map[string]cache.Blob, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	work, done, err := workDir(store)
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", r, err)
	}
	b := &build{store: store, r: r, o: o, work: work}
	blobs, err := b.run(ctx)
	if err := errors.Join(err, done()); err != nil {
		if missing := (*MissingGoError)(nil); errors.As(err, &missing) {
			return nil, err
		}
		return nil, fmt.Errorf("building %s: %w", r, err)
	}
	return blobs, nil
}

// Source returns the directory of the module cache that holds a recipe's
// module, downloaded and verified. It is read-only.
func Source(ctx context.Context, store *cache.Store, r Recipe, o Options) (dir string, err error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	work, done, err := workDir(store)
	if err != nil {
		return "", fmt.Errorf("getting the source of %s: %w", r, err)
	}
	b := &build{store: store, r: r, o: o, work: work}
	b.tc, err = probe(ctx, store, r.String(), work, o)
	if err == nil {
		err = b.fetch(ctx)
	}
	if err := errors.Join(err, done()); err != nil {
		return "", fmt.Errorf("getting the source of %s: %w", r, err)
	}
	return b.src.Dir, nil
}

// build is one call of Build.
type build struct {
	store *cache.Store
	r     Recipe
	o     Options
	work  string // a directory of our own
	tc    toolchain
	src   source
}

func (b *build) run(ctx context.Context) (map[string]cache.Blob, error) {
	tc, err := probe(ctx, b.store, b.r.String(), b.work, b.o)
	if err != nil {
		return nil, err
	}
	b.tc = tc
	if b.r.Sum == "" { // the keys need it
		if err := b.fetch(ctx); err != nil {
			return nil, err
		}
		b.r.Sum = b.src.Sum
	}
	blobs := map[string]cache.Blob{}
	todo := b.missing(blobs)
	if len(todo) == 0 {
		return blobs, nil
	}
	return blobs, b.compute(ctx, todo, blobs)
}

// missing puts what the store has into blobs and returns the rest by name.
func (b *build) missing(blobs map[string]cache.Blob) (todo []Package) {
	for _, p := range b.r.Packages {
		if blob, ok := b.store.Computed(kind, b.key(p)); ok {
			blobs[p.Name] = blob
			continue
		}
		todo = append(todo, p)
	}
	slices.SortFunc(todo, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return todo
}

const kind = "gomod"

// key names a program by everything that its bytes depend on.
func (b *build) key(p Package) string {
	fields := []string{revision, b.r.Module, b.r.Version, b.r.Sum, p.Path, b.r.Ldflags, strings.Join(b.r.Tags, ","), b.tc.version, b.o.arch()}
	for _, pin := range b.r.Pins {
		fields = append(fields, pin.Prefix+"="+pin.Version)
	}
	for _, u := range b.r.Unimport {
		fields = append(fields, "without "+u)
	}
	if p.Test {
		fields = append(fields, "test")
	}
	for i, f := range fields {
		fields[i] = strconv.Quote(f)
	}
	return strings.Join(fields, " ")
}

// compute builds todo under the lock of its first program and stores the
// others from there. Whoever holds a lock here asks only for ones that sort
// after it, so two builds never wait for each other.
func (b *build) compute(ctx context.Context, todo []Package, blobs map[string]cache.Blob) error {
	for i, p := range todo {
		if _, ok := blobs[p.Name]; ok {
			continue // stored along with an earlier one
		}
		blob, err := b.store.Compute(ctx, kind, b.key(p), func(ctx context.Context, w io.Writer) error {
			out, err := b.compile(ctx, todo[i:])
			if err != nil {
				return err
			}
			if err := b.keep(ctx, out, todo[i+1:], blobs); err != nil {
				return err
			}
			return copyFile(filepath.Join(out, p.Name))(ctx, w)
		})
		if err != nil {
			return err
		}
		blobs[p.Name] = blob
	}
	return nil
}

// keep stores programs from the directory out.
func (b *build) keep(ctx context.Context, out string, ps []Package, blobs map[string]cache.Blob) error {
	for _, p := range ps {
		blob, err := b.store.Compute(ctx, kind, b.key(p), copyFile(filepath.Join(out, p.Name)))
		if err != nil {
			return fmt.Errorf("storing %s: %w", p.Name, err)
		}
		blobs[p.Name] = blob
	}
	return nil
}

func copyFile(name string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}
}

// compile runs the go command and returns the directory with the programs.
func (b *build) compile(ctx context.Context, todo []Package) (string, error) {
	if b.src.Dir == "" {
		if err := b.fetch(ctx); err != nil {
			return "", err
		}
	}
	main, out := filepath.Join(b.work, "main"), filepath.Join(b.work, "out")
	if err := writeMain(main, b.r, b.src); err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o755)); err != nil {
		return "", err
	}
	// go names programs itself when there are several: a directory for each
	// would mean a run, and a link step without its siblings, for each.
	b.o.log().Info("building from source", "module", b.r.String(), "programs", names(todo), "go", b.tc.version)
	for _, test := range []bool{false, true} {
		ps := slices.DeleteFunc(slices.Clone(todo), func(p Package) bool { return p.Test != test })
		if len(ps) == 0 {
			continue
		}
		if _, err := b.tc.run(ctx, main, b.args(ps, test, out)...); err != nil {
			return "", fmt.Errorf("running go build: %w", b.hint(err))
		}
	}
	return out, rename(out, todo)
}

// args returns the arguments of the go command for programs or for test
// binaries.
func (b *build) args(ps []Package, test bool, out string) []string {
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-mod=mod", "-tags="+strings.Join(b.r.Tags, ","), "-ldflags="+b.r.Ldflags, "-o", out+string(filepath.Separator))
	if b.o.Jobs > 0 {
		args = append(args, "-p="+strconv.Itoa(b.o.Jobs))
	}
	for _, p := range ps {
		args = append(args, p.Path)
	}
	return args
}

func names(ps []Package) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

// rename gives the programs in dir the names that the recipe wants.
func rename(dir string, ps []Package) error {
	for _, p := range ps {
		from := filepath.Join(dir, defaultName(p.Path))
		if p.Test {
			from += ".test"
		}
		if err := os.Rename(from, filepath.Join(dir, p.Name)); err != nil {
			return fmt.Errorf("finding program %s: %w", p.Name, err)
		}
	}
	return nil
}

var majorSuffix = regexp.MustCompile(`^v[2-9]$|^v[1-9][0-9]+$`)

// defaultName returns the file name that go build picks for a program: the
// last element of its path that is not a major version.
func defaultName(pkg string) string {
	dir, last := path.Split(pkg)
	if dir != "" && majorSuffix.MatchString(last) {
		return path.Base(dir)
	}
	return last
}

// workDir makes a directory for one build in the store.
func workDir(store *cache.Store) (dir string, done func() error, err error) {
	dir, done, err = store.WorkDir("gomod-")
	if err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return "", nil, errors.Join(fmt.Errorf("making a work directory: %w", err), done())
	}
	return dir, done, nil
}
