package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
)

// Names below etcd's data directory. Etcd's own is the first; of the other it
// says in its log that it does not know it. Both are on one file system, which
// renames need, and a disk that is lost is lost as a whole.
const (
	etcdData  = "member"
	ours      = "kscratch"
	stateFile = ours + "/state.json"
)

// saved is what is kept in stateFile.
type saved struct {
	Member  formation.State `json:"member"`
	Held    string          `json:"held,omitempty"`    // ID of a restore for which etcd stands still
	Restore *restore        `json:"restore,omitempty"` // that has been decided, but perhaps not ended
}

// restore is data that takes the place of a member's own.
type restore struct {
	Name   string           `json:"name"` // of the member
	Record formation.Record `json:"record"`
}

// disk is the data directory of a member.
type disk struct {
	root *os.Root // of the data directory

	mu  sync.Mutex // guards the below
	now saved      // what is in stateFile
}

// openDisk opens the data directory, made if need be, and reads the state.
func openDisk(root *os.Root, dir string) (*disk, error) {
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making etcd's data directory: %w", err)
	}
	data, err := root.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening etcd's data directory: %w", err)
	}
	d := &disk{root: data}
	if err := data.MkdirAll(ours, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("making %s in etcd's data directory: %w", ours, err), data.Close())
	}
	b, err := data.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &d.now)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the state of this member of etcd, %s in %s: %w; move the file away if it is damaged: a member that has data starts with that", stateFile, dir, err), data.Close())
	}
	return d, nil
}

func (d *disk) close() { _ = d.root.Close() } // only reads are left

// saved returns what is on the disk.
func (d *disk) saved() saved {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// keep makes s what is on the disk.
func (d *disk) keep(s saved) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, err := json.Marshal(d.now)
	if err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if string(was) == string(b) {
		return nil
	}
	if err := atomicfile.Write(d.root, stateFile, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keeping the state of this member of etcd: %w", err)
	}
	d.now = s
	return nil
}

// hasData reports whether etcd has a log here, without which it has voted for
// nothing. Etcd makes the directory whole, by a rename.
func (d *disk) hasData() (bool, error) {
	entries, err := fs.ReadDir(d.root.FS(), etcdData+"/wal")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for etcd's data: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".wal") {
			return true, nil
		}
	}
	return false, nil
}

// setAside renames etcd's data and forgets the state. It returns where the data
// is, from the data directory. The power may go at any time.
func (d *disk) setAside() (string, error) {
	to, err := d.moveAside()
	if err != nil {
		return "", fmt.Errorf("setting etcd's data aside: %w", err)
	}
	return to, d.keep(saved{})
}

// moveAside renames etcd's data, or what is left of it, if there is any. It
// returns where that is, from the data directory; empty if there was nothing.
func (d *disk) moveAside() (string, error) {
	if _, err := d.root.Lstat(etcdData); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	to, err := d.freeName()
	if err != nil {
		return "", err
	}
	return to, d.move(etcdData, to)
}

// freeName returns a name for data that is set aside.
func (d *disk) freeName() (string, error) {
	for i := 1; ; i++ {
		name := ours + "/aside-" + strconv.Itoa(i)
		if _, err := d.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

// move renames a directory and makes that durable.
func (d *disk) move(from, to string) error {
	if err := d.root.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(atomicfile.Sync(d.root, path.Dir(from)), atomicfile.Sync(d.root, path.Dir(to)))
}

// staged is where data is until it takes the place of the member's own. What
// has a cluster's ID there is whole.
func staged(id string) string { return ours + "/restore-" + id }

// In the place of an ID, for data that is not whole.
const (
	incoming = "incoming"
	outgoing = "outgoing"
)

// discard removes data that was staged, if it is there.
func (d *disk) discard(name string) error {
	if err := d.root.RemoveAll(staged(outgoing)); err != nil {
		return err
	}
	if err := d.move(name, staged(outgoing)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.root.RemoveAll(staged(outgoing))
}

// clean removes all data that was staged, before that of restore id is. It
// refuses if other data has been decided on, or if etcd stands still for it,
// unless that is what the new data comes instead of.
func (d *disk) clean(id, instead string) error {
	s := d.saved()
	if s.Restore != nil {
		return errors.New("taking data: a restore has been decided but has not ended: it is tried again by itself; this master's console says what is in the way")
	}
	if s.Held != "" && s.Held != id && s.Held != instead {
		if ok, err := d.isStaged(s.Held); err != nil || ok {
			return errors.Join(fmt.Errorf("taking data: another restore (%.12s) is at work on this member: wait until it has ended, then run this again", s.Held), err)
		}
	}
	entries, err := fs.ReadDir(d.root.FS(), ours)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(ours+"/"+e.Name(), staged("")) {
			if err := d.discard(ours + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// isStaged reports whether there is data of a restore.
func (d *disk) isStaged(id string) (bool, error) {
	_, err := d.root.Lstat(staged(id) + "/" + etcdData)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// hold makes etcd stand still for data that was staged, in the place of other
// data if there was some.
func (d *disk) hold(id string) error {
	if ok, err := d.isStaged(id); err != nil || !ok {
		return errors.Join(errors.New("stopping etcd: the data for this restore is not here: another one has taken its place"), err)
	}
	s := d.saved()
	s.Held = id
	return d.keep(s)
}

// commit decides that data which was staged takes the place of the member's
// own, whose etcd has stopped.
func (d *disk) commit(name string, r formation.Record) error {
	s := d.saved()
	if s.Held != r.ID() {
		return fmt.Errorf("putting restored data in place: this member is not held for %.12s", r.ID())
	}
	if _, err := d.root.Stat(staged(r.ID()) + "/" + etcdData); err != nil {
		return fmt.Errorf("putting restored data in place: %w", err)
	}
	s.Restore = &restore{Name: name, Record: r}
	if err := d.keep(s); err != nil {
		return err
	}
	return d.finishRestore()
}

// finishRestore ends a restore that was decided, however far it had come when
// the power went.
func (d *disk) finishRestore() error {
	r := d.saved().Restore
	if r == nil {
		return nil
	}
	from := staged(r.Record.ID())
	ok, err := d.isStaged(r.Record.ID())
	if ok {
		err = d.replaceData(from + "/" + etcdData)
	}
	if err != nil {
		return fmt.Errorf("putting restored data in place: %w", err)
	}
	err = d.keep(saved{Member: formation.State{Nonce: r.Record.Members[r.Name], Accepted: &r.Record, Record: &r.Record, HadData: true}})
	if err != nil {
		return err
	}
	return d.root.RemoveAll(from)
}

// replaceData sets the data aside, if there is any, and renames other data to
// its place.
func (d *disk) replaceData(from string) error {
	if _, err := d.moveAside(); err != nil {
		return err
	}
	return d.move(from, etcdData)
}

// release forgets data that was staged, and the hold for it.
func (d *disk) release(id string) error {
	s := d.saved()
	if s.Restore != nil {
		return errors.New("releasing a restore: it has been decided")
	}
	if s.Held == id {
		s.Held = ""
		if err := d.keep(s); err != nil {
			return err
		}
	}
	return d.discard(staged(id))
}
