package builder_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// project is a cluster file in a world of its own, which is the working
// directory of the test.
type project struct {
	spec    *builder.Spec
	options builder.Options
}

// newProject makes a world and its PKI, the same each time. Its disk is
// smaller than a cluster file may ask for, and so faster to hash.
func newProject(t *testing.T, more ...aptfake.Deb) project {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, fakeworld.Write(t.Context(), dir, more...))
	spec, err := builder.Load(fakeworld.ClusterFile, false)
	must(t, err)
	spec.Disk.ESP, spec.Disk.Root = 64, 64
	now := aptfake.Date.AddDate(0, 0, 1)
	_, err = builder.EnsurePKI(spec, dir, now, rand.NewChaCha8([32]byte{}))
	must(t, err)
	store, err := cache.Open(filepath.Join(dir, "cache"))
	must(t, err)
	return project{spec, builder.Options{Dir: dir, Store: store, Now: now}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p project) lock(t *testing.T) *builder.Lock {
	t.Helper()
	l, err := builder.Resolve(t.Context(), p.spec, p.options)
	must(t, err)
	return l
}

func (p project) image(t *testing.T) *builder.Image {
	t.Helper()
	return p.role(t, builder.Master)
}

func (p project) role(t *testing.T, role builder.Role) *builder.Image {
	t.Helper()
	img, err := builder.Build(t.Context(), p.spec, p.lock(t), role, p.options)
	must(t, err)
	return img
}

// pack writes an image into a directory of its own and returns its path.
func (p project) pack(t *testing.T, img *builder.Image) string {
	t.Helper()
	dir := t.TempDir()
	got, err := builder.Pack(t.Context(), img, dir, p.options)
	must(t, err)
	raw := filepath.Join(dir, string(img.Role)+".raw")
	b, err := os.ReadFile(raw)
	must(t, err)
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); string(got[0].Digest) != want {
		t.Errorf("Pack says %s, the file has %s", got[0].Digest, want)
	}
	return raw
}

// What the cluster file tells nodes is in the initrd's own part alone: the
// root, and so its hash, stays.
func TestSpecChangesOnlyTheConfig(t *testing.T) {
	p := newProject(t)
	before := p.image(t)
	a := readDisk(t, p.pack(t, before))
	p.spec.Network.MTU = 1400
	after := p.image(t)
	b := readDisk(t, p.pack(t, after))
	if a.rootHash != b.rootHash || a.rootHash == "" {
		t.Errorf("root hashes %s and %s, want the same", a.rootHash, b.rootHash)
	}
	if before.Version == after.Version {
		t.Errorf("both images have the version %s", before.Version)
	}
	var changed []string
	for name, body := range a.initrd {
		if b.initrd[name] != body {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	want := []string{record.BuildPath, record.SpecPath, "etc/kscratch/image-id", record.LockPath, "usr/lib/ignition/base.d/50-kscratch.ign"}
	if !slices.Equal(changed, want) || len(a.initrd) != len(b.initrd) {
		t.Errorf("the initrds differ in %q, want %q", changed, want)
	}
}

func TestRootTooSmall(t *testing.T) {
	p := newProject(t)
	p.spec.Disk.Root = 1
	dir := t.TempDir()
	_, err := builder.Pack(t.Context(), p.image(t), dir, p.options)
	want := regexp.MustCompile(`^writing master.raw: writing the root: it needs \d+ MiB, and disk.root allows 1; raise disk.root in the cluster file$`)
	if err == nil || !want.MatchString(err.Error()) {
		t.Errorf("got %v, want %s", err, want)
	}
	wantEmpty(t, dir)
}

// Two packages with one file are named, both.
func TestClash(t *testing.T) {
	for _, tt := range []struct{ path, first, want string }{
		{"usr/bin/bash", "bash=1.0-1", "combining the Debian packages: "},
		{"usr/bin/kubelet", "kubernetes=" + builder.Default().Kubernetes.Version, "combining the root: "},
		{"usr/bin/kscratch-node", "kscratch:programs", "combining the root: "},
	} {
		clash := aptfake.Deb{Name: "zz-clash", Files: []layers.File{layers.Regular(tt.path, 0o755, "t", []byte("x"))}}
		p := newProject(t, clash)
		p.spec.Base.Packages = []string{clash.Name}
		_, err := builder.Build(t.Context(), p.spec, p.lock(t), builder.Master, p.options)
		var conflict *layers.Conflict
		if !errors.As(err, &conflict) || conflict.Path != tt.path || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		for _, owner := range []string{tt.first, "zz-clash=1.0-1"} {
			if !strings.Contains(err.Error(), owner) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v does not name %s in one line", tt.path, err, owner)
			}
		}
	}
}

// A build that is interrupted, wherever it is, says so and leaves nothing.
func TestCancel(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	for _, at := range []string{"", "Debian packages", "root", "checksum"} {
		t.Run(at, func(t *testing.T) {
			p.options.Store = emptyStore(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hook := &canceller{at: at, cancel: cancel}
			p.options.Progress = hook
			if at == "" {
				cancel()
			}
			dir := t.TempDir()
			img, err := builder.Build(ctx, p.spec, l, builder.Master, p.options)
			if err == nil {
				_, err = builder.Pack(ctx, img, dir, p.options)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
			if at != "" && !hook.hit {
				t.Errorf("no task is called %q", at)
			}
			wantEmpty(t, dir)
			wantEmpty(t, filepath.Join(p.options.Store.Dir(), "tmp"))
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := builder.Resolve(ctx, p.spec, p.options); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve: got %v, want %v", err, context.Canceled)
	}
}

// canceller cancels once a task has begun.
type canceller struct {
	at     string
	cancel func()
	hit    bool
}

func (c *canceller) Begin(what string, _ int64) builder.Task {
	if what == c.at {
		c.hit = true
		c.cancel()
	}
	return c
}

func (c *canceller) Add(int64) {}
func (c *canceller) End()      {}

func emptyStore(t *testing.T) *cache.Store {
	t.Helper()
	s, err := cache.Open(t.TempDir())
	must(t, err)
	return s
}

// When a write or a read breaks in the middle of an image, no part of it stays.
func TestBrokenMidway(t *testing.T) {
	p := newProject(t)
	whole := p.image(t)
	for _, tt := range []struct {
		name  string
		path  string
		tree  func(*builder.Image) **layers.Tree
		fails error
	}{
		{"root", "usr/bin/kubelet", func(i *builder.Image) **layers.Tree { return &i.Root }, syscall.ENOSPC},
		{"initrd", "usr/lib/systemd/systemd", func(i *builder.Image) **layers.Tree { return &i.Initrd }, syscall.EIO},
		{"config", "etc/kscratch/image-id", func(i *builder.Image) **layers.Tree { return &i.Config }, syscall.EIO},
	} {
		img := *whole
		tree := tt.tree(&img)
		*tree = (*tree).Map(func(f layers.File) layers.File {
			if f.Path == tt.path {
				f.Open = func() (io.ReadCloser, error) { return io.NopCloser(broken{tt.fails}), nil }
			}
			return f
		})
		dir := t.TempDir()
		_, err := builder.Pack(t.Context(), &img, dir, p.options)
		if !errors.Is(err, tt.fails) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: got %v, want %v and the path %s", tt.name, err, tt.fails, tt.path)
		}
		wantEmpty(t, dir)
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// A second build waits for a directory, and gives up when it is told to; what
// a dead one left is removed, and nothing else.
func TestOutputDirectory(t *testing.T) {
	p := newProject(t)
	img := p.image(t)
	dir := t.TempDir()
	for _, name := range []string{".master.raw.123", ".master.manifest.json.9", ".worker.raw.1", "master.raw.old"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644))
	}
	f, err := os.Open(dir)
	must(t, err)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := builder.Pack(ctx, img, dir, p.options); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another build holds the directory: %v", err)
	}
	must(t, f.Close())
	_, err = builder.Pack(t.Context(), img, dir, p.options)
	must(t, err)
	if got, want := names(t, dir), ".worker.raw.1 master.manifest.json master.raw master.raw.old"; got != want {
		t.Errorf("the directory has %s, want %s", got, want)
	}
	var output *builder.OutputError
	if _, err := builder.Pack(t.Context(), img, filepath.Join(dir, "gone"), p.options); !errors.As(err, &output) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if got := names(t, dir); got != "" {
		t.Errorf("%s has %s, want nothing", dir, got)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}
