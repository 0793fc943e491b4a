package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

// docker24 is an archive as docker 1.10 to 24 save one: a directory for each
// layer, in which the layer may be a link to one that is there already, the
// layer's JSON of before 1.10, and "repositories", of that time as well.
func docker24(t *testing.T, cfg []byte, a, b []byte) []byte {
	t.Helper()
	one, two, three := "1111/", "2222/", "3333/"
	id := layers.DigestOf(cfg).Hex()
	return tarOf(t,
		member{name: one}, member{name: one + "VERSION", body: "1.0"}, member{name: one + "json", body: `{"id":"1111"}`},
		member{name: one + "layer.tar", body: string(a)},
		member{name: two}, member{name: two + "VERSION", body: "1.0"}, member{name: two + "json", body: `{"id":"2222","parent":"1111"}`},
		member{name: two + "layer.tar", body: string(b)},
		member{name: three}, member{name: three + "VERSION", body: "1.0"}, member{name: three + "json", body: `{"id":"3333","parent":"2222"}`},
		member{name: three + "layer.tar", typ: tar.TypeSymlink, link: "../1111/layer.tar"},
		member{name: id + ".json", body: string(cfg)},
		member{name: "manifest.json", body: fmt.Sprintf(
			`[{"Config":"%s.json","RepoTags":["x:1"],"Layers":["1111/layer.tar","2222/layer.tar","3333/layer.tar"]}]`, id)},
		member{name: "repositories", body: `{"x":{"1":"3333"}}`})
}

// docker25 is an archive as docker 25 and later save one: an OCI layout, and a
// manifest.json that names its blobs.
func docker25(t *testing.T, cfg []byte, ls ...[]byte) []byte {
	t.Helper()
	ms := []member{{name: "blobs/"}, {name: "blobs/sha256/"}}
	blob := func(b []byte) string {
		p := "blobs/sha256/" + layers.DigestOf(b).Hex()
		if !slices.ContainsFunc(ms, func(m member) bool { return m.name == p }) {
			ms = append(ms, member{name: p, body: string(b)})
		}
		return p
	}
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      layers.Digest     `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	describe := func(mt string, b []byte) descriptor {
		return descriptor{MediaType: mt, Digest: layers.DigestOf(b), Size: len(b)}
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var names []string
	var ds []descriptor
	for _, l := range ls {
		names = append(names, blob(l))
		ds = append(ds, describe("application/vnd.oci.image.layer.v1.tar", l))
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType,
		"config": describe("application/vnd.oci.image.config.v1+json", cfg), "layers": ds})
	blob(manifest)
	entry := describe(manifestType, manifest)
	entry.Annotations = map[string]string{nameAnnotation: "docker.io/library/x:1", refAnnotation: "1"}
	ms = append(ms,
		member{name: "index.json", body: string(marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{entry}}))},
		member{name: "manifest.json", body: string(marshal([]archiveItem{{Config: blob(cfg), RepoTags: []string{"x:1"}, Layers: names}}))},
		member{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`},
		member{name: "repositories", body: `{"x":{"1":"` + layers.DigestOf(cfg).Hex() + `"}}`})
	return tarOf(t, ms...)
}

// Archives of every docker that has a manifest.json, which is 1.10 and later,
// give the same image.
func TestDockerArchives(t *testing.T) {
	a, b := tarOf(t, member{name: "app", body: "one"}), tarOf(t, member{name: ".wh.app"}, member{name: "conf", body: "two"})
	cfg := config("amd64", a, b, a)
	for _, c := range []struct {
		name, err string
		file      []byte
	}{
		{"docker 24", "", docker24(t, cfg, a, b)},
		{"docker 24, compressed", "", compress(t, "zstd", docker24(t, cfg, a, b))},
		{"docker 25", "", docker25(t, cfg, a, b, a)},
		{"docker 25, compressed", "", compress(t, "gzip", docker25(t, cfg, a, b, a))},
		{"docker 1.9", "docker before 1.10 wrote it; load and save it with a later one", tarOf(t,
			member{name: "1111/layer.tar", body: string(a)}, member{name: "repositories", body: `{"x":{"1":"1111"}}`})},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := importer(t).Load(context.Background(), write(t, "i.tar", c.file), Pick{As: "docker.io/library/x:1"})
			wantErr(t, err, c.err)
			if err != nil {
				return
			}
			if img.ID != layers.DigestOf(cfg) || len(img.Layers()) != 3 || img.Ref != "x:1" {
				t.Errorf("got %s %s with %d layers", img.Ref, img.ID, len(img.Layers()))
			}
			checked(t, img)
		})
	}
}

// Of several images, the one that is to be named so is meant.
func TestLoadByNewName(t *testing.T) {
	x, y := tarOf(t, member{name: "x"}), tarOf(t, member{name: "y"})
	two := tarOf(t,
		member{name: "x.tar", body: string(x)}, member{name: "x.json", body: string(config("amd64", x))},
		member{name: "y.tar", body: string(y)}, member{name: "y.json", body: string(config("amd64", y))},
		member{name: "manifest.json", body: `[{"Config":"x.json","RepoTags":["x:1"],"Layers":["x.tar"]},{"Config":"y.json","RepoTags":["y:1"],"Layers":["y.tar"]}]`})
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, tag := range []string{"v1", "example.org/app:v2"} {
		img := platform(t, "amd64")
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refAnnotation: tag})); err != nil {
			t.Fatal(err)
		}
		h, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		ids[tag] = h.String()
	}
	archive := write(t, "two.tar", two)
	for _, c := range []struct{ file, as, want, err string }{
		{archive, "docker.io/library/y:1", string(layers.DigestOf(config("amd64", y))), ""},
		{archive, "z:1", "", "has no image z:1; it has: x:1, y:1"},
		{dir, "example.org/app:v1", ids["v1"], ""},
		{dir, "example.org/app:v2", ids["example.org/app:v2"], ""},
		{dir, "example.org/app:v3", "", "has no image example.org/app:v3; it has: v1, example.org/app:v2"},
	} {
		img, err := importer(t).Load(context.Background(), c.file, Pick{As: c.as})
		wantErr(t, err, c.err)
		if string(img.ID) != c.want {
			t.Errorf("%s: got %s, want %s", c.as, img.ID, c.want)
		}
	}
}

// A layout's directory becomes the same tar wherever it is, and nothing beside
// the layout is in it.
func TestArchiveOfLayout(t *testing.T) {
	img := platform(t, "amd64")
	var digests []layers.Digest
	for i := range 2 {
		dir := t.TempDir()
		p, err := layout.Write(dir, empty.Index)
		if err == nil {
			err = p.AppendImage(img)
		}
		if err == nil && i > 0 {
			err = os.WriteFile(filepath.Join(dir, "notes"), []byte("x"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := importer(t)
		b, err := m.Archive(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, b.Digest)
		got, err := m.Load(context.Background(), b.Path, Pick{As: "x:1"})
		if err != nil {
			t.Fatal(err)
		}
		checked(t, got)
	}
	if digests[0] != digests[1] {
		t.Errorf("got %v, want the same", digests)
	}
}

// What is in the place of a layout's files is not waited for, and what they
// lead to outside is not read.
func TestHostileLayout(t *testing.T) {
	secret := write(t, "secret", []byte("{}"))
	for _, c := range []struct {
		name, err string
		index     func(path string) error
	}{
		{"nothing", "not an OCI layout", func(string) error { return nil }},
		{"named pipe", "not a regular file", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"directory", "not a regular file", func(p string) error { return os.Mkdir(p, 0o700) }},
		{"link out of it", "escapes", func(p string) error { return os.Symlink(secret, p) }},
		{"link to itself", "too many", func(p string) error { return os.Symlink("index.json", p) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.index(filepath.Join(dir, "index.json")); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 2)
			go func() {
				_, err := importer(t).Archive(context.Background(), dir)
				done <- err
				_, err = importer(t).Load(context.Background(), dir, Pick{})
				done <- err
			}()
			for i, want := range []string{c.err, ""} {
				select {
				case err := <-done:
					if err == nil {
						t.Error("no error")
					} else if i == 0 {
						wantErr(t, err, want)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("still waiting")
				}
			}
		})
	}
}

// What only aufs knew is left out, devices are kept, and all of it lies where
// only root may go.
func TestOddMembers(t *testing.T) {
	l := tarOf(t,
		member{name: ".wh..wh.plnk/", mode: 0o700}, member{name: ".wh..wh.aufs"}, member{name: "d/.wh..wh..opq"},
		member{name: "d/.wh....x"}, member{name: "d/.wh.a b"}, member{name: "d/.whx"}, member{name: "d/wh.y"},
		member{name: "dev/sda", typ: tar.TypeBlock, mode: 0o666}, member{name: "dev/whiteout", typ: tar.TypeChar},
		member{name: "pipe", typ: tar.TypeFifo}, member{name: "bin/su", body: "x", mode: 0o4755},
		member{name: "out", typ: tar.TypeSymlink, link: "../../../../etc/shadow"})
	img := image(t, importer(t), "x:1", l)
	files, err := unpack(img.Layers()[0], "t")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for p, f := range files {
		if !f.Mode.IsDir() {
			got[p] = f.Mode.String()
		}
	}
	const hidden = "Dc---------"
	want := map[string]string{
		"d/...x": hidden, "d/a b": hidden, "d/.whx": "-rw-r--r--", "d/wh.y": "-rw-r--r--",
		"dev/sda": "Drw-rw-rw-", "dev/whiteout": "Dcrw-r--r--", "pipe": "prw-r--r--", "bin/su": "urwxr-xr-x", "out": "Lrwxrwxrwx",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if files["d"].Xattrs[opaqueXattr] != "y" {
		t.Error("d is not opaque")
	}
	tree := checked(t, img)
	if f, ok := tree.Lookup("usr/lib/kscratch/docker"); !ok || f.Mode.Perm() != 0o700 || f.Mode.Type() != fs.ModeDir || f.UID != 0 {
		t.Errorf("the store is %v of %d", f.Mode, f.UID)
	}
}
