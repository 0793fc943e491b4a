package builder_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// snapshots serves an archive of snapshots, laid out as Debian's, over HTTP. It
// answers for a moment with a redirect to the snapshot that it has.
func snapshots(t *testing.T, dir string, asked *[]string) string {
	t.Helper()
	const at = "20260101T120000Z"
	root := t.TempDir()
	for _, a := range []string{"debian", "debian-security"} {
		must(t, os.MkdirAll(filepath.Join(root, "archive", a), 0o755))
		must(t, os.CopyFS(filepath.Join(root, "archive", a, at), os.DirFS(filepath.Join(dir, a))))
	}
	files := http.FileServerFS(os.DirFS(root))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 4)
		if len(p) == 4 && p[2] != at && p[2] > at {
			*asked = append(*asked, p[2])
			http.Redirect(w, r, "/"+p[0]+"/"+p[1]+"/"+at+"/"+p[3], http.StatusFound)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestSnapshot builds with a package that has left the mirror.
func TestSnapshot(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	var asked []string
	url := snapshots(t, p.options.Dir, &asked)
	deb := "debian/pool/main/b/bash/bash_1.0-1_amd64.deb"
	must(t, os.Remove(deb))
	for _, tt := range []struct {
		name string
		set  func(*project)
		err  string
	}{
		{"none", func(*project) {}, "name an archive of Debian snapshots with base.snapshot in the cluster file or the environment variable KSCRATCH_SNAPSHOT"},
		{"cluster file", func(p *project) { p.spec.Base.Snapshot = url }, ""},
		{"environment", func(p *project) { p.options.Env = []string{"KSCRATCH_SNAPSHOT=" + url + "/"} }, ""},
		{"not there", func(p *project) { p.spec.Base.Snapshot = url + "/elsewhere" }, "the mirror has it no more, and the archive of snapshots not either"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := p
			spec := *p.spec
			q.spec, q.options.Store = &spec, emptyStore(t)
			tt.set(&q)
			// Where a package may be had does not change what is pinned.
			if _, ok, err := builder.Refresh(q.spec, l, q.options); err != nil || !ok {
				t.Errorf("the lock is to be made anew: %v", err)
			}
			asked = nil
			_, err := builder.Build(t.Context(), q.spec, l, builder.Master, q.options)
			if tt.err == "" {
				must(t, err)
				if d := cmp.Diff([]string{"20260102T150405Z"}, asked); d != "" {
					t.Errorf("moments asked for, -want +got:\n%s", d)
				}
				return
			}
			var input *builder.InputError
			if !errors.As(err, &input) || input.Tampered || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "bash=1.0-1") {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
	t.Run("altered", func(t *testing.T) {
		p.spec.Base.Snapshot, p.options.Store = url, emptyStore(t)
		for i, lp := range l.Packages {
			if lp.Name == "bash" {
				l.Packages[i].Digest = layers.DigestOf(nil)
			}
		}
		_, err := builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
		var mismatch *cache.MismatchError
		if !errors.As(err, &mismatch) {
			t.Errorf("got %v", err)
		}
	})
}

// newArchive writes the archive of a world anew, with other versions of some
// packages and not the old ones.
func newArchive(t *testing.T, versions map[string]string) {
	t.Helper()
	debs, err := fakeworld.Debs()
	must(t, err)
	for i, d := range debs {
		if v := versions[d.Name]; v != "" {
			debs[i].Version = v
		}
	}
	must(t, os.RemoveAll("debian"))
	must(t, os.RemoveAll("debian-security"))
	_, err = aptfake.Write(".", debs...)
	must(t, err)
}

// TestUpdateKeepsWhatIsGone: what is not named stays as it is, though the
// mirror has it no more, and the lock remembers when it was there.
func TestUpdateKeepsWhatIsGone(t *testing.T) {
	p := newProject(t)
	old := p.lock(t)
	old.Time = old.Time.AddDate(0, 0, -1) // the archive has moved on since
	var asked []string
	p.spec.Base.Snapshot = snapshots(t, p.options.Dir, &asked)
	newArchive(t, map[string]string{"bash": "2.0-1", "dash": "2.0-1"})
	p.options.Store = emptyStore(t)
	l, err := builder.Update(t.Context(), p.spec, old, []string{"dash"}, p.options)
	must(t, err)
	want := []builder.LockChange{{Kind: "package", Name: "dash", Old: "1.0-1", New: "2.0-1"}}
	changes := slices.DeleteFunc(builder.Changes(old, l), func(c builder.LockChange) bool { return c.Kind == "suite" })
	if d := cmp.Diff(want, changes); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, lp := range l.Packages {
		if lp.Name == "bash" && !lp.Index.Equal(old.Time) || lp.Name != "bash" && !lp.Index.IsZero() {
			t.Errorf("%s is from an index of %v", lp.Name, lp.Index)
		}
	}
	_, err = builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
	must(t, err)
	wrong, err := builder.CheckLock(t.Context(), p.spec, l, p.options)
	must(t, err)
	if len(wrong) > 0 {
		t.Errorf("the lock does not fit: %q", wrong)
	}
}

// TestUpdateOfNothing: if no package is newer, the lock stays as it is, though
// the archive was signed anew.
func TestUpdateOfNothing(t *testing.T) {
	p := newProject(t)
	old := p.lock(t)
	old.Time = old.Time.AddDate(0, 0, -1)
	old.Suites[0].Date, old.Suites[0].InRelease = old.Time, layers.DigestOf(nil)
	old.Packages[0].Index = old.Time.AddDate(0, 0, -1)
	l, err := builder.Update(t.Context(), p.spec, old, []string{"bash", "dash"}, p.options)
	must(t, err)
	if d := cmp.Diff(old, l); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
