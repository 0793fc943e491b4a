package builder_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/layers"
)

// made runs Make for the master and returns the bytes of its disk.
func (p project) made(t *testing.T, dir string) []byte {
	t.Helper()
	l := p.lock(t)
	artifacts, err := builder.Make(t.Context(), p.spec, l, builder.Master, dir, p.options)
	must(t, err)
	for _, a := range artifacts {
		checkDigest(t, filepath.Join(dir, a.Name), a.Digest)
	}
	b, err := os.ReadFile(filepath.Join(dir, "master.raw"))
	must(t, err)
	return b
}

func checkDigest(t *testing.T, path string, want layers.Digest) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if got := layers.DigestOf(b); got != want {
		t.Errorf("%s has %s, Make says %s", path, got, want)
	}
}

func inode(t *testing.T, path string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	return st
}

// TestMake: an image has the same bytes, whatever of it was there before.
func TestMake(t *testing.T) {
	p := newProject(t)
	var log bytes.Buffer
	p.options.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	const anew = "making the root"
	dir := t.TempDir()
	raw := filepath.Join(dir, "master.raw")
	first := p.made(t, dir)

	before := inode(t, raw)
	if again := p.made(t, dir); !bytes.Equal(again, first) || !os.SameFile(before, inode(t, raw)) {
		t.Error("nothing had changed, and the image was written again")
	}

	p.spec.Network.MTU = 1400
	want, err := os.ReadFile(p.pack(t, p.image(t))) // everything made anew
	must(t, err)
	log.Reset()
	known := p.made(t, dir)
	if strings.Contains(log.String(), anew) {
		t.Errorf("the root that was there was not taken: %s", log.String())
	}
	if !bytes.Equal(known, want) {
		t.Error("with a root that was there the image is another")
	}
	if bytes.Equal(known, first) {
		t.Error("a setting has changed, and the image has not")
	}

	// What is at hand may be damaged: in the root, in the tree, in the table.
	for name, damage := range map[string]func(*os.File){
		"root":  func(f *os.File) { flip(t, f, place(t, f, disk.Root)+5<<12) },
		"tree":  func(f *os.File) { flip(t, f, place(t, f, disk.RootVerity)+5000) },
		"table": func(f *os.File) { must(t, f.Truncate(1<<20)) },
		"gone":  func(f *os.File) { must(t, os.Remove(f.Name())) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.OpenFile(raw, os.O_RDWR, 0)
			must(t, err)
			damage(f)
			must(t, f.Close())
			log.Reset()
			if !bytes.Equal(p.made(t, dir), want) {
				t.Error("the image is another")
			}
			if !strings.Contains(log.String(), anew) {
				t.Error("the damage went unseen")
			}
		})
	}

	slot := p.spec.Disk.Root
	p.spec.Disk.Root = 1
	if _, err := builder.Make(t.Context(), p.spec, p.lock(t), builder.Master, dir, p.options); err == nil || !strings.Contains(err.Error(), "disk.root allows 1") {
		t.Errorf("a root that is there and too large for its slot: %v", err)
	}
	p.spec.Disk.Root = slot

	p.options.Formats, err = format.Parse("raw,qcow2")
	must(t, err)
	if !bytes.Equal(p.made(t, dir), want) {
		t.Error("with another format beside it the image is another")
	}
	must(t, os.Remove(filepath.Join(dir, "master.qcow2")))
	p.made(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "master.qcow2")); err != nil {
		t.Error("a file was removed, and is not made again")
	}
}

func place(t *testing.T, f *os.File, kind disk.Type) int64 {
	t.Helper()
	st, err := f.Stat()
	must(t, err)
	d, err := disk.Open(f, st.Size())
	must(t, err)
	return d.Parts[d.Find(kind)].Offset
}

func flip(t *testing.T, f *os.File, off int64) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, off)
	must(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// TestRefresh: settings keep a lock's pins, other sources do not.
func TestRefresh(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*builder.Spec)
		keeps  bool
	}{
		{"nothing", func(*builder.Spec) {}, true},
		{"a setting", func(s *builder.Spec) { s.Network.MTU = 1400 }, true},
		{"a package", func(s *builder.Spec) { s.Base.Packages = append(s.Base.Packages, "nano") }, false},
		{"a role's package", func(s *builder.Spec) { s.Base.RolePackages = map[string][]string{"node": {"nano"}} }, false},
		{"packages of a setting", func(s *builder.Spec) { s.Network.CBR0 = "auto" }, false},
		{"a program of a setting", func(s *builder.Spec) { s.Network.Mode = "flannel" }, false},
		{"a version", func(s *builder.Spec) { s.Components.CoreDNS.Version = "v1.0.0" }, false},
		{"a mirror", func(s *builder.Spec) { s.Base.Mirror = "http://127.0.0.1:1/" }, false},
		{"an image", func(s *builder.Spec) { s.Images = append(s.Images, builder.ExtraImage{Name: "a", From: "oci:a"}) }, false},
		{"a registry", func(s *builder.Spec) { s.Docker.InsecureRegistries = []string{"127.0.0.1:1"} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newProject(t)
			l := p.lock(t)
			tc.change(p.spec)
			got, ok, err := builder.Refresh(p.spec, l, p.options)
			must(t, err)
			if ok != tc.keeps {
				t.Fatalf("keeps its pins: %v, want %v", ok, tc.keeps)
			}
			if !ok {
				return
			}
			if why, err := builder.Stale(p.spec, got, p.options); why != "" || err != nil {
				t.Errorf("still stale: %s, %v", why, err)
			}
			if got.Inputs.Spec = l.Inputs.Spec; got.Digest() != l.Digest() {
				t.Error("more than the inputs has changed")
			}
		})
	}
}
