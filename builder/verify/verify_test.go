package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/verify"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// bench is a world, a lock, and the image of a master in it.
type bench struct {
	spec    *builder.Spec
	options builder.Options
	lock    *builder.Lock
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, fakeworld.Write(t.Context(), dir))
	more := "butane: [conf/motd.bu]\ndocker: {registries: [{host: registry.example, username: u, passwordFile: password}]}\n"
	must(t, os.WriteFile("cluster.yaml", []byte(fakeworld.Cluster+more), 0o644))
	must(t, os.Mkdir("conf", 0o755))
	must(t, os.WriteFile("conf/motd.bu", []byte("variant: fcos\nversion: 1.4.0\nstorage:\n  files:\n    - path: /etc/motd\n      contents: {local: motd}\n  trees: [{local: tree, path: /etc/tree}]\n"), 0o644))
	must(t, os.Mkdir("conf/tree", 0o755))
	must(t, os.WriteFile("conf/tree/run", []byte("#!/bin/sh\n"), 0o755))
	must(t, os.Symlink("/etc/none", "conf/tree/link"))
	must(t, os.WriteFile("conf/motd", []byte("hello\n"), 0o644))
	must(t, os.WriteFile("password", []byte("secret\n"), 0o600))
	b := &bench{}
	var err error
	b.spec, err = builder.Load("cluster.yaml", false)
	must(t, err)
	now := aptfake.Date.AddDate(0, 0, 1)
	_, err = builder.EnsurePKI(b.spec, dir, now, rand.NewChaCha8([32]byte{}))
	must(t, err)
	store, err := cache.Open(filepath.Join(dir, "cache"))
	must(t, err)
	b.options = builder.Options{Dir: dir, Store: store, Now: now}
	b.lock, err = builder.Resolve(t.Context(), b.spec, b.options)
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pack builds the image, lets change it, and returns the path of the disk.
func (b *bench) pack(t *testing.T, change func(*builder.Image)) string {
	t.Helper()
	img, err := builder.Build(t.Context(), b.spec, b.lock, builder.Master, b.options)
	must(t, err)
	if change != nil {
		change(img)
	}
	dir := t.TempDir()
	_, err = builder.Pack(t.Context(), img, dir, b.options)
	must(t, err)
	return filepath.Join(dir, "master.raw")
}

// rebuild verifies an image and rebuilds it without the files of the world.
func rebuild(t *testing.T, path string, o builder.Options) (verify.Report, verify.Comparison) {
	t.Helper()
	r, img, err := verify.Check(t.Context(), path, t.TempDir())
	must(t, err)
	must(t, r.Err())
	defer img.Close()
	o.Dir = t.TempDir()
	c, err := verify.Rebuild(t.Context(), img, t.TempDir(), o)
	must(t, err)
	return r, c
}

// TestVerify looks at one image in many ways: to build it takes longer.
func TestVerify(t *testing.T) {
	b := newBench(t)
	raw := b.pack(t, nil)
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, b *bench, raw string)
	}{
		{"formats", testFormats}, {"damage", testDamage}, {"differences", testDifferences},
		{"content", testContent}, {"other inputs", testOtherInputs},
		{"manifest", testManifest}, // it changes the image
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, b, raw) })
	}
}

// An image that is whole, its recipe makes again; every format holds it.
func testFormats(t *testing.T, b *bench, raw string) {
	r, c := rebuild(t, raw, b.options)
	if !c.Same || c.Secrets != "the image" || r.Checks[0].Name != "manifest" {
		t.Errorf("%+v, rebuild %+v", r, c)
	}
	first, err := inspect.Open(t.Context(), raw, t.TempDir())
	must(t, err)
	defer first.Close()
	for _, f := range format.All[1:] {
		if f.Name == "pxe" {
			continue // no disk
		}
		path := filepath.Join(t.TempDir(), "master"+f.Ext)
		_, err := builder.Convert(t.Context(), raw, path, f, b.options)
		must(t, err)
		r, img, err := verify.Check(t.Context(), path, t.TempDir())
		must(t, err)
		must(t, r.Err())
		if c, err := verify.Compare(t.Context(), img, first); err != nil || !c.Same {
			t.Errorf("%s: %v, %+v", f.Name, err, c)
		}
		must(t, errors.Join(img.Close(), os.Remove(path)))
	}
	set, err := pki.Load("pki")
	must(t, err)
	o := b.options
	o.PKI = &set
	if _, c := rebuild(t, raw, o); !c.Same || c.Secrets != "the PKI given" {
		t.Errorf("with the PKI: %+v", c)
	}
}

// What was changed is found where it is, and is exit code 4.
func testDamage(t *testing.T, _ *bench, raw string) {
	whole, err := os.ReadFile(raw)
	must(t, err)
	d, err := disk.Open(bytes.NewReader(whole), int64(len(whole)))
	must(t, err)
	at := func(kind disk.Type, text string) int {
		p := d.Parts[d.Find(kind)]
		n := bytes.Index(whole[p.Offset:p.Offset+p.Size], []byte(text))
		if n < 0 {
			t.Fatalf("no %q", text)
		}
		return int(p.Offset) + n
	}
	for _, tt := range []struct {
		name string
		at   int
		want string
	}{
		{"table", 600, "partition table: partition table at byte 512"},
		{"backup", len(whole) - 512 + 60, "partition table: "},
		{"root", at(disk.Root, "Made for a test."), "root: verifying data: corrupt data block"},
		{"hash tree", at(disk.RootVerity, "verity") + 4100, "root: verifying hash tree: corrupt hash block"},
		{"boot menu", at(disk.ESP, "timeout 0"), "EFI system partition: /loader/loader.conf has sha256:"},
		{"version", at(disk.ESP, "IMAGE_VERSION=") + 15, "unified kernel image: its os-release has no line"},
		{"root hash", at(disk.ESP, "roothash=") + 9, "root: "},
	} {
		b := bytes.Clone(whole)
		b[tt.at] ^= 1
		path := filepath.Join(t.TempDir(), "disk.raw")
		must(t, os.WriteFile(path, b, 0o600))
		r, img, err := verify.Check(t.Context(), path, t.TempDir())
		must(t, err)
		if img != nil {
			must(t, img.Close())
		}
		var input *builder.InputError
		if err := r.Err(); !errors.As(err, &input) || !input.Tampered || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, _, err := verify.Check(t.Context(), "cluster.yaml", t.TempDir()); err == nil {
		t.Error("a file that is no image: no error")
	}
}

// The manifest beside an image vouches for the file.
func testManifest(t *testing.T, b *bench, raw string) {
	f, err := os.OpenFile(raw, os.O_RDWR, 0)
	must(t, err)
	// Between the table and the first partition: nothing else looks there.
	_, err = f.WriteAt([]byte{1}, 900<<10)
	must(t, errors.Join(err, f.Close()))
	r, img, err := verify.Check(t.Context(), raw, t.TempDir())
	must(t, err)
	defer img.Close()
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "manifest: the file has the digest") {
		t.Errorf("error %v", err)
	}
	c, err := verify.Rebuild(t.Context(), img, t.TempDir(), b.options)
	must(t, err)
	if c.Same || len(c.Found) != 1 || !strings.HasSuffix(c.Found[0].What, "is 921600, outside of all partitions") {
		t.Errorf("the rebuild finds %+v", c.Found)
	}
}

// An image that is whole but not what its recipe makes: the first file that
// differs is named, and whose it is.
func testDifferences(t *testing.T, b *bench, raw string) {
	again, err := inspect.Open(t.Context(), raw, t.TempDir())
	must(t, err)
	defer again.Close()
	one := func(tree *layers.Tree, path string, change func(*layers.File)) *layers.Tree {
		return tree.Map(func(f layers.File) layers.File {
			if f.Path == path {
				change(&f)
			}
			return f
		})
	}
	const readme = "usr/share/doc/bash/copyright"
	root := func(path string, change func(*layers.File)) func(*builder.Image) {
		return func(i *builder.Image) { i.Root = one(i.Root, path, change) }
	}
	for _, tt := range []struct {
		name   string
		change func(*builder.Image)
		want   verify.Difference
	}{
		{"mode", root(readme, func(f *layers.File) { f.Mode = 0o666 }),
			verify.Difference{Part: "root", Path: "/" + readme, Owner: "deb:bash=1.0-1", What: "mode 0666, rebuilt 0644"}},
		{"user", root(readme, func(f *layers.File) { f.UID = 7 }),
			verify.Difference{Part: "root", Path: "/" + readme, Owner: "deb:bash=1.0-1", What: "user 7, rebuilt 0"}},
		{"link", root("usr/bin/sh", func(f *layers.File) { f.Link = "bash" }),
			verify.Difference{Part: "root", Path: "/usr/bin/sh", Owner: "deb:dash=1.0-1", What: "link target bash, rebuilt dash"}},
		{"xattr", root(readme, func(f *layers.File) { f.Xattrs = map[string]string{"user.a": "b"} }),
			verify.Difference{Part: "root", Path: "/" + readme, Owner: "deb:bash=1.0-1", What: `extended attribute user.a "b", rebuilt ""`}},
		{"initrd", func(i *builder.Image) {
			i.Initrd = one(i.Initrd, "etc/machine-id", func(f *layers.File) { *f = layers.Regular(f.Path, 0o444, f.Owner, []byte("x")) })
		}, verify.Difference{Part: "initrd", Path: "/etc/machine-id", What: "size 1, rebuilt 0"}},
		{"arguments", func(i *builder.Image) { i.Args += " quiet" },
			verify.Difference{Part: "unified kernel image", Path: ".cmdline", What: `quiet roothash=`}},
		{"boot partition", func(i *builder.Image) { i.Disk.ESP++ },
			verify.Difference{Part: "partition table", Path: "partition 1", What: "at 1048576 of 537919488"}},
	} {
		r, img, err := verify.Check(t.Context(), b.pack(t, tt.change), t.TempDir())
		must(t, err)
		must(t, r.Err())
		c, err := verify.Compare(t.Context(), img, again)
		must(t, errors.Join(err, img.Close()))
		if c.Same || len(c.Found) == 0 {
			t.Errorf("%s: no difference", tt.name)
			continue
		}
		got := c.Found[0]
		if !strings.Contains(got.What, tt.want.What) {
			t.Errorf("%s: got %q, want %q", tt.name, got.What, tt.want.What)
		}
		got.What = tt.want.What
		if got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// Content that differs shows in the record, so it is no rebuild that finds it.
func testContent(t *testing.T, b *bench, _ string) {
	raw := b.pack(t, func(i *builder.Image) {
		i.Root = i.Root.Map(func(f layers.File) layers.File {
			if f.Path == "usr/share/doc/bash/copyright" {
				f.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("Made for a jest.\n")), nil }
			}
			return f
		})
	})
	r, img, err := verify.Check(t.Context(), raw, t.TempDir())
	must(t, err)
	defer img.Close()
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "files of the root: /usr/share/doc/bash/copyright of deb:bash=1.0-1 has SHA-256") {
		t.Errorf("error %v", err)
	}
	c, err := verify.Rebuild(t.Context(), img, t.TempDir(), b.options)
	must(t, err)
	want := verify.Difference{Part: "root", Path: "/usr/share/doc/bash/copyright", Owner: "deb:bash=1.0-1", What: "content from byte 11 on: 0x6a, rebuilt 0x74"}
	if len(c.Found) == 0 || c.Found[0] != want {
		t.Errorf("got %+v, want %+v", c.Found, want)
	}
	var text strings.Builder
	r.Rebuild = &c
	must(t, r.Text(&text))
	for _, want := range []string{"  BAD  files of the root ", "  the rebuild differs first in root /usr/share/doc/bash/copyright of deb:bash=1.0-1:\n", "rebuilt 0x74"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

// A rebuild with another PKI, or another kscratch, is refused.
func testOtherInputs(t *testing.T, b *bench, raw string) {
	_, img, err := verify.Check(t.Context(), raw, t.TempDir())
	must(t, err)
	defer img.Close()
	set := pki.Of(nil)
	o := b.options
	o.PKI = &set
	var input *builder.InputError
	if _, err := verify.Rebuild(t.Context(), img, t.TempDir(), o); !errors.As(err, &input) || !input.Tampered {
		t.Errorf("another PKI: %v", err)
	}
	l := *b.lock
	l.Inputs.Kscratch = layers.DigestOf([]byte("another"))
	if _, err := builder.Rebuild(t.Context(), b.spec, &l, builder.Master, t.TempDir(), b.options); !errors.As(err, &input) {
		t.Errorf("another kscratch: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := verify.Check(ctx, raw, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
