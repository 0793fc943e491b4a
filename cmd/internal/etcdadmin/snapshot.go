package etcdadmin

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
	"syscall"
)

// Taken is a snapshot that was taken.
type Taken struct {
	Endpoint string // that it is of
	Version  string // of etcd
	Size     int64  // in bytes
}

// Snapshot writes etcd's data to a file, which must not exist: it is streamed
// to a temporary file beside, its digest verified, and then given its name.
func (c Cluster) Snapshot(ctx context.Context, file string) (t Taken, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("taking a snapshot: %w", err)
		}
	}()
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return t, errors.Join(fmt.Errorf("%s is there already: snapshots are never overwritten; choose another name", file), err)
	}
	if t.Endpoint, err = c.first(ctx); err != nil {
		return t, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return t, err
	}
	defer func() {
		if e := os.Remove(tmp.Name()); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	err = c.download(ctx, &t, tmp)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = Verify(tmp.Name())
	}
	if err == nil {
		err = publish(tmp.Name(), file)
	}
	return t, err
}

// publish gives a file its name, durably, unless there is one of that name.
func publish(tmp, file string) error {
	err := os.Link(tmp, file) // unlike a rename, it never overwrites
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = takeName(tmp, file)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	if err = dir.Sync(); errors.Is(err, syscall.EINVAL) {
		err = nil // fsync(2): a file system that cannot
	}
	return errors.Join(err, dir.Close())
}

// takeName is for file systems without hard links, such as FAT and some of a
// network: it takes the name with an empty file, and renames over that.
func takeName(tmp, file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	if err := os.Rename(tmp, file); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// first returns the first endpoint that answers with a majority behind it.
func (c Cluster) first(ctx context.Context) (string, error) {
	var troubles []error
	for _, e := range c.endpoints() {
		_, err := c.askOne(ctx, e)
		if err == nil {
			return e, nil
		}
		troubles = append(troubles, fmt.Errorf("%s: %w", e, err))
	}
	return "", fmt.Errorf("no member of etcd answers with a majority behind it: %w", errors.Join(troubles...))
}

func (c Cluster) download(ctx context.Context, t *Taken, to io.Writer) (err error) {
	client, err := c.connect(t.Endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	r, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return err
	}
	t.Version = r.Version
	t.Size, err = io.Copy(to, r.Snapshot)
	return errors.Join(err, r.Snapshot.Close())
}

// Verify reports whether a file is a whole snapshot: a database, which is a
// multiple of 512 bytes long, and its SHA-256.
func Verify(file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < 512+sha256.Size || st.Size()%512 != sha256.Size {
		return fmt.Errorf("%s is no snapshot of etcd, or not a whole one: it has %d bytes", file, st.Size())
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, st.Size()-sha256.Size); err != nil {
		return err
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, sum); err != nil {
		return err
	}
	if got := h.Sum(nil); string(got) != string(sum) {
		return fmt.Errorf("%s is damaged: its SHA-256 is %s, and it says %s", file, hex.EncodeToString(got), hex.EncodeToString(sum))
	}
	return nil
}
