package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/kscratch/kscratch/layers"
)

const at = "usr/lib/kscratch/docker"

// rich has everything that a layer can bring.
func rich(t testing.TB) (lower, upper []byte) {
	lower = tarOf(t,
		member{name: "./", mode: 0o711},
		member{name: "./bin/"},
		member{name: "./bin/su", body: "su", mode: 0o4755},
		member{name: "./bin/ping", body: "ping", mode: 0o755, xattr: map[string]string{"security.capability": "\x01\x00\x00\x02"}},
		member{name: "./bin/ln", typ: tar.TypeLink, link: "./bin/su"},
		member{name: "./lib", typ: tar.TypeSymlink, link: "usr/lib"},
		member{name: "./var/cache/old", body: "old"},
		member{name: "./etc/gone", body: "gone"})
	upper = tarOf(t,
		member{name: "etc/.wh.gone"},
		member{name: "var/cache/.wh..wh..opq"},
		member{name: "var/cache/", mode: 0o750},
		member{name: "var/cache/new", body: "new"},
		member{name: ".wh..wh.plnk/"},
		member{name: "tmp/", mode: 0o1777})
	return lower, upper
}

func listing(tree *layers.Tree, dir string) string {
	var b strings.Builder
	for f := range tree.Under(dir) {
		fmt.Fprintf(&b, "%s %s", strings.TrimPrefix(strings.TrimPrefix(f.Path, dir), "/"), f.Mode)
		if f.Mode.IsRegular() {
			c, _ := f.Read()
			fmt.Fprintf(&b, " %q", c)
		}
		if f.Link != "" {
			fmt.Fprintf(&b, " -> %s", f.Link)
		}
		if f.Mode.Type()&fs.ModeDevice != 0 {
			fmt.Fprintf(&b, " dev %d", f.Rdev)
		}
		if len(f.Xattrs) > 0 {
			fmt.Fprintf(&b, " %q", f.Xattrs)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestStoreUnpacksAsDockerDoes(t *testing.T) {
	lower, upper := rich(t)
	img := image(t, importer(t), "registry.k8s.io/thing:v1", lower, upper)
	tree := checked(t, img)
	for i, want := range []string{`
 drwx--x--x
bin drwxr-xr-x
bin/ln urwxr-xr-x "su"
bin/ping -rwxr-xr-x "ping" map["security.capability":"\x01\x00\x00\x02"]
bin/su urwxr-xr-x "su"
etc drwxr-xr-x
etc/gone -rw-r--r-- "gone"
lib Lrwxrwxrwx -> usr/lib
var drwxr-xr-x
var/cache drwxr-xr-x
var/cache/old -rw-r--r-- "old"
`, `
 drwxr-xr-x
etc drwxr-xr-x
etc/gone Dc--------- dev 0
tmp dtrwxrwxrwx
var drwxr-xr-x
var/cache drwxr-x--- map["trusted.overlay.opaque":"y"]
var/cache/new -rw-r--r-- "new"
`} {
		got := listing(tree, path.Join(at, "overlay2", cacheID(img.Layers()[i].Chain), "diff"))
		if got != want[1:] {
			t.Errorf("layer %d:\n%swant:%s", i, got, want)
		}
	}
	for f := range tree.Under(at) {
		if f.Owner != "image:registry.k8s.io/thing:v1" && f.Owner != "kscratch:images" {
			t.Errorf("%s is owned by %s", f.Path, f.Owner)
		}
	}
	if size := img.Layers()[0].Size; size != int64(len("su"+"ping"+"usr/lib"+"old"+"gone")) {
		t.Errorf("size %d", size)
	}
}

func TestStoreSharesLayers(t *testing.T) {
	m := importer(t)
	base, x := tarOf(t, member{name: "base"}), tarOf(t, member{name: "x"})
	one, two := image(t, m, "b:1", base, x), image(t, m, "a:1", base)
	three, err := one.As("docker.io/library/c:1")
	if err != nil {
		t.Fatal(err)
	}
	tree := checked(t, one, two, three)
	got := listing(tree, at+"/image/overlay2/repositories.json")
	want := fmt.Sprintf(" -rw------- %q\n", fmt.Sprintf(`{"Repositories":{"a":{"a:1":"%s"},"b":{"b:1":"%s"},"c":{"c:1":"%s"}}}`, two.ID, one.ID, one.ID))
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	n := 0
	for f := range tree.Under(at + "/overlay2") {
		if path.Base(f.Path) == "base" {
			n++
			if f.Owner != "image:a:1" {
				t.Errorf("shared layer owned by %s", f.Owner)
			}
		}
	}
	if n != 1 {
		t.Errorf("the shared layer is there %d times", n)
	}
	_, err = Store(context.Background(), []Image{one, one}, at)
	wantErr(t, err, "two images are named b:1")
	_, err = Store(context.Background(), []Image{one}, "../x")
	wantErr(t, err, "not a clean relative path")
}

func TestStoreIsReproducible(t *testing.T) {
	lower, upper := rich(t)
	var all []string
	var digests []layers.Digest
	for range 2 {
		m := importer(t)
		imgs := []Image{image(t, m, "x:1", lower, upper), image(t, m, "y:1", lower)}
		if len(all) == 1 {
			imgs[0], imgs[1] = imgs[1], imgs[0]
		}
		l, err := Store(context.Background(), imgs, at)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := layers.Merge(l)
		if err != nil {
			t.Fatal(err)
		}
		all, digests = append(all, listing(tree, at)), append(digests, l.Digest())
	}
	if all[0] != all[1] || digests[0] != digests[1] {
		t.Error("two stores of the same images differ")
	}
}

// treeGetter gives tar-split the content of a baked layer's files.
type treeGetter struct {
	tree *layers.Tree
	dir  string
}

func (g treeGetter) Get(name string) (io.ReadCloser, error) {
	f, ok := g.tree.Lookup(path.Join(g.dir, name))
	if !ok {
		return nil, fs.ErrNotExist
	}
	return f.Open()
}

// What docker does for `docker save`: the tar comes out as it went in.
func TestTarSplitGivesTheTarBack(t *testing.T) {
	lower, upper := rich(t)
	img := image(t, importer(t), "x:1", lower, upper)
	tree := checked(t, img)
	for i, want := range [][]byte{lower, upper} {
		l := img.Layers()[i]
		f, _ := tree.Lookup(path.Join(at, layerDB, l.Chain.Hex(), "tar-split.json.gz"))
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = asm.WriteOutputTarStream(treeGetter{tree, path.Join(at, "overlay2", cacheID(l.Chain), "diff")}, storage.NewJSONUnpacker(z), &out)
		if err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("layer %d: %v, %d bytes, want %d", i, err, out.Len(), len(want))
		}
	}
}

func TestNames(t *testing.T) {
	d := layers.DigestOf([]byte("x"))
	if id := cacheID(d); len(id) != 64 {
		t.Errorf("cache ID %q", id)
	}
	if l := linkName(d); len(l) != 26 || strings.ToUpper(l) != l {
		t.Errorf("link %q", l)
	}
	if c := chainID(d, d); c != layers.DigestOf([]byte(d+" "+d)) || chainID("", d) != d {
		t.Errorf("chain ID %s", c)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	img := image(t, importer(t), "x:1", tarOf(t, member{name: "a", body: "1"}), tarOf(t, member{name: "b", body: "2"}))
	good := checked(t, img)
	low, top := img.Layers()[0], img.Layers()[1]
	db := path.Join(at, layerDB, top.Chain.Hex())
	overlay := path.Join(at, "overlay2", cacheID(top.Chain))
	for _, c := range []struct{ path, content, err string }{
		{path.Join(db, "diff"), string(low.DiffID), "its parent and diff ID give"},
		{path.Join(db, "parent"), string(layers.DigestOf(nil)), "is missing"},
		{path.Join(db, "cache-id"), "short", "want 64 hex digits"},
		{path.Join(db, "cache-id"), cacheID(low.Chain), "is also that of"},
		{path.Join(db, "tar-split.json.gz"), "x", "reading the tar-split"},
		{path.Join(db, "tar-split.json.gz"), "-", "is missing"},
		{path.Join(overlay, "link"), "lower", "upper-case"},
		{path.Join(overlay, "link"), linkName(low.Chain), "is also that of"},
		{path.Join(overlay, "lower"), "l/X", "lower is"},
		{path.Join(overlay, "committed"), "-", "committed is missing"},
		{path.Join(overlay, "diff/b"), "-", "names b with 1 bytes"},
		{path.Join(overlay, "diff/b"), "22", "names b with 1 bytes"},
		{path.Join(overlay, "diff/.wh.a"), "", "in the form of a tar"},
		{path.Join(at, "image/overlay2/imagedb/content/sha256", img.ID.Hex()), "{}", "its content has digest"},
		{path.Join(at, "image/overlay2/imagedb/content/sha256", img.ID.Hex()), "-", "no image needs it"},
		{path.Join(at, "image/overlay2/repositories.json"), `{"Repositories":{"y":{"x:1":"sha256:00"}}}`, "x:1 is listed under y"},
		{path.Join(at, "image/overlay2/repositories.json"), `{}`, "has no name"},
		{path.Join(at, "image/overlay2/repositories.json"), `{`, "repositories.json"},
		{path.Join(at, layerDB, low.Chain.Hex()), "-", "its parent"},
	} {
		t.Run(path.Base(c.path)+" "+c.err, func(t *testing.T) {
			bad := good.Filter(func(f layers.File) bool { return f.Path != c.path || c.content != "-" })
			if c.content != "-" {
				var err error
				bad, err = layers.Overlay(bad, layers.Of("bad", "", layers.Regular(c.path, 0o644, "test", []byte(c.content))))
				if err != nil {
					t.Fatal(err)
				}
			}
			err := Check(bad, at)
			if err == nil {
				t.Fatalf("no error, want %q", c.err)
			}
			wantErr(t, errors.Join(err), c.err)
		})
	}
}
