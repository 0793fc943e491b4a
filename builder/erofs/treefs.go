package erofs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/kscratch/kscratch/layers"
)

// treeFS shows a tree to go-erofs, which walks it once and takes owners,
// attributes and device numbers from Sys.
type treeFS struct {
	files    map[string]layers.File
	children map[string][]fs.DirEntry
	source   func(layers.File) io.ReadCloser
	data     int64 // content of regular files in bytes
	sec      int64
}

func newTreeFS(t *layers.Tree, sec int64, source func(layers.File) io.ReadCloser) *treeFS {
	s := &treeFS{
		files:    make(map[string]layers.File, t.Len()),
		children: map[string][]fs.DirEntry{},
		source:   source, sec: sec,
	}
	s.files["."] = layers.File{Path: ".", Mode: fs.ModeDir | 0o755}
	dirs := map[string]int{}
	for f := range t.Files() {
		s.files[f.Path] = f
		s.data += f.Size
		if f.Path != "." && f.Mode.IsDir() {
			dirs[path.Dir(f.Path)]++
		}
	}
	for f := range t.Files() {
		if f.Path != "." {
			d := path.Dir(f.Path)
			s.children[d] = append(s.children[d], fs.FileInfoToDirEntry(s.info(f, dirs[f.Path])))
		}
	}
	for _, c := range s.children {
		slices.SortFunc(c, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return s
}

func (s *treeFS) info(f layers.File, subdirs int) info {
	st := &goerofs.Stat{
		Mode: f.Mode, Size: f.Size, UID: f.UID, GID: f.GID, Rdev: uint32(f.Rdev),
		Mtime: uint64(s.sec), Nlink: 1, Xattrs: f.Xattrs,
	}
	if f.Mode.IsDir() {
		st.Nlink = 2 + subdirs
	}
	return info{f, st}
}

func (s *treeFS) Open(name string) (fs.File, error) {
	f, ok := s.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &lazyFile{ReadCloser: s.source(f), info: s.info(f, 0)}, nil
}

// Stat is only asked for the root, by fs.WalkDir.
func (s *treeFS) Stat(name string) (fs.FileInfo, error) {
	f, ok := s.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	subdirs := 0
	for _, c := range s.children[name] {
		if c.IsDir() {
			subdirs++
		}
	}
	return s.info(f, subdirs), nil
}

func (s *treeFS) Lstat(name string) (fs.FileInfo, error)     { return s.Stat(name) }
func (s *treeFS) ReadDir(name string) ([]fs.DirEntry, error) { return s.children[name], nil }
func (s *treeFS) ReadLink(name string) (string, error)       { return s.files[name].Link, nil }

type info struct {
	f  layers.File
	st *goerofs.Stat
}

func (i info) Name() string       { return path.Base(i.f.Path) }
func (i info) Size() int64        { return i.f.Size }
func (i info) Mode() fs.FileMode  { return i.f.Mode }
func (i info) ModTime() time.Time { return time.Unix(int64(i.st.Mtime), 0).UTC() }
func (i info) IsDir() bool        { return i.f.Mode.IsDir() }
func (i info) Sys() any           { return i.st }

// lazyFile is an fs.File over content that is not opened before it is read.
type lazyFile struct {
	io.ReadCloser
	info info
}

func (l *lazyFile) Stat() (fs.FileInfo, error) { return l.info, nil }
