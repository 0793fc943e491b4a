// Package derive computes, in Go, what the maintainer scripts of Debian
// packages would have done to a system, because kscratch never runs one.
//
// [Run] takes the merged tree of unpacked packages through [Steps], an ordered
// list. A step looks at the tree, and says which files it adds or replaces and
// which paths it drops; it changes nothing itself. Every derived file is owned
// by "derive:<step>", and every change is reported, so that the image's
// manifest can name it. A step whose packages are absent does nothing: the
// list fits every closure of packages.
//
// The formats that are worth a codec have a package of their own: derive/depmod
// (kernel module indexes), derive/hwdb (the hardware database).
//
// Written for Debian 13 (trixie) with merged /usr, systemd 257, kmod 34. Not
// supported: other releases, debconf answers other than the defaults,
// dpkg-divert, alternatives that an administrator picked by hand, SELinux
// labels, the journal's message catalog (systemd builds it on the node when
// /var is new).
package derive

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Package is a Debian package that was unpacked into the tree.
type Package struct {
	Name    string
	Version string
	Arch    string // "amd64" or "all"
	Source  string // the Source field: "name" or "name (version)"; empty if it is Name
}

// Options are the values that a run depends on beside the tree. The zero
// value works.
type Options struct {
	Packages     []Package    // what was unpacked; for the package database
	ImageID      string       // IMAGE_ID of os-release; omitted when empty
	ImageVersion string       // IMAGE_VERSION of os-release; omitted when empty
	Time         time.Time    // modification time of derived files; zero is the epoch
	Cache        *cache.Store // keeps the costly results (depmod); nil computes them anew
	Log          *slog.Logger // one line for each step; nil is silent
}

// Input is what a step sees: the tree as the steps before left it.
type Input struct {
	Tree *layers.Tree
	Options
}

// Result is what a step asks for. Drop is carried out before Files. A file
// with an empty Owner gets the step's; one with a zero ModTime gets the run's.
type Result struct {
	Files []layers.File
	Drop  []string // paths; what is below them goes too
}

// Step is one thing that maintainer scripts would have done.
type Step struct {
	Name string // short, unique; owners read "derive:<Name>"
	Doc  string // one sentence: what is derived, and from what
	Run  func(ctx context.Context, in Input) (Result, error)
}

// Action says what happened to a path.
type Action string

// The actions of a [Change].
const (
	Added    Action = "added"
	Replaced Action = "replaced"
	Removed  Action = "removed" // with everything below it
)

// Change is one effect of a step, for the image's manifest.
type Change struct {
	Step   string `json:"step"`
	Path   string `json:"path"` // relative to the root
	Action Action `json:"action"`
}

// Run takes t through all [Steps] and returns the resulting tree and the
// changes in order of step, then path. The error names the step.
func Run(ctx context.Context, t *layers.Tree, o Options) (*layers.Tree, []Change, error) {
	return run(ctx, t, o, Steps)
}

func run(ctx context.Context, t *layers.Tree, o Options, steps []Step) (*layers.Tree, []Change, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var all []Change
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		r, err := s.Run(ctx, Input{Tree: t, Options: o})
		if err != nil {
			return nil, nil, fmt.Errorf("deriving %s: %w", s.Name, err)
		}
		next, changes, err := apply(t, s, r, o.Time)
		if err != nil {
			return nil, nil, fmt.Errorf("deriving %s: %w", s.Name, err)
		}
		o.Log.Debug("derived", "step", s.Name, "changes", len(changes))
		t, all = next, append(all, changes...)
	}
	return t, all, t.Check()
}

// apply carries out r and reports what it changed. What is already as asked
// for is left alone and not reported.
func apply(t *layers.Tree, s Step, r Result, mtime time.Time) (*layers.Tree, []Change, error) {
	t, changes := drop(t, s.Name, r.Drop)
	var files []layers.File
	var key []string
	for _, f := range r.Files {
		f.Owner = cmp.Or(f.Owner, "derive:"+s.Name)
		if f.ModTime.IsZero() {
			f.ModTime = mtime
		}
		old, had := t.Lookup(f.Path)
		same, err := same(old, f)
		if err != nil {
			return nil, nil, err
		}
		if had && same {
			continue
		}
		action := Added
		if had {
			action = Replaced
		}
		changes = append(changes, Change{s.Name, f.Path, action})
		files = append(files, f)
		key = append(key, f.Path)
	}
	if len(changes) == 0 {
		return t, nil, nil
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	// The digest is not read: the layer only carries files into Overlay.
	t, err := layers.Overlay(t, layers.Of("derive:"+s.Name, layers.DigestOfParts(key...), files...))
	return t, changes, err
}

func drop(t *layers.Tree, step string, paths []string) (*layers.Tree, []Change) {
	gone := map[string]bool{}
	var changes []Change
	for _, p := range paths {
		if f, ok := t.Lookup(p); ok && !gone[f.Path] {
			gone[f.Path] = true
			changes = append(changes, Change{step, f.Path, Removed})
		}
	}
	if len(gone) == 0 {
		return t, nil
	}
	return t.Filter(func(f layers.File) bool { return !gone[f.Path] }), changes
}

// same reports whether b would change nothing where a is. Times and owners do
// not count.
func same(a, b layers.File) (bool, error) {
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Link != b.Link || a.Size != b.Size {
		return false, nil
	}
	if !a.Mode.IsRegular() {
		return true, nil
	}
	x, err := a.Read()
	if err != nil {
		return false, err
	}
	y, err := b.Read()
	return err == nil && string(x) == string(y), err
}

// file, link and dir make derived files; the runner gives them their owner.
func file(path string, perm fs.FileMode, content string) layers.File {
	return layers.Regular(path, perm, "", []byte(content))
}

func link(path, target string) layers.File { return layers.Symlink(path, target, "") }

func dir(path string, perm fs.FileMode) layers.File { return layers.Dir(path, perm, "") }

// owned returns f with numeric owner and group.
func owned(f layers.File, uid, gid uint32) layers.File {
	f.UID, f.GID = uid, gid
	return f
}

// has reports whether p is in the tree; a final link is not followed.
func (in Input) has(p string) bool {
	_, ok := in.Tree.Lookup(p)
	return ok
}

// unlessThere returns the files whose paths the tree lacks.
func (in Input) unlessThere(files ...layers.File) []layers.File {
	return slices.DeleteFunc(files, func(f layers.File) bool { return in.has(f.Path) })
}

// confs returns the files that a directory-based configuration consists of:
// the files *suffix of dirs, sorted by name, where an earlier directory hides
// a later one's file of the same name, and a link to /dev/null hides it for
// good (systemd's rules for sysusers.d, tmpfiles.d, hwdb.d and presets).
func (in Input) confs(suffix string, dirs ...string) ([]layers.File, error) {
	byName := map[string]layers.File{}
	for _, d := range dirs {
		fs, err := in.Tree.Glob(d + "/*" + suffix)
		if err != nil {
			return nil, err
		}
		for _, f := range fs {
			name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
			if _, ok := byName[name]; !ok {
				byName[name] = f
			}
		}
	}
	return in.followConfs(byName)
}

func (in Input) followConfs(byName map[string]layers.File) ([]layers.File, error) {
	var names []string
	for n, f := range byName {
		if f.Link != "/dev/null" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []layers.File
	for _, n := range names {
		f, err := in.Tree.Resolve(byName[n].Path)
		if err != nil {
			return nil, fmt.Errorf("reading configuration: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}
