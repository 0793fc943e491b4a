package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers"
)

// recipe is what an image says it was built from.
type recipe struct {
	Spec  *builder.Spec
	Lock  *builder.Lock
	Files map[string]record.File // that the cluster file names
}

func recipeOf(i *inspect.Image) (recipe, error) {
	var r recipe
	b, err := i.Initrd.ReadFile(record.SpecPath)
	if err != nil {
		return r, err
	}
	if r.Spec, err = builder.Parse("/"+record.SpecPath, b); err != nil {
		return r, err
	}
	if b, err = i.Initrd.ReadFile(record.LockPath); err != nil {
		return r, fmt.Errorf("%w: the image was built by a kscratch that recorded no lock", err)
	}
	if r.Lock, err = builder.ParseLock("/"+record.LockPath, b); err != nil {
		return r, err
	}
	if b, err = i.Initrd.ReadFile(record.FilesPath); err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r.Files); err != nil {
		return r, fmt.Errorf("reading /%s of the initrd: %w", record.FilesPath, err)
	}
	return r, nil
}

// Rebuild builds the image anew in a directory of its own below the directory
// tmp, and compares. What the image lacks, because it is secret, comes from
// where o says: with o.PKI nil, the certificates and keys are those that the
// image gives to its nodes, and so are the passwords of registries. Then all
// but these very secrets is proven.
func Rebuild(ctx context.Context, i *inspect.Image, tmp string, o builder.Options) (_ Comparison, err error) {
	r, err := recipeOf(i)
	if err != nil {
		return Comparison{}, &builder.InputError{What: "reading the recipe of " + i.Name, Tampered: true, Err: err}
	}
	role := builder.Role(i.Build.Role)
	from := "the image"
	if o.PKI == nil {
		set, err := ignition.RecoverPKI(ignition.Role(role), ignition.Security(r.Spec.Security), first(i))
		if err != nil {
			return Comparison{}, &builder.InputError{What: "reading the secrets of " + i.Name, Err: err}
		}
		o.PKI = &set
	} else {
		from = "the PKI given"
		if err := samePKI(*o.PKI, i.Build.PKI); err != nil {
			return Comparison{}, err
		}
	}
	o.ReadFile = r.reader(i, o.ReadFile)
	dir, err := os.MkdirTemp(tmp, "kscratch-verify-")
	if err != nil {
		return Comparison{}, &builder.OutputError{Path: tmp, Err: err}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.Includes = filepath.Join(dir, "includes")
	if err := r.unpack(o.Includes); err != nil {
		return Comparison{}, err
	}
	raw, err := builder.Rebuild(ctx, r.Spec, r.Lock, role, dir, o)
	if err != nil {
		return Comparison{}, err
	}
	again, err := inspect.Open(ctx, raw, dir)
	if err != nil {
		return Comparison{}, err
	}
	defer again.Close()
	c, err := Compare(ctx, i, again)
	c.Secrets = from
	return c, err
}

// unpack writes the recorded files that lie below the cluster file's directory
// to dir, where Butane files find what they include. The image may be anybody's:
// nothing is written outside of dir.
func (r recipe) unpack(dir string) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return &builder.OutputError{Path: dir, Err: err}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return &builder.OutputError{Path: dir, Err: err}
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for name, f := range r.Files {
		if !filepath.IsLocal(name) {
			continue
		}
		err := root.MkdirAll(filepath.Dir(name), 0o700)
		switch {
		case err != nil:
		case f.Link != "":
			err = root.Symlink(f.Link, name)
		case f.Exec:
			err = root.WriteFile(name, f.Content, 0o700)
		default:
			err = root.WriteFile(name, f.Content, 0o600)
		}
		if err != nil {
			return &builder.OutputError{Path: filepath.Join(dir, name), Err: err}
		}
	}
	return nil
}

func samePKI(s pki.Set, want layers.Digest) error {
	got, err := s.Digest()
	if err != nil {
		return err
	}
	if layers.Digest(got) != want {
		return &builder.InputError{What: "reading the PKI", Tampered: true, Err: fmt.Errorf(
			"it has the digest %s, the image was built with %s; give the directory as it was then, or none", got, want)}
	}
	return nil
}

// first reads what the first boot writes at a path.
func first(i *inspect.Image) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) { return i.Config.ReadFile(path[1:]) }
}

// reader returns a reader of the files that the cluster file names: first what
// the image has of them.
func (r recipe) reader(i *inspect.Image, other func(string) ([]byte, error)) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if f, ok := r.Files[name]; ok {
			return f.Content, nil
		}
		if other != nil {
			return other(name)
		}
		all := r.Spec.Docker.Registries
		at := slices.IndexFunc(all, func(r builder.Registry) bool { return r.PasswordFile == name })
		if at < 0 {
			return nil, fmt.Errorf("reading %s: the image has no such file", name)
		}
		password, err := ignition.RecoverPassword(all[at].Host, first(i))
		return []byte(password), err
	}
}
