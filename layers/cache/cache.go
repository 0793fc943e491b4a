// Package cache is the content store: everything that kscratch fetches or
// computes, by digest.
//
// A blob is written to a temporary file in the store, hashed on the way,
// synced, compared with the digest that was asked for, and only then renamed
// into place. A reader therefore never sees a torn blob, whatever happens to
// the writer: a full disk, kill -9, a lost connection. Two processes that want
// the same blob at once are serialised by a lock file; the second finds the
// first one's result.
//
//	blobs/sha256/<hex>   content by digest
//	keys/<kind>/<hex>    the digest of what was computed from a key
//	tmp/                 writes under way; leftovers of dead processes are removed
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

// Store is a content store in a directory. It is safe for use by several
// goroutines and several processes at once.
type Store struct{ dir string }

// Open returns the store in dir, which is made if it is missing, and removes
// what writers that are gone have left behind.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening content store %s: %w", dir, err)
	}
	s := &Store{abs}
	for _, d := range []string{"blobs/sha256", "keys", "locks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(abs, d), 0o755); err != nil {
			return nil, fmt.Errorf("opening content store %s: %w", dir, err)
		}
	}
	s.sweep()
	return s, nil
}

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.dir }

// sweep removes temporary files that no living writer holds a lock on.
func (s *Store) sweep() {
	names, _ := filepath.Glob(filepath.Join(s.dir, "tmp", "*"))
	for _, n := range names {
		f, err := os.Open(n)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		// A file so young may be between its creation and its lock.
		if err == nil && time.Since(st.ModTime()) > time.Minute &&
			unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(n)
		}
		f.Close()
	}
}

// Blob is content in the store.
type Blob struct {
	Digest layers.Digest
	Size   int64  // bytes
	Path   string // of the file in the store; never write to it
	Hit    bool   // it was there already
}

// Open opens the blob for reading. The file also offers random access.
func (b Blob) Open() (*os.File, error) { return os.Open(b.Path) }

// ReaderAt opens the blob for random access; it suits [layers.Tar].
func (b Blob) ReaderAt() (layers.ReaderAtCloser, error) { return os.Open(b.Path) }

// ReadCloser opens the blob for reading; it suits [layers.File].
func (b Blob) ReadCloser() (io.ReadCloser, error) { return os.Open(b.Path) }

// Lookup returns the blob with digest d, if the store has it.
func (s *Store) Lookup(d layers.Digest) (Blob, bool) {
	if d.Check() != nil {
		return Blob{}, false
	}
	p := s.blobPath(d)
	st, err := os.Stat(p)
	if err != nil || !st.Mode().IsRegular() {
		return Blob{}, false
	}
	return Blob{Digest: d, Size: st.Size(), Path: p, Hit: true}, true
}

func (s *Store) blobPath(d layers.Digest) string {
	return filepath.Join(s.dir, "blobs", "sha256", d.Hex())
}

// MismatchError says that fetched content is not what was asked for.
type MismatchError struct {
	Want, Got layers.Digest
	Size      int64 // bytes received
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("content has digest %s (%d bytes), want %s", e.Got, e.Size, e.Want)
}

// Fetch returns the blob with digest want; if the store lacks it, fetch writes
// the content. Content with another digest is a *[MismatchError] and is not
// kept.
func (s *Store) Fetch(ctx context.Context, want layers.Digest, fetch func(ctx context.Context, w io.Writer) error) (Blob, error) {
	if err := want.Check(); err != nil {
		return Blob{}, err
	}
	if b, ok := s.Lookup(want); ok {
		return b, nil
	}
	unlock, err := s.lock(ctx, "blob-"+want.Hex())
	if err != nil {
		return Blob{}, err
	}
	defer unlock()
	if b, ok := s.Lookup(want); ok {
		return b, nil
	}
	return s.write(ctx, want, fetch)
}

// Put stores what fill writes, under the digest that it turns out to have.
func (s *Store) Put(ctx context.Context, fill func(ctx context.Context, w io.Writer) error) (Blob, error) {
	return s.write(ctx, "", fill)
}

// Compute returns what was computed for a key; if that is not known yet,
// compute writes it. The kind (a short word such as "untar") and the key
// (every input that the result depends on, the version of the code included)
// together name the result.
func (s *Store) Compute(ctx context.Context, kind, key string, compute func(ctx context.Context, w io.Writer) error) (Blob, error) {
	id := layers.DigestOfParts(kind, key).Hex()
	if b, ok := s.computed(kind, id); ok {
		return b, nil
	}
	unlock, err := s.lock(ctx, kind+"-"+id)
	if err != nil {
		return Blob{}, err
	}
	defer unlock()
	if b, ok := s.computed(kind, id); ok {
		return b, nil
	}
	b, err := s.write(ctx, "", compute)
	if err != nil {
		return Blob{}, err
	}
	return b, s.link(kind, id, b.Digest)
}

// Computed returns what an earlier [Store.Compute] stored for a key.
func (s *Store) Computed(kind, key string) (Blob, bool) {
	return s.computed(kind, layers.DigestOfParts(kind, key).Hex())
}

func (s *Store) computed(kind, id string) (Blob, bool) {
	b, err := os.ReadFile(filepath.Join(s.dir, "keys", kind, id))
	if err != nil {
		return Blob{}, false
	}
	return s.Lookup(layers.Digest(strings.TrimSpace(string(b))))
}

func (s *Store) link(kind, id string, d layers.Digest) error {
	dir := filepath.Join(s.dir, "keys", kind)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("storing key: %w", err)
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "key-")
	if err != nil {
		return fmt.Errorf("storing key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = io.WriteString(f, string(d)+"\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("storing key: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, id)); err != nil {
		return fmt.Errorf("storing key: %w", err)
	}
	return nil
}

func (s *Store) write(ctx context.Context, want layers.Digest, fill func(context.Context, io.Writer) error) (b Blob, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "blob-")
	if err != nil {
		return Blob{}, fmt.Errorf("writing to content store: %w", err)
	}
	defer os.Remove(f.Name())
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return Blob{}, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
	}
	h := sha256.New()
	n := &counter{w: io.MultiWriter(f, h)}
	err = fill(ctx, n)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Chmod(0o444), f.Close()); err != nil {
		return Blob{}, err
	}
	got := layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	if want != "" && got != want {
		return Blob{}, &MismatchError{Want: want, Got: got, Size: n.n}
	}
	p := s.blobPath(got)
	if err := os.Rename(f.Name(), p); err != nil {
		return Blob{}, fmt.Errorf("writing to content store: %w", err)
	}
	return Blob{Digest: got, Size: n.n, Path: p}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// lock takes the lock with a name, waiting for its holder while ctx lasts.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking content store: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking content store: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Verify hashes a blob and reports a *[MismatchError] if it has been altered.
// It removes an altered blob, so that the next use fetches it again.
func (s *Store) Verify(d layers.Digest) error {
	b, ok := s.Lookup(d)
	if !ok {
		return fmt.Errorf("verifying %s: %w", d, fs.ErrNotExist)
	}
	f, err := b.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("verifying %s: %w", d, err)
	}
	got := layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	if got == d {
		return nil
	}
	return errors.Join(&MismatchError{Want: d, Got: got, Size: n}, os.Remove(b.Path))
}
