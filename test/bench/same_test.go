//go:build bench || net

package bench

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// odds is a place to build in: none of what it has may show in an image.
type odds struct {
	name  string
	umask string
	env   []string
	uid   uint32 // with this as the group, too; needs root
	path  string // below a new directory
	cold  bool   // nothing derived is in the content store
}

// places are the places to build in. The first and the last one are what
// `make test` has time for.
var places = []odds{
	{name: "as it is", umask: "022", path: "a"},
	{name: "as it is, nothing derived", umask: "022", path: "a", cold: true},
	{name: "a mask that hides all", umask: "077", path: "b"},
	{name: "a mask that hides nothing", umask: "000", path: "c"},
	{name: "another time zone and language", umask: "022", path: "d",
		env: []string{"TZ=Pacific/Chatham", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8"}},
	{name: "a long path with spaces", umask: "022", path: "some where/" + strings.Repeat("long/", 30) + "é"},
	{name: "one processor", umask: "022", path: "e", env: []string{"GOMAXPROCS=1"}, cold: true},
	{name: "two processors, little memory", umask: "022", path: "f", env: []string{"GOMAXPROCS=2", "GOMEMLIMIT=64MiB", "GOGC=10"}, cold: true},
	{name: "another user", umask: "022", path: "g", uid: 65534},
	{name: "another user, and all of these", umask: "077", path: "some where/else", uid: 65534, cold: true,
		env: []string{"GOMAXPROCS=1", "TZ=Pacific/Chatham", "LC_ALL=tr_TR.UTF-8", "HOME=/nonexistent"}},
}

// TestSameBytes builds one lock in places that differ in all that must not
// matter. Downloads come from the user's content store.
func TestSameBytes(t *testing.T) {
	b := newBench(t)
	all := places
	if runs == 1 {
		all = []odds{places[0], places[len(places)-1]}
	}
	want := ""
	for _, p := range all {
		if p.uid != 0 && os.Geteuid() != 0 {
			t.Fatalf("%s: only root can build as another user", p.name)
		}
		got := b.elsewhere(t, p)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s: the files are\n%swant\n%s", p.name, got, want)
		}
	}
	if want == "" {
		t.Fatal("no image was built")
	}
	t.Logf("%d places:\n%s", len(all), want)
}

// elsewhere builds a master in a place with a content store of its own, and
// returns what the program printed: the digests of disk and bill.
func (b *bench) elsewhere(t *testing.T, p odds) string {
	t.Helper()
	// Not beside the user's store: another user could not get there.
	base, err := os.MkdirTemp("", "kscratch-place-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	must(t, os.Chmod(base, 0o755))
	dir, store, copied := filepath.Join(base, p.path), filepath.Join(base, "store"), filepath.Join(base, "kscratch")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.MkdirAll(store, 0o755))
	b.copyTo(t, dir, p.uid)
	b.linkTo(t, store, p)
	path, err := filepath.Abs(*program)
	must(t, err)
	must(t, copyFile(copied, path, 0o755))
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `umask "$1"; shift; exec "$@"`, "sh", p.umask,
		copied, "--cache", store, "image", "build", "--role", "master", "--locked", "--sbom")
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=/nonexistent"}, p.env...)
	if p.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.uid}}
	}
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", p.name, err, problems.String())
	}
	// The manifest has the memory that the build took.
	disk, _, _ := strings.Cut(out.String(), "out/master.manifest.json")
	must(t, os.RemoveAll(base))
	return disk
}

// copyTo copies cluster file, lock and PKI for a user.
func (b *bench) copyTo(t *testing.T, dir string, uid uint32) {
	t.Helper()
	must(t, os.CopyFS(filepath.Join(dir, "pki"), os.DirFS(filepath.Join(b.dir, "pki"))))
	for _, name := range []string{"cluster.yaml", "kscratch.lock"} {
		must(t, copyFile(filepath.Join(dir, name), filepath.Join(b.dir, name), 0o644))
	}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return errors.Join(os.Chmod(p, mode), os.Lchown(p, int(uid), int(uid)))
	}))
}

// linkTo makes a content store of links to another one's blobs, for a user.
// The blobs stay whose they are: nobody writes to them.
func (b *bench) linkTo(t *testing.T, store string, p odds) {
	t.Helper()
	must(t, filepath.WalkDir(b.store, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(b.store, from)
		if err != nil {
			return err
		}
		to := filepath.Join(store, name)
		top, kind, _ := strings.Cut(name, string(filepath.Separator))
		switch {
		case d.IsDir() && p.cold && top == "keys" && isDerived(kind):
			return filepath.SkipDir
		case d.IsDir():
			return errors.Join(os.MkdirAll(to, 0o755), os.Chown(to, int(p.uid), int(p.uid)))
		case top == "tmp" || top == "locks":
			return nil
		}
		if err := os.Link(from, to); !errors.Is(err, syscall.EXDEV) {
			return err
		}
		return copyFile(to, from, 0o644)
	}))
}

func isDerived(kind string) bool { return slices.Contains(derived, kind) }

func copyFile(to, from string, mode fs.FileMode) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
