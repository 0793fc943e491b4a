package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// New makes a PKI in dir, which must not exist or be empty; what is there is
// never overwritten. The directory appears whole or not at all.
func New(dir string, o Options) error {
	s, err := generate(o)
	if err != nil {
		return fmt.Errorf("making a PKI: %w", err)
	}
	if err := place(dir, s); err != nil {
		return fmt.Errorf("making a PKI in %s: %w", dir, err)
	}
	return nil
}

// generate makes every file of a PKI in memory.
func generate(o Options) (Set, error) {
	if err := o.check(); err != nil {
		return Set{}, err
	}
	s := Set{map[Name][]byte{}}
	for _, a := range authorities {
		if err := s.add(o, a.pair, func(key *ecdsa.PrivateKey) ([]byte, error) { return a.issue(o, key) }); err != nil {
			return Set{}, err
		}
	}
	for _, l := range leaves {
		if err := s.add(o, l.pair, func(key *ecdsa.PrivateKey) ([]byte, error) { return s.reissue(o, l, key) }); err != nil {
			return Set{}, err
		}
	}
	if err := s.add(o, pair{ServiceAccountPub, ServiceAccountKey}, encodePublic); err != nil {
		return Set{}, err
	}
	return s.withKubeconfig(o)
}

// add draws a key, and stores it and what public makes of it.
func (s Set) add(o Options, p pair, public func(*ecdsa.PrivateKey) ([]byte, error)) error {
	if o.Rand == nil {
		return fmt.Errorf("the source of random bytes is missing")
	}
	key, err := newKey(o.Rand)
	if err != nil {
		return fmt.Errorf("making %s: %w", p.key, err)
	}
	if s.files[p.cert], err = public(key); err != nil {
		return fmt.Errorf("making %s: %w", p.cert, err)
	}
	s.files[p.key], err = encodeKey(key)
	return err
}

// reissue signs l's certificate for key with the authority in s.
func (s Set) reissue(o Options, l leaf, key *ecdsa.PrivateKey) ([]byte, error) {
	ca, caKey, err := s.pair(l.ca.pair)
	if err != nil {
		return nil, err
	}
	return l.issue(o, LeafLife, ca, caKey, key)
}

// pair parses a certificate and its key.
func (s Set) pair(p pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert, err := parseCert(s.files[p.cert])
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", p.cert, err)
	}
	key, err := parseKey(s.files[p.key])
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", p.key, err)
	}
	return cert, key, nil
}

func (s Set) withKubeconfig(o Options) (Set, error) {
	b, err := s.Kubeconfig(o.Cluster, o.server(), "admin", AdminCert, AdminKey)
	if err != nil {
		return Set{}, err
	}
	s.files[adminKubeconfig] = b
	return s, nil
}

// place writes s beside dir and renames it to dir.
func place(dir string, s Set) (err error) {
	dir = filepath.Clean(dir)
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("directory is not empty (it holds %s): keys are never overwritten; move it away first", entries[0].Name())
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*") // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := writeAll(tmp, s); err != nil {
		return err
	}
	return os.Rename(tmp, dir) // fails if dir has got entries meanwhile
}

func writeAll(dir string, s Set) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, n := range s.Names() {
		if d := path.Dir(string(n)); d != "." {
			if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if err := write(root, string(n), n.mode(), s.files[n]); err != nil {
			return err
		}
	}
	return nil
}

func (n Name) mode() fs.FileMode {
	if n.Secret() {
		return 0o600
	}
	return 0o644
}

// write creates a file that must not exist, with exactly the given mode, and
// waits until it is on the disk: a lost key is a lost cluster.
func write(root *os.Root, name string, mode fs.FileMode, b []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// replace writes a file beside the one of that name and renames it over it.
func replace(root *os.Root, n Name, b []byte) error {
	tmp := string(n) + ".new"
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(root, tmp, n.mode(), b); err != nil {
		return err
	}
	return root.Rename(tmp, string(n))
}

// Load reads every file of the PKI in dir except admin.kubeconfig. It does
// not judge them: [Check] does.
func Load(dir string) (Set, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Set{}, fmt.Errorf("reading the PKI: %w; `kscratch init` makes one", err)
	}
	if err != nil {
		return Set{}, fmt.Errorf("reading the PKI: %w", err)
	}
	defer root.Close()
	s := Set{map[Name][]byte{}}
	for _, n := range Names() {
		if s.files[n], err = root.ReadFile(string(n)); err != nil {
			return Set{}, fmt.Errorf("reading the PKI in %s: %w", dir, err)
		}
	}
	return s, nil
}

// Ensure issues the API server's certificate and etcd's anew, for the keys that
// are there, when they lack a name or address that o asks for, makes the pairs that an
// older kscratch did not know, and returns the files that it replaced or made.
// Names that o no longer asks for stay until then.
func Ensure(dir string, o Options) ([]Name, error) {
	made, err := makeMissing(dir, o)
	if err != nil {
		return nil, err
	}
	replaced, err := reissueStale(dir, o)
	return append(made, replaced...), err
}

// makeMissing makes the leaves of which neither half is there: a lost half is
// for the user to restore.
func makeMissing(dir string, o Options) ([]Name, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the PKI: %w", err)
	}
	defer root.Close()
	var made []Name
	for _, l := range leaves {
		_, errCert := root.Lstat(string(l.cert))
		_, errKey := root.Lstat(string(l.key))
		if !errors.Is(errCert, fs.ErrNotExist) || !errors.Is(errKey, fs.ErrNotExist) {
			continue
		}
		s := Set{map[Name][]byte{}}
		for _, n := range []Name{l.ca.cert, l.ca.key} {
			if s.files[n], err = root.ReadFile(string(n)); err != nil {
				return nil, fmt.Errorf("reading the PKI in %s: %w", dir, err)
			}
		}
		if err := s.add(o, l.pair, func(key *ecdsa.PrivateKey) ([]byte, error) { return s.reissue(o, l, key) }); err != nil {
			return nil, err
		}
		for _, n := range []Name{l.key, l.cert} {
			if err := replace(root, n, s.files[n]); err != nil {
				return nil, fmt.Errorf("making %s: %w", filepath.Join(dir, string(n)), err)
			}
		}
		made = append(made, l.cert, l.key)
	}
	return made, nil
}

func reissueStale(dir string, o Options) ([]Name, error) {
	s, err := Load(dir)
	if err != nil {
		return nil, err
	}
	var stale []leaf
	for _, l := range leaves {
		c, err := parseCert(s.files[l.cert])
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, string(l.cert)), err)
		}
		if len(l.missing(o, c)) > 0 {
			stale = append(stale, l)
		}
	}
	return s.renew(dir, o, stale)
}

// Renew issues every certificate anew except the authorities', for the keys
// that are there, and returns the files that it replaced. It rewrites
// admin.kubeconfig too.
func Renew(dir string, o Options) ([]Name, error) {
	s, err := Load(dir)
	if err != nil {
		return nil, err
	}
	return s.renew(dir, o, leaves)
}

// renew replaces the certificates of ls, each at once. All of them are made
// before the first is written.
func (s Set) renew(dir string, o Options, ls []leaf) ([]Name, error) {
	if len(ls) == 0 {
		return nil, nil
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("renewing certificates: %w", err)
	}
	var names []Name
	for _, l := range ls {
		key, err := parseKey(s.files[l.key])
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, string(l.key)), err)
		}
		if s.files[l.cert], err = s.reissue(o, l, key); err != nil {
			return nil, fmt.Errorf("renewing %s: %w", filepath.Join(dir, string(l.cert)), err)
		}
		names = append(names, l.cert)
	}
	if slices.Contains(names, AdminCert) {
		if _, err := s.withKubeconfig(o); err != nil {
			return nil, err
		}
		names = append(names, adminKubeconfig)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("renewing certificates: %w", err)
	}
	defer root.Close()
	slices.Sort(names)
	for _, n := range names {
		if err := replace(root, n, s.files[n]); err != nil {
			return nil, fmt.Errorf("replacing %s: %w", filepath.Join(dir, string(n)), err)
		}
	}
	return names, nil
}
