package builder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/layers"
)

// lockVersion is the format of lock files that this code reads and writes.
const lockVersion = 2

// Lock pins every input of a build. The same lock gives the same bytes.
type Lock struct {
	Version  int               `yaml:"lockVersion"`
	Kscratch string            `yaml:"kscratch"` // version of kscratch that made it
	Time     time.Time         `yaml:"time"`     // the image's clock: date of the newest archive index
	Inputs   Inputs            `yaml:"inputs"`   // what the lock was resolved for
	Suites   []LockedSuite     `yaml:"suites"`   // archive indexes it was resolved from
	Packages []LockedPackage   `yaml:"packages"` // Debian packages of all roles, dependencies included
	Roles    map[Role][]string `yaml:"roles"`    // names of the packages of each role
	Files    []LockedFile      `yaml:"files"`    // the server tarball, and programs that come as such
	Images   []LockedImage     `yaml:"images"`   // container images to bake
}

// Inputs are digests of what the user gives. When one changes, so may what is
// pinned, and the lock is made anew.
type Inputs struct {
	Spec     layers.Digest `yaml:"spec"`              // the cluster file with all defaults
	Sources  layers.Digest `yaml:"sources,omitempty"` // the part of the cluster file that decides what is pinned
	PKI      layers.Digest `yaml:"pki"`               // certificates and key fingerprints
	Kscratch layers.Digest `yaml:"kscratch"`          // kscratch's own part of every image
	Files    []UserFile    `yaml:"files,omitempty"`   // that the cluster file names, sorted by path
}

// UserFile is a file of the user's that a build reads.
type UserFile struct {
	Path   string        `yaml:"path"` // as the cluster file or a Butane file names it, relative to the cluster file
	Digest layers.Digest `yaml:"digest"`
	Keyed  bool          `yaml:"keyed,omitempty"`      // the digest is that of [keyedDigest], which says nothing without the PKI
	Exec   bool          `yaml:"executable,omitempty"` // in a tree of a Butane file
	Link   string        `yaml:"link,omitempty"`       // target of a symbolic link in such a tree; the digest is of that
}

// LockedSuite is an archive index.
type LockedSuite struct {
	Name      string        `yaml:"name"`
	InRelease layers.Digest `yaml:"inRelease"`
	Date      time.Time     `yaml:"date"`
}

// LockedPackage is a Debian package.
type LockedPackage struct {
	Name          string        `yaml:"name"`
	Version       string        `yaml:"version"`
	Arch          string        `yaml:"arch"`
	Source        string        `yaml:"source"`
	SourceVersion string        `yaml:"sourceVersion"`
	Archive       string        `yaml:"archive"` // archive or security
	Path          string        `yaml:"path"`    // below the archive's base URL
	Size          int64         `yaml:"size"`    // bytes
	Digest        layers.Digest `yaml:"digest"`
	Requires      []string      `yaml:"requires,omitempty,flow" json:"-"` // packages that meet its dependencies, in every role that has it
	For           []string      `yaml:"for,omitempty,flow" json:"-"`      // names that the cluster file asks for and it provides
	Index         time.Time     `yaml:"index,omitempty" json:"-"`         // date of the index that it was found in, if that is another than the lock's
}

// LockedFile is the server tarball or a program.
type LockedFile struct {
	Name    string        `yaml:"name"`
	Version string        `yaml:"version"`
	From    string        `yaml:"from"` // release, modules or path
	Size    int64         `yaml:"size"` // bytes
	Digest  layers.Digest `yaml:"digest"`
	Asked   layers.Digest `yaml:"asked,omitempty" json:"-"` // that the cluster file wanted the release's file to have, and it had

	// What a program that is built from Go modules is built from, as it says
	// itself: the version of Go, and the modules in the form of go.sum.
	Go      string   `yaml:"go,omitempty" json:"-"`
	Modules []string `yaml:"modules,omitempty" json:"-"`
}

// LockedImage is a container image.
type LockedImage struct {
	Name   string        `yaml:"name"`                     // name:tag under which docker knows it
	From   string        `yaml:"from"`                     // server:MEMBER, program:NAME, distro:PACKAGE, docker://…, docker-archive:…, oci:… or rootfs:…
	Digest layers.Digest `yaml:"digest"`                   // of the manifest in a registry, of the configuration if from Debian packages, else of the file that it is made from
	Asked  layers.Digest `yaml:"asked,omitempty" json:"-"` // that the cluster file wanted it to have, and it had: of an index perhaps
	Roles  []Role        `yaml:"roles,omitempty"`          // that bake it; none means all

	Packages []LockedPackage `yaml:"packages,omitempty"` // Debian packages that it is made from
}

// images returns the images that a role bakes.
func (l *Lock) images(role Role) []LockedImage {
	var out []LockedImage
	for _, im := range l.Images {
		if len(im.Roles) == 0 || slices.Contains(im.Roles, role) {
			out = append(out, im)
		}
	}
	return out
}

// packages returns the Debian packages of a role.
func (l *Lock) packages(role Role) []LockedPackage {
	var out []LockedPackage
	for _, p := range l.Packages {
		if slices.Contains(l.Roles[role], p.Name) {
			out = append(out, p)
		}
	}
	return out
}

// File returns the file with a name.
func (l *Lock) File(name string) (LockedFile, bool) {
	i := slices.IndexFunc(l.Files, func(f LockedFile) bool { return f.Name == name })
	if i < 0 {
		return LockedFile{}, false
	}
	return l.Files[i], true
}

// Digest names the lock's content.
func (l *Lock) Digest() layers.Digest { return layers.DigestOf(l.encode()) }

func (l *Lock) encode() []byte {
	var b bytes.Buffer
	b.WriteString("# Made by kscratch; it pins every input of the images. Keep it under version control.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// Plain structs of strings and numbers into memory: neither can fail.
	_ = enc.Encode(l)
	_ = enc.Close()
	return b.Bytes()
}

// WriteLock writes l to path, whole or not at all.
func WriteLock(path string, l *Lock) error {
	return writeFile(path, l.encode())
}

// ReadLock reads a lock file. A missing one is an error that is fs.ErrNotExist.
func ReadLock(path string) (*Lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading lock: %w", err)
	}
	return ParseLock(path, b)
}

// ParseLock reads a lock from b; path stands in messages.
func ParseLock(path string, b []byte) (*Lock, error) {
	l := &Lock{}
	// The version first: another one may have other fields.
	if err := yaml.Unmarshal(b, &struct {
		Version *int `yaml:"lockVersion"`
	}{&l.Version}); err != nil {
		return nil, fmt.Errorf("reading lock %s: %w; make it anew with `kscratch lock`", path, err)
	}
	if l.Version != lockVersion {
		return nil, fmt.Errorf("reading lock %s: version %d, this kscratch knows %d; make it anew with `kscratch lock`", path, l.Version, lockVersion)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(l); err != nil {
		return nil, fmt.Errorf("reading lock %s: %w; make it anew with `kscratch lock`", path, err)
	}
	return l, l.check(path)
}

func (l *Lock) check(path string) error {
	bad := func(what string, err error) error {
		return fmt.Errorf("reading lock %s: %s: %w; make it anew with `kscratch lock`", path, what, err)
	}
	for _, f := range l.Inputs.Files {
		if err := f.Digest.Check(); err != nil {
			return bad("file "+f.Path, err)
		}
	}
	for _, p := range l.Packages {
		if err := p.Digest.Check(); err != nil {
			return bad("package "+p.Name, err)
		}
	}
	for _, f := range l.Files {
		if err := f.Digest.Check(); err != nil {
			return bad("file "+f.Name, err)
		}
	}
	for _, im := range l.Images {
		if err := im.Digest.Check(); err != nil {
			return bad("image "+im.Name, err)
		}
		for _, p := range im.Packages {
			if err := p.Digest.Check(); err != nil {
				return bad("image "+im.Name+": package "+p.Name, err)
			}
		}
	}
	if l.Time.IsZero() {
		return bad("time", errors.New("is missing"))
	}
	return nil
}

// writeFile writes a file whole or not at all: under a temporary name in the
// same directory, synced, then renamed.
func writeFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return &OutputError{path, err}
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = &OutputError{path, err}
		}
	}()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(fs.FileMode(0o644)), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
