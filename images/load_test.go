package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

func TestFamiliarNames(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox":                             "busybox:latest",
		"docker.io/library/busybox:1":         "busybox:1",
		"index.docker.io/library/busybox:1":   "busybox:1",
		"docker.io/kscratch/tool:2":           "kscratch/tool:2",
		"registry.k8s.io/pause:3.10.1":        "registry.k8s.io/pause:3.10.1",
		"localhost:5000/a/b/c:x":              "localhost:5000/a/b/c:x",
		"registry.k8s.io/coredns/coredns:v1.": "registry.k8s.io/coredns/coredns:v1.",
	} {
		tag, err := parseRef(ref)
		if err != nil || familiar(tag) != want {
			t.Errorf("%s: %v, %v, want %s", ref, familiar(tag), err, want)
		}
	}
}

func TestLoadArchive(t *testing.T) {
	a := tarOf(t, member{name: "app", body: "one", mode: 0o755})
	b := tarOf(t, member{name: "etc/conf", body: "two"})
	cfg := config("amd64", a, b)
	for _, c := range []struct {
		name string
		file []byte
		pick Pick
		ref  string
		err  string
	}{
		{"plain", archive(t, "x:1", cfg, a, b), Pick{}, "x:1", ""},
		{"gzipped layer", archive(t, "x:1", cfg, compress(t, "gzip", a), b), Pick{}, "x:1", ""},
		{"zstd layer", archive(t, "x:1", cfg, compress(t, "zstd", a), b), Pick{}, "x:1", ""},
		{"xz archive", compress(t, "xz", archive(t, "x:1", cfg, a, b)), Pick{}, "x:1", ""},
		{"gzip archive", compress(t, "gzip", archive(t, "x:1", cfg, a, b)), Pick{}, "x:1", ""},
		{"renamed", archive(t, "x-amd64:1", cfg, a, b), Pick{As: "docker.io/library/x:1"}, "x:1", ""},
		{"by tag", archive(t, "x:1", cfg, a, b), Pick{Tag: "docker.io/library/x:1"}, "x:1", ""},
		{"no such tag", archive(t, "x:1", cfg, a, b), Pick{Tag: "y:1"}, "", "has no image y:1; it has: x:1"},
		{"no name", archive(t, "", cfg, a, b), Pick{}, "", "the image has no name"},
		{"name given", archive(t, "", cfg, a, b), Pick{As: "n:1"}, "n:1", ""},
		{"wrong arch", archive(t, "x:1", config("arm64", a, b), a, b), Pick{}, "", "is for linux/arm64, want linux/amd64"},
		{"wrong layer", archive(t, "x:1", cfg, a, a), Pick{}, "", "layer 2 of image x:1: content has digest " + string(layers.DigestOf(a))},
		{"missing layer", archive(t, "x:1", cfg, a), Pick{}, "", "names 2 layers, its manifest 1"},
		{"not an archive", []byte("hello"), Pick{}, "", "not a tar archive"},
		{"another tar", tarOf(t, member{name: "x"}), Pick{}, "", "neither manifest.json nor index.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := importer(t)
			img, err := m.Load(context.Background(), write(t, "i.tar", c.file), c.pick)
			wantErr(t, err, c.err)
			if err != nil {
				return
			}
			if img.Ref != c.ref || img.ID != layers.DigestOf(cfg) || len(img.Layers()) != 2 {
				t.Errorf("got %s %s, want %s %s", img.Ref, img.ID, c.ref, layers.DigestOf(cfg))
			}
			checked(t, img)
		})
	}
}

func TestHostileArchives(t *testing.T) {
	ok := tarOf(t, member{name: "app", body: "x"})
	layer := func(ms ...member) []byte { l := tarOf(t, ms...); return archive(t, "x:1", config("amd64", l), l) }
	big := tarOf(t, member{name: "zero", body: strings.Repeat("\x00", 1<<20)})
	manifest := func(s string) []byte { return tarOf(t, member{name: "manifest.json", body: s}) }
	good := archive(t, "x:1", config("amd64", ok), ok)
	for _, c := range []struct {
		name string
		file []byte
		err  string
	}{
		{"member above the archive", tarOf(t, member{name: "../manifest.json", body: "[]"}), "leads out of the archive"},
		{"link out of the archive", tarOf(t, member{name: "manifest.json", typ: tar.TypeSymlink, link: "../../etc/passwd"}), "leads out of the archive"},
		{"absolute link", tarOf(t, member{name: "manifest.json", typ: tar.TypeLink, link: "/etc/passwd"}), "leads out of the archive"},
		{"link to itself", tarOf(t, member{name: "manifest.json", typ: tar.TypeSymlink, link: "manifest.json"}), "too many links"},
		{"config above the archive", manifest(`[{"Config":"../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]`), "file does not exist"},
		{"truncated", good[:len(good)/2], "EOF"},
		{"truncated in a member", good[:len(good)-1600], "unexpected EOF"},
		{"truncated gzip archive", compress(t, "gzip", good)[:60], "uncompressing"},
		{"truncated zstd archive", compress(t, "zstd", good)[:60], "uncompressing"},
		{"truncated xz archive", compress(t, "xz", good)[:60], "uncompressing"},
		{"gzip of gzip", compress(t, "gzip", compress(t, "gzip", good)), "not a tar archive"},
		{"manifest twice", append(good[:len(good)-1024:len(good)-1024], manifest("[]")...), `"manifest.json": is there twice`},
		{"manifest and a link to another", append(good[:len(good)-1024:len(good)-1024], tarOf(t, member{name: "./manifest.json", typ: tar.TypeSymlink, link: "config.json"})...), "is there twice"},
		{"manifest is a device", tarOf(t, member{name: "manifest.json", typ: tar.TypeChar}), "neither manifest.json"},
		{"manifest is a directory", tarOf(t, member{name: "manifest.json/"}), "neither manifest.json"},
		{"size of everything", sized(manifest("[]"), "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), "truncated: unexpected EOF"},
		{"negative size", sized(manifest("[]"), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "invalid tar header"},
		{"empty manifest", manifest("[]"), "names no image"},
		{"null manifest", manifest("null"), "names no image"},
		{"no config", manifest(`[{"RepoTags":["x:1"]}]`), "lacks the name"},
		{"tag twice", manifest(`[{"Config":"c","RepoTags":["x:1","docker.io/library/x:1"]}]`), "there twice"},
		{"bad tag", manifest(`[{"Config":"c","RepoTags":["X Y"]}]`), "parsing image name"},
		{"huge manifest", manifest(strings.Repeat(" ", maxConfig+1)), "more than the limit"},
		{"deep", manifest(`[{"Config":"c","RepoTags":["x:1"],"Layers":["` + strings.Repeat(`a","`, 200) + `b"]}]`), "docker takes 125"},
		{"layer bomb", archive(t, "x:1", config("amd64", big), compress(t, "gzip", big)), "has more than 65536 bytes"},
		{"archive bomb", compress(t, "zstd", big), "has more than 65536 bytes"},
		{"layer of everything", sizedLayer(t), "truncated: 1536"},
		{"truncated zstd", archive(t, "x:1", config("amd64", ok), compress(t, "zstd", ok)[:40]), "uncompressing"},
		{"something after the layer", archive(t, "x:1", config("amd64", ok), append(compress(t, "gzip", ok), "more"...)), "uncompressing"},
		{"dictionary of 4 GiB", archive(t, "x:1", config("amd64", ok), hungry(compress(t, "xz", ok))), "dictionary size exceeds max"},
		{"window of a gigabyte", archive(t, "x:1", config("amd64", ok), []byte("\x28\xb5\x2f\xfd\x00\xa0\x00\x00\x00")), "uncompressing"},
		{"truncated gzip", archive(t, "x:1", config("amd64", ok), compress(t, "gzip", ok)[:40]), "uncompressing"},
		{"layer is no tar", archive(t, "x:1", config("amd64", []byte(strings.Repeat("no tar", 200))), []byte(strings.Repeat("no tar", 200))), "reading the layer's tar"},
		{"file above the root", layer(member{name: "a/../../etc/shadow"}), "leads out of the archive"},
		{"hard link above the root", layer(member{name: "x", typ: tar.TypeLink, link: "../../etc/shadow"}), "leads out of the archive"},
		{"hard link to nothing", layer(member{name: "x", typ: tar.TypeLink, link: "y"}), "not a file before it"},
		{"path twice", layer(member{name: "x"}, member{name: "./x"}), "is there twice"},
		{"file below a file", layer(member{name: "x"}, member{name: "x/y"}), "not a directory"},
		{"link loop", layer(member{name: "x", typ: tar.TypeSymlink, link: "x"}, member{name: "x/y"}), "too many symbolic links"},
		{"whiteout of ..", layer(member{name: "x/.wh..."}), `whiteout of ".."`},
		{"whiteout of .", layer(member{name: "x/.wh.."}), `whiteout of "."`},
		{"whiteout of nothing", layer(member{name: "x/.wh."}), `whiteout of ""`},
		{"whiteout that is a directory's", layer(member{name: "x/y"}, member{name: ".wh.x"}), "is a directory and also something else"},
		{"socket", layer(member{name: "x", typ: 's'}), "is not supported"},
		{"file below a device", layer(member{name: "x", typ: tar.TypeBlock}, member{name: "x/y"}), "not a directory"},
		{"link to nowhere", layer(member{name: "x", typ: tar.TypeSymlink}), "is a link to nothing"},
		{"overlay attribute", layer(member{name: "x/", xattr: map[string]string{"trusted.overlay.redirect": "/"}}), "which only overlayfs may set"},
		{"config of no layers", archive(t, "x:1", []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"x"}}`)), "root file system of type"},
		{"config is no JSON", archive(t, "x:1", []byte(`{`)), "parsing the configuration"},
		{"diff ID of another hash", archive(t, "x:1", []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha512:ab"]}}`), ok), "sha512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := importer(t)
			m.MaxSize = 1 << 16
			_, err := m.Load(context.Background(), write(t, "i.tar", c.file), Pick{})
			wantErr(t, err, c.err)
		})
	}
}

// A layer's link must not lead a later member out of the layer's own root.
func TestLinkedParentStaysInLayer(t *testing.T) {
	l := tarOf(t, member{name: "bin", typ: tar.TypeSymlink, link: "/../usr/bin"}, member{name: "bin/tool", body: "x"})
	files, err := unpack(image(t, importer(t), "x:1", l).Layers()[0], "t")
	if _, ok := files["usr/bin/tool"]; err != nil || !ok {
		t.Errorf("files %v, %v", files, err)
	}
}

func TestArchiveOfSeveralIsReproducible(t *testing.T) {
	ctx, m := context.Background(), importer(t)
	base := tarOf(t, member{name: "base", body: "b"})
	x := image(t, m, "x:1", base, tarOf(t, member{name: "x"}))
	y := image(t, m, "y:1", base, tarOf(t, member{name: "y"}))
	var one, two bytes.Buffer
	for _, w := range []*bytes.Buffer{&one, &two} {
		if err := WriteDockerArchive(ctx, w, x, y); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two writes differ")
	}
	file := write(t, "two.tar", one.Bytes())
	_, err := m.Load(ctx, file, Pick{})
	wantErr(t, err, "has 2 images (x:1, y:1): say which")
	got, err := importer(t).Load(ctx, file, Pick{Tag: "y:1"})
	if err != nil || got.ID != y.ID {
		t.Errorf("got %s, %v, want %s", got.ID, err, y.ID)
	}
	// Another reader of the format agrees.
	tag, _ := name.NewTag("x:1")
	ref, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := ref.ConfigName(); err != nil || h.String() != string(x.ID) {
		t.Errorf("go-containerregistry reads %s, %v, want %s", h, err, x.ID)
	}
}

func TestV1(t *testing.T) {
	img := image(t, importer(t), "x:1", tarOf(t, member{name: "x"}), tarOf(t, member{name: "y"}))
	v, err := img.V1()
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "x.tar")
	tag, _ := name.NewTag("z:1")
	if err := tarball.WriteToFile(p, tag, v); err != nil {
		t.Fatal(err)
	}
	got, err := importer(t).Load(context.Background(), p, Pick{})
	if err != nil || got.ID != img.ID || got.Ref != "z:1" {
		t.Errorf("got %s %s, %v", got.Ref, got.ID, err)
	}
}

// platform returns a random image for an architecture.
func platform(t testing.TB, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(256, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// index returns an index of images for architectures.
func index(t testing.TB, arches ...string) v1.ImageIndex {
	t.Helper()
	idx := v1.ImageIndex(empty.Index)
	for _, a := range arches {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: platform(t, a), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}},
		})
	}
	return idx
}

func TestLoadLayout(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	img := platform(t, "amd64")
	named := func(n string) layout.Option { return layout.WithAnnotations(map[string]string{refAnnotation: n}) }
	for _, err := range []error{
		p.AppendImage(img, named("v1")),
		p.AppendIndex(index(t, "arm64", "amd64"), named("example.org/multi:v1")),
		p.AppendIndex(index(t, "arm64", "s390x"), named("example.org/other:v1")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var ms []member
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); err == nil && d.Type().IsRegular() {
			b, _ := os.ReadFile(p)
			ms = append(ms, member{name: rel, body: string(b)})
		}
		return err
	})
	for where, file := range map[string]string{"dir": dir, "tar": write(t, "l.tar", tarOf(t, ms...))} {
		for _, c := range []struct {
			pick Pick
			ref  string
			err  string
		}{
			{Pick{Tag: "v1", As: "registry.k8s.io/thing:v1"}, "registry.k8s.io/thing:v1", ""},
			{Pick{Tag: "v1"}, "", "the image has no name"},
			{Pick{Tag: "example.org/multi:v1"}, "example.org/multi:v1", ""},
			{Pick{Tag: "example.org/other:v1"}, "", "is for linux/arm64, linux/s390x, want linux/amd64"},
			{Pick{}, "", "has 3 images"},
			{Pick{Tag: "v2"}, "", "has no image v2"},
		} {
			t.Run(fmt.Sprintf("%s %s %s", where, c.pick.Tag, c.pick.As), func(t *testing.T) {
				got, err := importer(t).Load(context.Background(), file, c.pick)
				wantErr(t, err, c.err)
				var pe *PlatformError
				if strings.Contains(c.err, "want linux") && !errors.As(err, &pe) {
					t.Errorf("error is a %T", err)
				}
				if err == nil && (got.Ref != c.ref || got.Digest == "") {
					t.Errorf("got %+v", got)
				}
				if err == nil {
					checked(t, got)
				}
			})
		}
	}
	d, _ := img.ConfigName()
	if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Hex), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = importer(t).Load(context.Background(), dir, Pick{Tag: "v1", As: "x:1"})
	wantErr(t, err, "its content has digest")
}

func TestRootFS(t *testing.T) {
	tarball := tarOf(t, member{name: "./"}, member{name: "./bin/sh", body: "sh", mode: 0o4755})
	bz2, err := base64.StdEncoding.DecodeString("QlpoORdyRThQkAAAAAA=") // of nothing
	if err != nil {
		t.Fatal(err)
	}
	var id layers.Digest
	for _, c := range []struct {
		name, err string
		file      []byte
	}{
		{"plain", "", tarball},
		{"gzip", "", compress(t, "gzip", tarball)},
		{"xz", "", compress(t, "xz", tarball)},
		{"zstd", "", compress(t, "zstd", tarball)},
		{"bzip2 of nothing", "not a tar archive", bz2},
		{"no tar", "not a tar archive", []byte("#!/bin/sh")},
		{"empty", "not a tar archive", nil},
		{"hostile", "leads out of the archive", tarOf(t, member{name: "../x"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := importer(t).RootFS(context.Background(), "root:1", write(t, "r", c.file), Config{Cmd: []string{"/bin/sh"}, Created: epoch})
			wantErr(t, err, c.err)
			if err != nil {
				return
			}
			if id == "" {
				id = img.ID
			}
			if img.ID != id {
				t.Errorf("ID %s depends on the compression, was %s", img.ID, id)
			}
			cf, err := img.Config()
			if err != nil || cf.Config.Cmd[0] != "/bin/sh" || !cf.Created.Time.Equal(epoch) || cf.Architecture != "amd64" {
				t.Errorf("config %+v, %v", cf, err)
			}
			checked(t, img)
		})
	}
}

func TestCompose(t *testing.T) {
	files := layers.Of("files", layers.DigestOf([]byte("1")),
		layers.Regular("usr/bin/etcd", 0o755, "modules:etcd", []byte("elf")),
		layers.Symlink("bin", "usr/bin", "modules:etcd"),
		layers.Regular("etc/ssl/certs/ca-certificates.crt", 0o644, "deb:ca", []byte("pem")))
	c := Config{Entrypoint: []string{"/usr/bin/etcd"}, Env: []string{"A=b"}, User: "65535", Ports: []string{"2379/tcp"}, Created: epoch}
	var ids []layers.Digest
	for range 2 {
		img, err := importer(t).Compose(context.Background(), "registry.k8s.io/etcd:3.6.8", c, files)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID)
		tree := checked(t, img)
		f, ok := tree.Lookup("usr/lib/kscratch/docker/overlay2/" + cacheID(img.Layers()[0].Chain) + "/diff/usr/bin/etcd")
		if !ok || f.Mode.Perm() != 0o755 || f.Owner != "image:registry.k8s.io/etcd:3.6.8" || !f.ModTime.Equal(epoch) {
			t.Errorf("etcd: %+v", f)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("two compositions differ: %v", ids)
	}
}

func TestComposeLayers(t *testing.T) {
	base := layers.Of("base", layers.DigestOf([]byte("1")), layers.Regular("etc/motd", 0o644, "base", []byte("hello")))
	top := layers.Of("top", layers.DigestOf([]byte("2")), layers.Regular("etc/motd", 0o644, "top", []byte("hi")))
	m := importer(t)
	var imgs []Image
	for _, ls := range [][]layers.Layer{{base}, {base, top}} {
		img, err := m.Compose(t.Context(), "example.org/a:1", Config{Created: epoch}, ls...)
		if err != nil {
			t.Fatal(err)
		}
		checked(t, img)
		imgs = append(imgs, img)
	}
	a, b := imgs[0].Layers(), imgs[1].Layers()
	if len(a) != 1 || len(b) != 2 || a[0].DiffID != b[0].DiffID || b[1].DiffID == b[0].DiffID {
		t.Errorf("layers are %v and %v: want the first shared", a, b)
	}
}

func TestCancel(t *testing.T) {
	l := tarOf(t, member{name: "x", body: strings.Repeat("x", 1<<16)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := importer(t).Load(ctx, write(t, "i.tar", archive(t, "x:1", config("amd64", l), l)), Pick{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseArchive(f *testing.F) {
	for _, s := range []string{`[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]`, `[]`, `null`, `[{}]`, `[{"Config":"c","RepoTags":null}]`, `{"a":[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := parseArchive(b)
		if err == nil && len(items) == 0 {
			t.Error("no image and no error")
		}
		for _, it := range items {
			for _, tag := range it.RepoTags {
				if p, err := parseRef(tag); err != nil || familiar(p) != tag {
					t.Errorf("tag %q is not in the familiar form", tag)
				}
			}
		}
	})
}

// A layer's tar, whatever is in it, is refused or unpacks into a tree that
// stays below its root.
func FuzzLayer(f *testing.F) {
	lower, upper := rich(f)
	f.Add(lower)
	f.Add(upper)
	f.Add(tarOf(f, member{name: "a", typ: tar.TypeSymlink, link: "../b"}, member{name: "a/c", body: "x"}))
	p := filepath.Join(fast(f), "layer")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := inspect("sha256:fuzz", cache.Blob{Path: p, Size: int64(len(b))})
		if err != nil {
			return
		}
		files, err := unpack(l, "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		for at, file := range files {
			if err := file.Check(); err != nil || file.Path != at {
				t.Errorf("%s: %v", at, err)
			}
			if d := files[path.Dir(at)]; !d.Mode.IsDir() {
				t.Errorf("%s: no directory above it", at)
			}
		}
	})
}

func FuzzBundle(f *testing.F) {
	l := tarOf(f, member{name: "a/b", body: "x"})
	f.Add(archive(f, "x:1", config("amd64", l), l))
	f.Add(tarOf(f, member{name: "manifest.json", typ: tar.TypeSymlink, link: "x"}, member{name: "x", typ: tar.TypeLink, link: "manifest.json"}))
	f.Add(tarOf(f, member{name: "index.json", body: `{"schemaVersion":2,"manifests":[{"digest":"sha256:00"}]}`}))
	p := filepath.Join(fast(f), "bundle")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		bundle, err := indexTar(file)
		if err != nil {
			return
		}
		for n := range bundle.spans {
			readSmall(bundle, n)
		}
	})
}

func FuzzInflate(f *testing.F) {
	for _, format := range []string{"gzip", "zstd", "plain"} {
		f.Add(compress(f, format, []byte("hello, hello, hello")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		if err := inflate(context.Background(), &out, bytes.NewReader(b), 1<<16); err == nil && out.Len() > 1<<16 {
			t.Errorf("%d bytes", out.Len())
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:00"},"layers":[{}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":null},{"platform":{"os":"linux"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseManifest(b)
		for _, said := range []types.MediaType{"", types.OCIImageIndex} {
			if mt, err := manifestType(said, b); err == nil && !mt.IsImage() && !mt.IsIndex() {
				t.Errorf("neither an image nor an index: %s", mt)
			}
		}
		Importer{}.choose("x:1", b)
	})
}
