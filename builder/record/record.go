// Package record is what an image says about itself, so that it can be
// questioned without the files that it was built from.
//
// There are two records, because a root file system serves any cluster file
// whose inputs are the same:
//
//   - [Root] lies in the root at [RootPath], under the protection of dm-verity:
//     the packages, programs and container images that the root consists of, and
//     for each path who brought it and the SHA-256 of its content;
//   - [Build] lies in the initrd at [BuildPath], inside the unified kernel image:
//     the version, the lock, and which key of the cluster file asked for what.
//     Beside it is what an image can be built anew from: the cluster file with
//     every default filled in at [SpecPath], the lock at [LockPath], and the
//     files that the cluster file names at [FilesPath].
//
// Both are JSON. Times and order come from the lock: the same lock gives the
// same bytes. There is no secret in either; a cluster file names passwords by
// the files that they are in, and these are not among those at FilesPath.
// A user's Butane file may hold one: only root can read that path.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// Where the records are: in the root file system, and in the initrd.
const (
	RootPath  = "usr/lib/kscratch/record.json"
	BuildPath = "etc/kscratch/build.json"
	SpecPath  = "etc/kscratch/cluster.yaml"
	LockPath  = "etc/kscratch/kscratch.lock"
	FilesPath = "etc/kscratch/files.json"
)

// Format is the version of both records that this code writes and reads.
const Format = 1

// Owner is who brings the record of a root itself. Its own digest is the one
// that it cannot have.
const Owner = "kscratch:record"

// Root says what a root file system is made of.
type Root struct {
	Format   int       `json:"format"`
	Role     string    `json:"role"`
	ID       string    `json:"id"`       // version of the root
	Time     time.Time `json:"time"`     // of every file
	Packages []Package `json:"packages"` // sorted by name
	Programs []Program `json:"programs"` // the server tarball, and programs that come as such
	Images   []Image   `json:"images"`   // container images

	// Files has every path by its owner, relative to the root: the SHA-256 of
	// the content in hexadecimal, or "" of what has none.
	Files map[string]map[string]string `json:"files"`
}

// Package is a Debian package.
type Package struct {
	Name          string        `json:"name"`
	Version       string        `json:"version"`
	Arch          string        `json:"arch"`
	Source        string        `json:"source"`
	SourceVersion string        `json:"sourceVersion"`
	Size          int64         `json:"size"`   // of the .deb, bytes
	Digest        layers.Digest `json:"digest"` // of the .deb
	Maintainer    string        `json:"maintainer,omitempty"`
	Homepage      string        `json:"homepage,omitempty"`
	Depends       []string      `json:"depends,omitempty"` // names of packages of the image that it needs, sorted
}

// Owner is how the package's files name it.
func (p Package) Owner() string { return "deb:" + p.Name + "=" + p.Version }

// Program is the Kubernetes server tarball or a program that comes as such.
type Program struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Size    int64         `json:"size"` // bytes
	Digest  layers.Digest `json:"digest"`
}

// Image is a container image in docker's store.
type Image struct {
	Name   string        `json:"name"`
	ID     layers.Digest `json:"id"`               // docker's: of the configuration
	Digest layers.Digest `json:"digest,omitempty"` // of the manifest in a registry
	Size   int64         `json:"size"`             // of its uncompressed layers, bytes
	Layers []Layer       `json:"layers"`           // bottom first
}

// Layer is a layer of a container image, which other images may share.
type Layer struct {
	DiffID layers.Digest `json:"diffID"` // of the uncompressed tar
	Size   int64         `json:"size"`   // of the uncompressed tar, bytes
	Dir    string        `json:"dir"`    // of its files, relative to the root
}

// File is one of those at [FilesPath], by its name in the cluster file.
type File struct {
	Content []byte `json:"content,omitempty"`
	Exec    bool   `json:"executable,omitempty"`
	Link    string `json:"link,omitempty"` // target, if it is a symbolic link
}

// Build says what an image was built for.
type Build struct {
	Format   int           `json:"format"`
	Role     string        `json:"role"`
	Version  string        `json:"version"` // of the image
	Root     string        `json:"root"`    // version of its root
	Time     time.Time     `json:"time"`
	Cluster  string        `json:"cluster"`  // its name
	Security string        `json:"security"` // https or firewall
	Lock     layers.Digest `json:"lock"`
	Spec     layers.Digest `json:"spec"` // of the cluster file with all defaults, the file at SpecPath
	PKI      layers.Digest `json:"pki"`
	Kscratch layers.Digest `json:"kscratch"`

	// Boot has the digests of what is on the EFI system partition beside the
	// root's own files: "loader", and "kernel" and "stub" of the unified
	// kernel image.
	Boot map[string]layers.Digest `json:"boot"`

	// Keys says which key of the cluster file asked for a part: "deb:NAME",
	// "program:NAME" and "image:NAME" are parts. The value "kscratch" means
	// that every image of the role has it.
	Keys map[string]string `json:"keys"`
	// Sources says where each part came from, as the lock has it: a path in the
	// archive, a source such as modules, or the reference of an image. It is
	// not in the record of the root, which is the same from wherever.
	Sources map[string]string `json:"sources"`
	// Butane says which of the user's Butane files last changed what the
	// first boot puts at a path: the file's key and name.
	Butane map[string]string `json:"butane,omitempty"`
	// Secrets are the files of the first boot that must stay on the node.
	Secrets []Secret `json:"secrets"`
}

// Secret is a file that must stay on its node.
type Secret struct {
	Path string `json:"path"`
	Use  string `json:"use"`
}

// Encode renders a record as one line of JSON, keys sorted.
func Encode[R Root | Build](r R) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("internal error: rendering a record: %w", err)
	}
	return b.Bytes(), nil
}

// maxRoot bounds the record of a root that is read, in bytes: that of a million
// files.
const maxRoot = 256 << 20

// ReadRoot reads the record that a root has. One without is an error that is
// fs.ErrNotExist.
func ReadRoot(root *layers.Tree) (Root, error) {
	f, err := root.Resolve(RootPath)
	if err != nil {
		return Root{}, err
	}
	if f.Size > maxRoot {
		return Root{}, fmt.Errorf("reading /%s: it has %d bytes, more than %d", RootPath, f.Size, maxRoot)
	}
	b, err := f.Read()
	if err != nil {
		return Root{}, err
	}
	return ParseRoot(b)
}

// ParseRoot reads the record of a root.
func ParseRoot(b []byte) (Root, error) {
	var r Root
	if err := parse(b, &r, &r.Format); err != nil {
		return Root{}, fmt.Errorf("reading /%s: %w", RootPath, err)
	}
	for owner, files := range r.Files {
		for p, sum := range files {
			if !fs.ValidPath(p) || sum != "" && layers.Digest("sha256:"+sum).Check() != nil {
				return Root{}, fmt.Errorf("reading /%s: file %q of %q with digest %q: want a relative path and 64 hex digits", RootPath, p, owner, sum)
			}
		}
	}
	return r, nil
}

// ParseBuild reads the record of a build.
func ParseBuild(b []byte) (Build, error) {
	var r Build
	if err := parse(b, &r, &r.Format); err != nil {
		return Build{}, fmt.Errorf("reading /%s of the initrd: %w", BuildPath, err)
	}
	return r, nil
}

// parse reads one JSON value. Keys that are not known are let pass: a later
// kscratch may say more without changing the format.
func parse(b []byte, into any, format *int) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after its end")
	}
	if *format != Format {
		return fmt.Errorf("format %d, this kscratch knows %d; use the kscratch that built the image", *format, Format)
	}
	return nil
}

// Found is who brings a path.
type Found struct {
	Owner string
	Sum   string // SHA-256 of the content in hexadecimal; empty without content
}

// ByPath returns the owner of every path.
func (r Root) ByPath() map[string]Found {
	out := map[string]Found{}
	for owner, files := range maps.All(r.Files) {
		for p, sum := range files {
			out[p] = Found{owner, sum}
		}
	}
	return out
}
