package lint

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
)

// Files is what a file system has, by absolute path.
type Files map[string]File

// File is an entry of a file system.
type File struct {
	Mode   fs.FileMode // type and permission bits
	Link   string      // target of a symbolic link
	Body   []byte      // of the files that rules read; see [Root]
	Remote bool        // the node fetches the content, which is not known here
	Config bool        // the first boot writes it
	From   string      // which of the user's files it is from; empty: none
	State  string      // of a unit that the configuration has: enabled, disabled, masked or empty
}

const (
	etcUnits  = "/etc/systemd/system/"
	usrUnits  = "/usr/lib/systemd/system/"
	manifests = "/etc/kubernetes/manifests/"
	bootstrap = "/etc/kubernetes/bootstrap/"
)

// Root returns what the root of a node has. Paths below the directory without
// are left out: the store of container images is docker's business. Content is
// read of units, Kubernetes' and docker's configuration, and the kernel's.
func Root(root *layers.Tree, without string) (Files, error) {
	out := Files{}
	for f := range root.Files() {
		if f.Path == without || strings.HasPrefix(f.Path, without+"/") {
			continue
		}
		p := "/" + f.Path
		e := File{Mode: f.Mode, Link: f.Link}
		if f.Mode.IsRegular() && isRead(p) {
			b, err := f.Read()
			if err != nil {
				return nil, fmt.Errorf("checking the image: %w", err)
			}
			e.Body = b
		}
		out[p] = e
	}
	return out, nil
}

// With returns the files with what Ignition writes over them. From says which of
// the user's files an entry is from.
func (all Files) With(config ignition.Report, from map[string]string) (Files, error) {
	out := maps.Clone(all)
	for _, e := range config.Entries {
		if err := out.write(e, from[e.Path]); err != nil {
			return nil, fmt.Errorf("checking the configuration: reading %s: %w", e.Path, err)
		}
	}
	return out, nil
}

// isRead reports whether rules want the content of a file.
func isRead(p string) bool {
	for _, dir := range []string{etcUnits, usrUnits, "/etc/kubernetes/", "/etc/docker/"} {
		if strings.HasPrefix(p, dir) {
			return true
		}
	}
	ok, err := path.Match(kernelConfigs, p)
	return ok && err == nil
}

// write puts an entry of an Ignition config where Ignition would. What is said
// of a unit without bringing its file stands in State alone. An entry without
// content changes a file that is there.
func (all Files) write(e ignition.Entry, from string) error {
	f := File{Mode: e.Mode, Body: e.Body, Config: true, From: from}
	switch {
	case e.Mode.Type() == modeLink:
		f.Link = strings.TrimPrefix(e.Note, "to ")
	case e.Note == "gzip":
		r, err := gzip.NewReader(bytes.NewReader(e.Body))
		if err != nil {
			return err
		}
		if f.Body, err = io.ReadAll(io.LimitReader(r, 64<<20)); err != nil {
			return err
		}
	case e.Mode.IsRegular() && path.Dir(e.Path)+"/" == etcUnits:
		f.State = e.Note
		if e.Note == "masked" {
			f.Mode, f.Link = modeLink|0o777, "/dev/null"
		} else if len(e.Body) == 0 {
			f.Mode = modeAbsent
		}
	case e.Note != "":
		f.Remote = true
	case e.Mode.IsRegular() && len(e.Body) == 0:
		f.Body = all[e.Path].Body
	}
	if f.Mode.IsRegular() && f.Mode.Perm() == 0 {
		f.Mode |= 0o644 // Ignition's default
	}
	all[e.Path] = f
	for dir := path.Dir(e.Path); dir != "/"; dir = path.Dir(dir) {
		if _, ok := all[dir]; ok {
			break
		}
		all[dir] = File{Mode: modeDir}
	}
	return nil
}

const (
	modeLink   = fs.ModeSymlink
	modeAbsent = fs.ModeIrregular // of a unit that is enabled or disabled, and of which there is no file here
	modeDir    = fs.ModeDir | 0o755
)

// has reports whether there is something at a path itself.
func (all Files) has(p string) (File, bool) {
	f, ok := all[p]
	return f, ok && f.Mode&modeAbsent == 0
}

// find follows symbolic links and returns what a path leads to, and where that
// is. It is bounded as Linux bounds it. A directory need not be listed: archives
// may have only what is in it.
func (all Files) find(p string) (at string, f File, ok bool) {
	rest := strings.Split(strings.Trim(path.Clean(p), "/"), "/")
	at = "/"
	f = File{Mode: modeDir}
	for links := 0; len(rest) > 0; {
		at = path.Join(at, rest[0])
		rest = rest[1:]
		if f, ok = all.has(at); !ok && len(rest) == 0 {
			return at, f, false
		}
		if f.Mode.Type() != modeLink {
			continue
		}
		if links++; links > 40 {
			return at, f, false
		}
		target := f.Link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at), target)
		}
		if target = strings.Trim(path.Clean(target), "/"); target == "" {
			target = "."
		}
		rest, at = append(strings.Split(target, "/"), rest...), "/"
	}
	return at, f, true
}

// read returns the content of a file if that is known, following symbolic
// links.
func (all Files) read(p string) ([]byte, bool) {
	_, f, ok := all.find(p)
	return f.Body, ok && f.Mode.IsRegular() && !f.Remote
}

// in returns the paths directly in a directory, sorted.
func (all Files) in(dir string) []string {
	var out []string
	for p := range maps.Keys(all) {
		if path.Dir(p) == strings.TrimSuffix(dir, "/") {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// where names a path, and which of the user's files put there what is there.
func (all Files) where(p string) string {
	if f := all[p]; f.From != "" {
		return p + " (" + f.From + ")"
	}
	return p
}
