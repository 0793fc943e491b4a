package seed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// A node is a root with baked images, a docker data root, and what docker does.
type node struct {
	t     *testing.T
	m     images.Importer
	baked string
	data  string
	log   bytes.Buffer
}

// fast returns a temporary directory in memory where there is one: every run
// of Install syncs its file system.
func fast(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kscratch-seed-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newNode(t *testing.T) *node {
	t.Helper()
	s, err := cache.Open(fast(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := fast(t)
	return &node{t: t, m: images.Importer{Store: s}, baked: filepath.Join(dir, "baked"), data: filepath.Join(dir, "docker")}
}

// image makes an image of one layer per word: a word is a file and its content.
func (n *node) image(ref string, words ...string) images.Image {
	n.t.Helper()
	img, err := n.m.Compose(context.Background(), ref, images.Config{Cmd: words, Created: time.Unix(0, 0)},
		layers.Of("l", layers.DigestOf([]byte(words[0])), layers.Regular(words[0], 0o644, "test", []byte(words[0]))))
	if err != nil {
		n.t.Fatal(err)
	}
	if len(words) == 1 {
		return img
	}
	return n.stack(ref, words...)
}

// stack makes an image of several layers, by way of a docker-archive.
func (n *node) stack(ref string, words ...string) images.Image {
	n.t.Helper()
	var parts []images.Image
	var diffs, names []string
	for _, w := range words {
		p := n.image("part:1", w)
		parts = append(parts, p)
		d := p.Layers()[0].DiffID
		diffs, names = append(diffs, fmt.Sprintf("%q", d)), append(names, fmt.Sprintf("%q", "blobs/"+d.Hex()))
	}
	dir := fast(n.t)
	put := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "blobs"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	for _, p := range parts {
		b, err := os.ReadFile(p.Layers()[0].Blob.Path)
		if err != nil {
			n.t.Fatal(err)
		}
		put("blobs/"+p.Layers()[0].DiffID.Hex(), string(b))
	}
	put("config.json", fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffs, ",")))
	put("manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":[%q],"Layers":[%s]}]`, ref, strings.Join(names, ",")))
	img, err := n.m.Load(context.Background(), dir, images.Pick{})
	if err != nil {
		n.t.Fatal(err)
	}
	return img
}

// bake replaces the node's root by one with these images.
func (n *node) bake(imgs ...images.Image) {
	n.t.Helper()
	if err := os.RemoveAll(n.baked); err != nil {
		n.t.Fatal(err)
	}
	l, err := images.Store(context.Background(), imgs, "docker")
	if err != nil {
		n.t.Fatal(err)
	}
	tree, err := layers.Merge(l)
	if err == nil {
		err = images.Check(tree, "docker")
	}
	if err != nil {
		n.t.Fatal(err)
	}
	for f := range tree.Under("docker") {
		if err := unpack(filepath.Join(n.baked, strings.TrimPrefix(f.Path, "docker")), f); err != nil {
			n.t.Fatal(err)
		}
	}
}

func unpack(p string, f layers.File) error {
	if f.Mode.IsDir() {
		return os.MkdirAll(p, 0o755)
	}
	b, err := f.Read()
	if err != nil {
		return err
	}
	return os.WriteFile(p, b, f.Mode.Perm())
}

func (n *node) install() {
	n.t.Helper()
	if err := Install(n.baked, n.data, slog.New(slog.NewTextHandler(&n.log, nil))); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) path(elem ...string) string {
	return filepath.Join(append([]string{n.data}, elem...)...)
}

func (n *node) read(elem ...string) string {
	n.t.Helper()
	b, err := os.ReadFile(n.path(elem...))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

func (n *node) write(content string, elem ...string) {
	n.t.Helper()
	p := n.path(elem...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) exists(elem ...string) bool {
	_, err := os.Lstat(n.path(elem...))
	return err == nil
}

// cacheID returns where the layerdb says that a chain is.
func (n *node) cacheID(chain layers.Digest) string { return n.read(layerDir, chain.Hex(), "cache-id") }

// works reports why docker could not make a container of an image by this
// name: it goes the way that docker goes, and reads a file of every layer.
func (n *node) works(img images.Image, words ...string) error {
	var f struct{ Repositories map[string]map[string]string }
	if err := json.Unmarshal([]byte(n.read(namesFile)), &f); err != nil {
		return err
	}
	repo, _, _ := strings.Cut(img.Ref, ":")
	if got := f.Repositories[repo][img.Ref]; got != string(img.ID) {
		return fmt.Errorf("name %s leads to %q, want %s", img.Ref, got, img.ID)
	}
	if got := n.read(contentDir, img.ID.Hex()); got != string(img.RawConfig()) {
		return fmt.Errorf("configuration %q", got)
	}
	var links []string
	for i, l := range img.Layers() {
		if got := n.read(layerDir, l.Chain.Hex(), "diff"); got != string(l.DiffID) {
			return fmt.Errorf("layer %d is %s", i, got)
		}
		id := n.cacheID(l.Chain)
		if lower, _ := os.ReadFile(n.path(overlayDir, id, "lower")); string(lower) != strings.Join(links, ":") && i > 0 && n.linked(id) && n.linked(n.cacheID(img.Layers()[i-1].Chain)) {
			return fmt.Errorf("layer %d: lower %q, want %q", i, lower, links)
		}
		short := "l/" + n.read(overlayDir, id, "link")
		b, err := os.ReadFile(n.path(overlayDir, short, words[i]))
		if err != nil || string(b) != words[i] {
			return fmt.Errorf("layer %d: content %q, %v", i, b, err)
		}
		links = append([]string{short}, links...)
	}
	return nil
}

func (n *node) linked(id string) bool {
	_, err := os.Readlink(n.path(overlayDir, id, "diff"))
	return err == nil
}

func (n *node) mustWork(img images.Image, words ...string) {
	n.t.Helper()
	if err := n.works(img, words...); err != nil {
		n.t.Fatalf("%s: %v", img.Ref, err)
	}
}

// dockerLoad does what docker does for an image that it pulls: layers that it
// knows are shared, others are unpacked under random IDs.
func (n *node) dockerLoad(img images.Image, words ...string) {
	n.t.Helper()
	var parent string
	var lower []string
	for i, l := range img.Layers() {
		if !n.exists(layerDir, l.Chain.Hex()) {
			id := layers.DigestOf([]byte("random" + string(l.Chain))).Hex()
			n.write(string(l.DiffID), layerDir, l.Chain.Hex(), "diff")
			n.write("1", layerDir, l.Chain.Hex(), "size")
			n.write(id, layerDir, l.Chain.Hex(), "cache-id")
			n.write(words[i], overlayDir, id, "diff", words[i])
			short := strings.ToUpper(id[:26])
			n.write(short, overlayDir, id, "link")
			if parent != "" {
				n.write(parent, layerDir, l.Chain.Hex(), "parent")
				n.write(strings.Join(lower, ":"), overlayDir, id, "lower")
			}
			if err := os.MkdirAll(n.path(linkDir), 0o700); err != nil {
				n.t.Fatal(err)
			}
			if err := os.Symlink("../"+id+"/diff", n.path(linkDir, short)); err != nil {
				n.t.Fatal(err)
			}
		}
		parent = string(l.Chain)
		lower = append([]string{"l/" + n.read(overlayDir, n.cacheID(l.Chain), "link")}, lower...)
	}
	n.write(string(img.RawConfig()), contentDir, img.ID.Hex())
	var f struct{ Repositories names }
	if b, err := os.ReadFile(n.path(namesFile)); err == nil {
		json.Unmarshal(b, &f)
	}
	if f.Repositories == nil {
		f.Repositories = names{}
	}
	repo, _, _ := strings.Cut(img.Ref, ":")
	mergeNames(f.Repositories, names{repo: {img.Ref: string(img.ID)}}, nil)
	b, err := json.Marshal(f)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(string(b), namesFile)
}

// dockerRemove does what `docker rmi` does to an image that shares nothing.
func (n *node) dockerRemove(img images.Image) {
	n.t.Helper()
	os.Remove(n.path(contentDir, img.ID.Hex()))
	for _, l := range img.Layers() {
		id := n.cacheID(l.Chain)
		os.RemoveAll(n.path(linkDir, n.read(overlayDir, id, "link")))
		os.RemoveAll(n.path(overlayDir, id))
		os.RemoveAll(n.path(layerDir, l.Chain.Hex()))
	}
}

// container records that a container is made of an image.
func (n *node) container(name string, img images.Image) {
	n.write(string(img.Layers()[len(img.Layers())-1].Chain), mountDir, name, "parent")
}

// snapshot lists the data root with contents, links and inodes.
func (n *node) snapshot() string {
	n.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(n.data, func(p string, d fs.DirEntry, err error) error {
		if err != nil || strings.Contains(p, "/kscratch/") {
			return err
		}
		rel, _ := filepath.Rel(n.data, p)
		fmt.Fprintf(&b, "%s %s", rel, d.Type())
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			l, _ := os.Readlink(p)
			fmt.Fprintf(&b, " -> %s", l)
		case d.Type().IsRegular():
			c, _ := os.ReadFile(p)
			fmt.Fprintf(&b, " %x", layers.DigestOf(c).Hex()[:8])
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

func TestInstall(t *testing.T) {
	n := newNode(t)
	x, y := n.image("x:1", "base", "x"), n.image("y:1", "base", "y")
	n.bake(x, y)
	n.install()
	n.mustWork(x, "base", "x")
	n.mustWork(y, "base", "y")
	first := n.snapshot()
	n.log.Reset()
	n.install()
	if n.snapshot() != first || n.log.Len() > 0 {
		t.Errorf("a second run changed something: %s", &n.log)
	}
}

// Every kind of damage is put right by the next run.
func TestRepair(t *testing.T) {
	n := newNode(t)
	x, y := n.image("x:1", "base", "x"), n.image("y:1", "y")
	n.bake(x, y)
	n.install()
	whole := n.snapshot()
	top, id := x.Layers()[1].Chain.Hex(), n.cacheID(x.Layers()[1].Chain)
	link := n.read(overlayDir, id, "link")
	rm := func(elem ...string) func() { return func() { os.RemoveAll(n.path(elem...)) } }
	set := func(s string, elem ...string) func() { return func() { n.write(s, elem...) } }
	for name, damage := range map[string]func(){
		"docker rmi":                func() { n.dockerRemove(y) },
		"docker rmi of shared":      rm(contentDir, x.ID.Hex()),
		"no overlay directory":      rm(overlayDir, id),
		"no diff":                   rm(overlayDir, id, "diff"),
		"no committed":              rm(overlayDir, id, "committed"),
		"no lower":                  rm(overlayDir, id, "lower"),
		"torn lower":                set("", overlayDir, id, "lower"),
		"torn link":                 set("", overlayDir, id, "link"),
		"no short name":             rm(linkDir, link),
		"short name is a directory": func() { rm(linkDir, link)(); n.write("x", linkDir, link, "x") },
		"torn configuration":        set("{", contentDir, x.ID.Hex()),
		"no layer":                  rm(layerDir, top),
		"torn layer":                set("", layerDir, top, "size"),
		"torn tar-split":            set("", layerDir, top, "tar-split.json.gz"),
		"torn cache ID":             set("", layerDir, top, "cache-id"),
		"strange file in a layer":   set("windows", layerDir, top, "os"),
		"layer is a file":           func() { rm(layerDir, top)(); n.write("x", layerDir, top) },
		"overlay is a link":         func() { rm(overlayDir, id)(); os.Symlink("/etc", n.path(overlayDir, id)) },
		"diff leads elsewhere":      func() { rm(overlayDir, id, "diff")(); os.Symlink("/etc", n.path(overlayDir, id, "diff")) },
		"no names":                  rm(namesFile),
		"empty names":               set(`{"Repositories":{}}`, namesFile),
		"null names":                set(`{"Repositories":null}`, namesFile),
		"torn names":                set(`{"Repositories":{"x`, namesFile),
		"name leads elsewhere":      func() { n.write(strings.ReplaceAll(n.read(namesFile), x.ID.Hex(), y.ID.Hex()), namesFile) },
		"unfinished removal":        func() { n.write(id, layerDir, top+"-abc-removing", "cache-id") },
		"leftovers":                 func() { os.MkdirAll(n.path(tmp, "7/x"), 0o755); n.write("x", tmp, "8") },
		"no record":                 rm(recordFile),
		"torn record":               set("{", recordFile),
		"everything":                func() { os.RemoveAll(n.data) },
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			damage()
			n.install()
			n.mustWork(x, "base", "x")
			n.mustWork(y, "y")
			if got := n.snapshot(); got != whole {
				t.Errorf("got\n%swant\n%s", got, whole)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(n *node, old images.Image)
		check func(n *node, old images.Image) error
	}{
		{"old image goes", func(*node, images.Image) {}, func(n *node, old images.Image) error {
			return n.gone(old)
		}},
		{"its extra name goes", func(n *node, old images.Image) {
			mine, _ := old.As("mine:1")
			n.dockerLoad(mine, "base", "old")
		}, func(n *node, old images.Image) error {
			if strings.Contains(n.read(namesFile), "mine") {
				return fmt.Errorf("names: %s", n.read(namesFile))
			}
			return n.gone(old)
		}},
		{"a container keeps its layers, not its image", func(n *node, old images.Image) {
			n.container("c1", old)
		}, func(n *node, old images.Image) error {
			if n.exists(contentDir, old.ID.Hex()) || !n.exists(layerDir, old.Layers()[1].Chain.Hex()) {
				return fmt.Errorf("image is there or layer is not")
			}
			os.RemoveAll(n.path(mountDir, "c1"))
			n.install()
			return n.gone(old)
		}},
		{"what docker pulled stays", func(n *node, _ images.Image) {
			n.dockerLoad(n.image("pulled:1", "p1", "p2"), "p1", "p2")
		}, func(n *node, old images.Image) error {
			if err := n.works(n.image("pulled:1", "p1", "p2"), "p1", "p2"); err != nil {
				return err
			}
			return n.gone(old)
		}},
		{"what stands on what is still baked stays", func(n *node, _ images.Image) {
			n.dockerLoad(n.image("mine:1", "base", "m"), "base", "m")
		}, func(n *node, old images.Image) error {
			if err := n.works(n.image("mine:1", "base", "m"), "base", "m"); err != nil {
				return err
			}
			return n.gone(old)
		}},
		{"what stood on the old image goes", func(n *node, _ images.Image) {
			n.dockerLoad(n.image("mine:1", "base", "old", "m"), "base", "old", "m")
		}, func(n *node, old images.Image) error {
			if err := n.gone(n.image("mine:1", "base", "old", "m")); err != nil {
				return err
			}
			return n.gone(old)
		}},
		{"a broken layer of docker's waits for its container", func(n *node, _ images.Image) {
			mine := n.image("mine:1", "base", "old", "m")
			n.dockerLoad(mine, "base", "old", "m")
			n.container("c1", mine)
		}, func(n *node, old images.Image) error {
			mine := n.image("mine:1", "base", "old", "m")
			if n.exists(contentDir, mine.ID.Hex()) || !n.exists(layerDir, mine.Layers()[2].Chain.Hex()) || !n.exists(layerDir, old.Layers()[1].Chain.Hex()) {
				return fmt.Errorf("image is there or a layer is not")
			}
			os.RemoveAll(n.path(mountDir, "c1"))
			n.install()
			if err := n.gone(mine); err != nil {
				return err
			}
			return n.gone(old)
		}},
		{"record lost", func(n *node, _ images.Image) { os.Remove(n.path(recordFile)) }, func(n *node, old images.Image) error {
			return n.gone(old)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			old, fresh := n.image("app:1", "base", "old"), n.image("app:2", "base", "new")
			n.bake(old)
			n.install()
			c.setup(n, old)
			n.bake(fresh)
			n.install()
			n.mustWork(fresh, "base", "new")
			if err := c.check(n, old); err != nil {
				t.Error(err)
			}
			n.bake(old) // and back
			n.install()
			n.mustWork(old, "base", "old")
		})
	}
}

// gone reports what is left of an image and its top layer.
func (n *node) gone(img images.Image) error {
	top := img.Layers()[len(img.Layers())-1].Chain.Hex()
	switch {
	case n.exists(contentDir, img.ID.Hex()), strings.Contains(n.read(namesFile), img.ID.Hex()):
		return fmt.Errorf("image %s is still there", img.Ref)
	case n.exists(layerDir, top):
		return fmt.Errorf("top layer of %s is still there", img.Ref)
	}
	es, err := os.ReadDir(n.path(overlayDir))
	if err != nil {
		return err
	}
	for _, e := range es {
		if _, err := os.Stat(n.path(overlayDir, e.Name(), "diff")); err != nil && e.Name() != "l" {
			return fmt.Errorf("overlay2/%s is left over", e.Name())
		}
	}
	ls, err := os.ReadDir(n.path(linkDir))
	if err != nil {
		return err
	}
	for _, e := range ls {
		if _, err := os.Stat(n.path(linkDir, e.Name())); err != nil {
			return fmt.Errorf("overlay2/l/%s leads nowhere", e.Name())
		}
	}
	return nil
}

// The same layer pulled before it came baked: docker's stays in use.
func TestDockersOwnLayerStays(t *testing.T) {
	n := newNode(t)
	x := n.image("x:1", "base", "x")
	n.dockerLoad(n.image("p:1", "base"), "base")
	n.bake(x)
	n.install()
	n.mustWork(x, "base", "x")
	n.mustWork(n.image("p:1", "base"), "base")
	if n.linked(n.cacheID(x.Layers()[0].Chain)) {
		t.Error("docker's layer was replaced")
	}
	n.bake(n.image("z:1", "z"))
	n.install()
	n.mustWork(n.image("p:1", "base"), "base")
	if err := n.gone(x); err != nil {
		t.Error(err)
	}
}

// A run that stops anywhere leaves what the next one puts right: replay each
// prefix of the writes of an upgrade by failing after so many of them.
func TestStopAnywhere(t *testing.T) {
	n := newNode(t)
	old, fresh := n.image("app:1", "base", "old"), n.image("app:2", "base", "new")
	n.bake(old)
	n.install()
	n.dockerLoad(n.image("mine:1", "base", "m"), "base", "m")
	n.bake(fresh)
	start := filepath.Join(fast(t), "start")
	if err := os.CopyFS(start, os.DirFS(n.data)); err != nil {
		t.Fatal(err)
	}
	n.install()
	done, stops := n.snapshot(), 0
	for limit := 1; ; limit++ {
		os.RemoveAll(n.data)
		if err := os.CopyFS(n.data, os.DirFS(start)); err != nil {
			t.Fatal(err)
		}
		stopped := n.installUntil(limit)
		if stopped {
			stops++
			n.install()
		}
		if got := n.snapshot(); got != done {
			t.Fatalf("stopped after %d: got\n%swant\n%s", limit, got, done)
		}
		if !stopped {
			break
		}
	}
	if stops < 20 {
		t.Errorf("only %d stops", stops)
	}
}

// installUntil runs an Install that dies when it is about to make its
// limit-th change, and says whether it died.
func (n *node) installUntil(limit int) (died bool) {
	n.t.Helper()
	want, err := readBaked(n.baked)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := openRoot(n.data, slog.New(slog.DiscardHandler))
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	defer func() {
		if p := recover(); p != nil {
			if p != errDied {
				panic(p)
			}
			died = true
		}
	}()
	r.step = func() {
		if limit--; limit == 0 {
			panic(errDied)
		}
	}
	if err := install(r, want); err != nil {
		n.t.Fatal(err)
	}
	return false
}

var errDied = fmt.Errorf("died")

func TestNothingOutsideTheDataRootIsTouched(t *testing.T) {
	n := newNode(t)
	x, z := n.image("x:1", "x"), n.image("z:1", "z")
	n.bake(x)
	n.install()
	before := n.cacheID(x.Layers()[0].Chain)
	keep := filepath.Join(n.baked, overlayDir, before, "diff", "x")
	if err := os.RemoveAll(n.path(overlayDir, before)); err != nil { // as docker rmi does
		t.Fatal(err)
	}
	n.install()
	// An image that is not baked any more, its files still there.
	next := filepath.Join(filepath.Dir(n.baked), "next")
	old := n.baked
	n.baked = next
	n.bake(z)
	n.install()
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("removing went through the link: %v", err)
	}
	n.mustWork(z, "z")
	if n.exists(layerDir, x.Layers()[0].Chain.Hex()) {
		t.Error("the old layer is still known")
	}
	n.baked = old
}

func TestInstallRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(n *node, id, chain string)
		err    string
	}{
		{"no baked store", func(n *node, _, _ string) { os.RemoveAll(n.baked) }, "repositories.json: no such file"},
		{"damaged names", func(n *node, _, _ string) { os.WriteFile(filepath.Join(n.baked, namesFile), []byte("{"), 0o600) }, "parsing repositories.json"},
		{"name of nothing", func(n *node, _, _ string) {
			os.WriteFile(filepath.Join(n.baked, namesFile), []byte(`{"Repositories":{"x":{"x:1":"sha256:00"}}}`), 0o600)
		}, "x:1 leads to sha256:00, which is missing"},
		{"cache ID leads out", func(n *node, _, chain string) {
			os.WriteFile(filepath.Join(n.baked, layerDir, chain, "cache-id"), []byte("../../x"), 0o600)
		}, "want 64 hex digits"},
		{"link leads out", func(n *node, id, _ string) {
			os.WriteFile(filepath.Join(n.baked, overlayDir, id, "link"), []byte("../../x"), 0o600)
		}, "want 26 upper-case"},
		{"no files", func(n *node, id, _ string) { os.RemoveAll(filepath.Join(n.baked, overlayDir, id, "diff")) }, "no such file"},
		{"stray entry", func(n *node, id, _ string) { os.Mkdir(filepath.Join(n.baked, layerDir, "x"), 0o700) }, "not named by a digest"},
		{"data root is a file", func(n *node, _, _ string) { os.WriteFile(n.data, nil, 0o600) }, "not a directory"},
		{"overlay2 leads out", func(n *node, _, _ string) {
			os.MkdirAll(n.data, 0o700)
			os.Symlink("/etc", n.path(overlayDir))
		}, "overlay2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			x := n.image("x:1", "x")
			n.bake(x)
			b, err := os.ReadFile(filepath.Join(n.baked, layerDir, x.Layers()[0].Chain.Hex(), "cache-id"))
			if err != nil {
				t.Fatal(err)
			}
			c.damage(n, string(b), x.Layers()[0].Chain.Hex())
			err = Install(n.baked, n.data, nil)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestTwoInstallsAtOnce(t *testing.T) {
	n := newNode(t)
	n.bake(n.image("x:1", "x"))
	n.install()
	r, err := openRoot(n.data, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := Install(n.baked, n.data, nil); err == nil || !strings.Contains(err.Error(), "another Install") {
		t.Errorf("error %v", err)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{`{"Repositories":{"x":{"x:1":"sha256:00"}}}`, `{"Repositories":{"x":null}}`, `{}`, `null`, `{"Repositories":null}`} {
		f.Add([]byte(s))
	}
	want := names{"y": {"y:1": "sha256:11"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		have, err := parseNames(raw)
		if err != nil {
			return
		}
		mergeNames(have, want, map[string]bool{"00": true})
		if have["y"]["y:1"] != "sha256:11" {
			t.Error("a baked name is missing")
		}
		for _, refs := range have {
			for ref, id := range refs {
				if id == "sha256:00" {
					t.Errorf("%s is still there", ref)
				}
			}
		}
	})
}

func FuzzImageConfig(f *testing.F) {
	f.Add("sha256:00", "sha256:01")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := chainsOf([]string{a, b}); len(got) != 2 || slices.Contains(got[1:], "") {
			t.Errorf("chains %q", got)
		}
	})
}
