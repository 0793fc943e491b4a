package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Paths below docker's data root, and in a baked store.
const (
	contentDir   = "image/overlay2/imagedb/content/sha256"
	imageMetaDir = "image/overlay2/imagedb/metadata/sha256"
	layerDir     = "image/overlay2/layerdb/sha256"
	mountDir     = "image/overlay2/layerdb/mounts"
	namesFile    = "image/overlay2/repositories.json"
	overlayDir   = "overlay2"
	linkDir      = "overlay2/l"

	own        = "kscratch" // ours; docker ignores it
	tmp        = own + "/tmp"
	recordFile = own + "/images.json"
	brokenFile = own + "/repositories.json.broken"
)

// dirs are made with the permissions that docker gives them.
var dirs = []struct {
	path string
	perm fs.FileMode
}{
	{contentDir, 0o700}, {imageMetaDir, 0o700}, {layerDir, 0o700},
	{overlayDir, 0o710}, {linkDir, 0o700}, {own, 0o700},
}

// root is docker's data root. No write leaves it, whatever links are in it.
type root struct {
	*os.Root
	log  *slog.Logger
	lock *os.File
	n    int  // temporary names given out
	work bool // something was changed

	step func() // for tests: called before each change; may be nil
}

// Close also gives up the lock.
func (r *root) Close() error {
	var err error
	if r.lock != nil {
		err = r.lock.Close()
	}
	return errors.Join(err, r.Root.Close())
}

// temp returns a new name; whoever asks for one is going to change something.
func (r *root) temp() string {
	r.work = true
	r.n++
	r.next()
	return path.Join(tmp, strconv.Itoa(r.n))
}

func (r *root) next() {
	if r.step != nil {
		r.step()
	}
}

// sync writes everything that was changed to the disk.
func (r *root) sync() error {
	if !r.work {
		return nil
	}
	if err := unix.Syncfs(int(r.lock.Fd())); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return nil
}

// same says whether a file has a content.
func (r *root) same(name string, want []byte) bool {
	got, err := r.ReadFile(name)
	return err == nil && bytes.Equal(got, want)
}

// put writes a file: to a temporary name, synced, renamed.
func (r *root) put(name string, perm fs.FileMode, b []byte) error {
	t := r.temp()
	f, err := r.OpenFile(t, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return r.replace(t, name)
}

// replace renames what was prepared to its place. What is there is moved away
// first where a rename would not replace it.
func (r *root) replace(from, to string) error {
	st, err := r.Lstat(from)
	if err != nil {
		return fmt.Errorf("putting %s in place: %w", to, err)
	}
	if old, err := r.Lstat(to); err == nil && (old.IsDir() || st.IsDir()) {
		if err := r.drop(to); err != nil {
			return err
		}
	}
	r.next()
	if err := r.Rename(from, to); err != nil {
		return fmt.Errorf("putting %s in place: %w", to, err)
	}
	return nil
}

// drop removes a file or a tree. It vanishes at once from its place, so that
// no half of it is ever seen; links in it are not followed.
func (r *root) drop(name string) error {
	if _, err := r.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	t := r.temp()
	if err := r.Rename(name, t); err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	r.next()
	if err := r.RemoveAll(t); err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

// names returns the sorted entries of a directory, none if it is missing.
func (r *root) names(dir string) ([]string, error) {
	es, err := fs.ReadDir(r.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out, nil
}

// record is what Install has put there and answers for.
type record struct {
	Images []string `json:"images"` // IDs, without the algorithm
}

func (a record) and(b record) record {
	out := slices.Concat(a.Images, b.Images)
	slices.Sort(out)
	return record{slices.Compact(out)}
}

func (r *root) readRecord() (record, error) {
	b, err := r.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	var out record
	if err := json.Unmarshal(b, &out); err != nil {
		r.log.Warn("the record of baked images is damaged; going by what is there", "err", err)
		return record{}, nil
	}
	return out, nil
}

func (r *root) writeRecord(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if b = append(b, '\n'); r.same(recordFile, b) {
		return nil
	}
	return r.put(recordFile, 0o600, b)
}
