package builder_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers"
)

// vendored is a project with an image from each kind of source, and etcd from
// Debian's package.
func vendored(t *testing.T) (project, *hub) {
	t.Helper()
	h := newHub(t, false)
	h.push(t, "app:v1", someImage(t, "amd64", 5))
	h.push(t, "multi:v1", someIndex(t, "arm64", "amd64"))
	p := newProject(t, etcdDebs()...)
	save(t, "app.tar", map[string]v1.Image{"example.org/archive:v1": someImage(t, "amd64", 2)})
	saveLayout(t, "layout", map[string]v1.Image{"v1": someImage(t, "amd64", 3)})
	must(t, os.WriteFile("rootfs.tar", rootfs(t), 0o644))
	p.spec.Docker.InsecureRegistries = []string{h.host()}
	p.spec.Components.Etcd.Sources, p.spec.Components.Etcd.Version = []string{"distro"}, "v3.5.16"
	p.spec.Images = []builder.ExtraImage{
		{Name: app, From: "docker://" + h.host() + "/app:v1"},
		{Name: "example.org/multi:v1", From: "docker://" + h.host() + "/multi:v1"},
		{Name: "example.org/archive:v1", From: "docker-archive:app.tar"},
		{Name: "example.org/layout:v1", From: "oci:layout"},
		{Name: "example.org/rootfs:v1", From: "rootfs:rootfs.tar"},
	}
	return p, h
}

// TestVendorEverySource builds from a directory alone what came from
// registries, archives and packages.
func TestVendorEverySource(t *testing.T) {
	p, h := vendored(t)
	l := p.lock(t)
	if wrong, err := builder.CheckLock(t.Context(), p.spec, l, p.options); err != nil || len(wrong) > 0 {
		t.Errorf("the lock does not fit: %q, %v", wrong, err)
	}
	img, err := builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
	must(t, err)
	want := p.pack(t, img)
	_, err = builder.Vendor(t.Context(), p.spec, l, "inputs", p.options)
	must(t, err)
	h.Close()
	for _, gone := range []string{"debian", "debian-security", "app.tar", "layout", "rootfs.tar", "etcd.tar", "coredns.tar", "cri-dockerd"} {
		must(t, os.RemoveAll(gone))
	}
	p.options.Store, p.options.Vendor, p.options.Offline = emptyStore(t), "inputs", true
	img, err = builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
	must(t, err)
	if a, b := fileDigest(t, want), fileDigest(t, p.pack(t, img)); a != b {
		t.Errorf("the image has %s with the network, and %s without", a, b)
	}
}

// TestVendorIsTakenUp: a call that was interrupted leaves no SHA256SUMS and no
// half of a file under its name, and the next one goes on.
func TestVendorIsTakenUp(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.options.Progress = &canceller{at: "vendor", cancel: cancel}
	_, err := builder.Vendor(ctx, p.spec, l, "inputs", p.options)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat("inputs/SHA256SUMS"); err == nil {
		t.Error("there is a SHA256SUMS")
	}
	must(t, os.MkdirAll("inputs/debian/pool/main/b/bash", 0o755))
	must(t, os.WriteFile("inputs/debian/pool/main/b/bash/.bash_1.0-1_amd64.deb.part", []byte("half"), 0o644))
	p.options.Progress = nil
	v, err := builder.Vendor(t.Context(), p.spec, l, "inputs", p.options)
	must(t, err)
	must(t, filepath.WalkDir("inputs", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".part") {
			t.Errorf("%s is left", path)
		}
		return err
	}))
	if v.Written == 0 || v.Files < v.Written {
		t.Errorf("got %+v", v)
	}
}

// TestVendorFollowsTheLock: what another lock has no more is removed, and what
// is nobody's business stays.
func TestVendorFollowsTheLock(t *testing.T) {
	p := newProject(t)
	p.spec.Images = []builder.ExtraImage{{Name: "example.org/rootfs:v1", From: "rootfs:rootfs.tar"}}
	must(t, os.WriteFile("rootfs.tar", rootfs(t), 0o644))
	before, err := builder.Vendor(t.Context(), p.spec, p.lock(t), "inputs", p.options)
	must(t, err)
	must(t, os.WriteFile("inputs/README", []byte("mine"), 0o644))
	p.spec.Images = nil
	after, err := builder.Vendor(t.Context(), p.spec, p.lock(t), "inputs", p.options)
	must(t, err)
	want := builder.Vendored{Files: before.Files - 1, Bytes: before.Bytes - int64(len(rootfs(t))), Removed: 1}
	if d := cmp.Diff(want, after); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := os.Stat("inputs/README"); err != nil {
		t.Error(err)
	}
}

// TestVendorOfOthers: a directory with a SHA256SUMS that is not ours is left as
// it is.
func TestVendorOfOthers(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	sum := strings.TrimPrefix(string(layers.DigestOf([]byte("mine"))), "sha256:")
	for _, tt := range []struct{ sums, err string }{
		{sum + "  vmlinuz\n", "SHA256SUMS lists vmlinuz, which is no input by `kscratch vendor`"},
		{sum + "  debian\n", "SHA256SUMS lists debian, which"},
		{sum + "  images/x\n" + sum + "  pxe/vmlinuz\n", "SHA256SUMS lists pxe/vmlinuz, which"},
		{sum + " *vmlinuz\n", "reading SHA256SUMS: line 1: want 64"},
	} {
		must(t, os.RemoveAll("inputs"))
		for _, name := range []string{"vmlinuz", "images/x", "pxe/vmlinuz"} {
			must(t, os.MkdirAll(filepath.Dir("inputs/"+name), 0o755))
			must(t, os.WriteFile("inputs/"+name, []byte("mine"), 0o644))
		}
		must(t, os.WriteFile("inputs/SHA256SUMS", []byte(tt.sums), 0o644))
		_, err := builder.Vendor(t.Context(), p.spec, l, "inputs", p.options)
		var output *builder.OutputError
		if !errors.As(err, &output) || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: got %v", tt.sums, err)
		}
		for _, name := range []string{"vmlinuz", "images/x", "pxe/vmlinuz", "SHA256SUMS"} {
			if _, err := os.Stat("inputs/" + name); err != nil {
				t.Errorf("%q: %v", tt.sums, err)
			}
		}
	}
}

// TestVendorForgetsNothing: what calls that were interrupted have put into a
// directory, or were there to remove, the next one that ends well removes.
func TestVendorForgetsNothing(t *testing.T) {
	p := newProject(t)
	p.spec.Images = []builder.ExtraImage{{Name: "example.org/rootfs:v1", From: "rootfs:rootfs.tar"}}
	must(t, os.WriteFile("rootfs.tar", rootfs(t), 0o644))
	_, err := builder.Vendor(t.Context(), p.spec, p.lock(t), "inputs", p.options)
	must(t, err)
	p.spec.Images = nil
	l := p.lock(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		o := p.options
		o.Progress = &canceller{at: "vendor", cancel: cancel}
		if _, err := builder.Vendor(ctx, p.spec, l, "inputs", o); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		if _, err := os.Stat("inputs/SHA256SUMS"); err == nil {
			t.Error("there is a SHA256SUMS")
		}
	}
	v, err := builder.Vendor(t.Context(), p.spec, l, "inputs", p.options)
	must(t, err)
	if v.Removed != 1 {
		t.Errorf("got %+v", v)
	}
	if _, err := os.Stat("inputs/.SHA256SUMS.old"); err == nil {
		t.Error("the list of an earlier call is left")
	}
}

// TestVendorItself makes a directory that inputs are looked for in, and takes it
// up.
func TestVendorItself(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	p.options.Vendor = filepath.Join(p.options.Dir, "inputs")
	for _, written := range []bool{true, false} {
		v, err := builder.Vendor(t.Context(), p.spec, l, "inputs", p.options)
		must(t, err)
		if (v.Written > 0) != written {
			t.Errorf("got %+v", v)
		}
		must(t, os.Remove("inputs/SHA256SUMS"))
	}
}

// TestVendorOfDamagedStore refuses to hand on what is not what was pinned.
func TestVendorOfDamagedStore(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	_, err := builder.Vendor(t.Context(), p.spec, l, "first", p.options)
	must(t, err)
	for _, lp := range l.Packages {
		if lp.Name == "bash" {
			b, _ := p.options.Store.Lookup(lp.Digest)
			must(t, os.Chmod(b.Path, 0o644))
			must(t, os.WriteFile(b.Path, []byte("something else"), 0o644))
		}
	}
	_, err = builder.Vendor(t.Context(), p.spec, l, "second", p.options)
	if err == nil || !strings.Contains(err.Error(), "package bash=1.0-1 in the content store: it is damaged: content has digest ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat("second/SHA256SUMS"); err == nil {
		t.Error("there is a SHA256SUMS")
	}
}

// TestOfflineAsksNobody: neither a mirror nor a registry hears of a build that
// is offline, and all that is missing is named at once.
func TestOfflineAsksNobody(t *testing.T) {
	p, h := vendored(t)
	l := p.lock(t)
	must(t, os.RemoveAll("app.tar"))
	asked := 0
	h.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })
	p.options.Store, p.options.Offline = emptyStore(t), true
	_, err := builder.Build(t.Context(), p.spec, l, builder.Worker, p.options)
	var input *builder.InputError
	if !errors.As(err, &input) || input.Tampered || asked > 0 {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"package bash=1.0-1", "image " + app, "image example.org/multi:v1", "image example.org/archive:v1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in %v", want, err)
		}
	}
	for _, not := range []string{"layout", "rootfs", "etcd"} { // files that are there, and what a worker has not
		if strings.Contains(err.Error(), not) {
			t.Errorf("%s is named in %v", not, err)
		}
	}
}

// TestNewest names what has moved since the lock was made.
func TestNewest(t *testing.T) {
	p, h := vendored(t)
	l := p.lock(t)
	newer, err := builder.Newest(t.Context(), p.spec, l, p.options)
	must(t, err)
	if len(newer) > 0 {
		t.Errorf("nothing has moved, but %v", newer)
	}
	was := lockedDigest(l)
	is := h.push(t, "app:v1", someImage(t, "amd64", 9))
	newer, err = builder.Newest(t.Context(), p.spec, l, p.options)
	must(t, err)
	want := []builder.LockChange{{Kind: "image", Name: "example.org/app", Old: was, New: is}}
	if d := cmp.Diff(want, newer); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	updated, err := builder.Update(t.Context(), p.spec, l, []string{app}, p.options)
	must(t, err)
	if d := cmp.Diff(want, builder.Changes(l, updated)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
