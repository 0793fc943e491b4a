package builder_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// etcdDebs are packages like Debian's: the program is a link into a second
// package, and a third is needed to install and not to run it.
func etcdDebs() []aptfake.Deb {
	terms := func(pkg string) layers.File {
		return layers.Regular("usr/share/doc/"+pkg+"/copyright", 0o644, "t", []byte("The terms of "+pkg+".\n"))
	}
	return []aptfake.Deb{
		{Name: "etcd-server", Version: "3.5.16-4+b4", Depends: "etcd-bin, etcd-adduser", Files: []layers.File{
			layers.Symlink("usr/bin/etcd", "../lib/etcd/etcd", "t"), terms("etcd-server"),
			layers.Regular("usr/lib/systemd/system/etcd.service", 0o644, "t", []byte("[Unit]\n")),
		}},
		{Name: "etcd-bin", Files: []layers.File{layers.Regular("usr/lib/etcd/etcd", 0o755, "t", fakeworld.Program("etcd")), terms("etcd-bin")}},
		{Name: "etcd-adduser", Files: []layers.File{layers.Regular("usr/sbin/adduser", 0o755, "t", fakeworld.Program("adduser")), terms("etcd-adduser")}},
	}
}

func newDistro(t *testing.T) project {
	t.Helper()
	p := newProject(t, etcdDebs()...)
	p.spec.Components.Etcd = builder.Component{Version: "v3.5.16", Sources: []string{"distro"}, Image: "registry.k8s.io/etcd"}
	return p
}

func etcdOf(l *builder.Lock) *builder.LockedImage {
	i := slices.IndexFunc(l.Images, func(im builder.LockedImage) bool { return strings.HasPrefix(im.Name, "registry.k8s.io/etcd:") })
	return &l.Images[i]
}

// An image made from Debian's packages has the program, what it needs and the
// terms of both; the lock pins those packages and no others.
func TestDistro(t *testing.T) {
	p := newDistro(t)
	l := p.lock(t)
	im := etcdOf(l)
	var names []string
	for _, pkg := range im.Packages {
		names = append(names, pkg.Name+"="+pkg.Version)
	}
	if d := cmp.Diff([]string{"etcd-bin=1.0-1", "etcd-server=3.5.16-4+b4"}, names); d != "" {
		t.Errorf("pinned packages (-want +got):\n%s", d)
	}
	if im.Name != "registry.k8s.io/etcd:3.5.16-0" || im.From != "distro:etcd-server" {
		t.Errorf("locked as %+v", im)
	}
	img, err := builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
	must(t, err)
	var got []string
	for f := range img.Root.Under("usr/lib/kscratch/docker/overlay2") {
		_, in, ok := strings.Cut(f.Path, "/diff/")
		if ok && !f.Mode.IsDir() && f.Owner == "image:"+im.Name {
			got = append(got, in+target(f))
		}
	}
	want := []string{"usr/bin/etcd -> ../lib/etcd/etcd", "usr/lib/etcd/etcd", "usr/share/doc/etcd-bin/copyright", "usr/share/doc/etcd-server/copyright"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files of the image (-want +got):\n%s", d)
	}
	if _, ok := img.Root.Lookup("usr/lib/kscratch/docker/image/overlay2/imagedb/content/sha256/" + im.Digest.Hex()); !ok {
		t.Errorf("no image %s", im.Digest)
	}
	// Somewhere else, it is the same.
	if other := etcdOf(newDistro(t).lock(t)); other.Digest != im.Digest {
		t.Errorf("made again it is %s, was %s", other.Digest, im.Digest)
	}
}

// TestDistroIndex: each package of an image is of the index that it was found in,
// whether the lock's time moves or the image does.
func TestDistroIndex(t *testing.T) {
	p := newDistro(t)
	old := p.lock(t)
	now := old.Time
	old.Time = now.AddDate(0, 0, -1)
	index := func(l *builder.Lock) time.Time {
		for _, pkg := range etcdOf(l).Packages[1:] {
			if !pkg.Index.Equal(etcdOf(l).Packages[0].Index) {
				t.Errorf("%s is from an index of %v", pkg.Name, pkg.Index)
			}
		}
		return etcdOf(l).Packages[0].Index
	}
	l, err := builder.Update(t.Context(), p.spec, old, []string{"etcd"}, p.options)
	must(t, err)
	if got := index(l); !got.Equal(now) || !l.Time.Equal(old.Time) {
		t.Errorf("made anew: the index is of %v, the lock of %v", got, l.Time)
	}
	newArchive(t, map[string]string{"dash": "2.0-1"})
	l, err = builder.Update(t.Context(), p.spec, old, []string{"dash"}, p.options)
	must(t, err)
	if got := index(l); !got.Equal(old.Time) || !l.Time.Equal(now) {
		t.Errorf("kept: the index is of %v, the lock of %v", got, l.Time)
	}
	if !index(old).IsZero() {
		t.Error("the old lock has changed")
	}
}

// A lock with other packages than it was made of is found out.
func TestDistroLockAltered(t *testing.T) {
	for _, tt := range []struct {
		name     string
		alter    func(*builder.LockedImage)
		want     string
		tampered bool
	}{
		{"a package less", func(im *builder.LockedImage) { im.Packages = im.Packages[1:] }, "/usr/lib/etcd is missing, where /usr/bin/etcd leads", false},
		{"another result", func(im *builder.LockedImage) { im.Digest = layers.DigestOf(nil) }, "want " + string(layers.DigestOf(nil)), true},
		{"another source", func(im *builder.LockedImage) { im.From = "distro:zookeeper" }, "does not know how to make it", false},
		{"another package", func(im *builder.LockedImage) { im.Packages[0].Digest = layers.DigestOf([]byte("x")) }, "etcd-bin", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newDistro(t)
			l := p.lock(t)
			tt.alter(etcdOf(l))
			_, err := builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
			var input *builder.InputError
			if !errors.As(err, &input) || input.Tampered != tt.tampered || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an input error with %q that says changed: %v", err, tt.want, tt.tampered)
			}
		})
	}
}
