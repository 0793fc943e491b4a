package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/tar/storage"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kscratch/kscratch/layers"
)

// Check reports every law that the image store at a directory of a tree
// breaks: each chain ID is what its diff IDs give; each parent is there, and a
// layer's lower directories are those of its parents; cache IDs and links are
// well-formed and unique; each layer is committed, has files, has a tar-split
// that fits them, and is needed; each configuration is named by its hash and
// its layers are there; names lead to images.
func Check(t *layers.Tree, at string) error {
	c := &checker{t: t, at: at, links: map[string]string{}, ids: map[string]string{}, used: map[layers.Digest]bool{}}
	c.images()
	c.repositories()
	for _, chain := range c.chains() {
		if err := c.layer(chain); err != nil {
			c.fail("layer %s: %w", chain, err)
		}
		if !c.used[chain] {
			c.fail("layer %s: no image needs it", chain)
		}
	}
	return errors.Join(c.errs...)
}

type checker struct {
	t     *layers.Tree
	at    string
	links map[string]string
	ids   map[string]string
	used  map[layers.Digest]bool
	errs  []error
}

func (c *checker) fail(format string, a ...any) { c.errs = append(c.errs, fmt.Errorf(format, a...)) }

func (c *checker) read(elem ...string) (string, error) {
	f, ok := c.t.Lookup(path.Join(append([]string{c.at}, elem...)...))
	if !ok {
		return "", fmt.Errorf("%s is missing", path.Join(elem...))
	}
	b, err := f.Read()
	return string(b), err
}

func (c *checker) has(elem ...string) bool {
	_, ok := c.t.Lookup(path.Join(append([]string{c.at}, elem...)...))
	return ok
}

const layerDB = "image/overlay2/layerdb/sha256"

// names returns the entries of a directory of the store.
func (c *checker) names(dir string) []string {
	var out []string
	dir = path.Join(c.at, dir)
	for f := range c.t.Under(dir) {
		if path.Dir(f.Path) == dir {
			out = append(out, path.Base(f.Path))
		}
	}
	return out
}

func (c *checker) chains() []layers.Digest {
	var out []layers.Digest
	for _, n := range c.names(layerDB) {
		out = append(out, layers.Digest("sha256:"+n))
	}
	return out
}

func (c *checker) layer(chain layers.Digest) error {
	db := path.Join(layerDB, chain.Hex())
	diff, err := c.read(db, "diff")
	if err != nil {
		return err
	}
	parent, err := c.parent(db)
	if err != nil {
		return err
	}
	if got := chainID(layers.Digest(parent), layers.Digest(diff)); got != chain {
		return fmt.Errorf("its parent and diff ID give %s", got)
	}
	id, err := c.read(db, "cache-id")
	if err != nil {
		return err
	}
	if layers.Digest("sha256:"+id).Check() != nil {
		return fmt.Errorf("cache ID %q: want 64 hex digits", id)
	}
	if other, ok := c.ids[id]; ok {
		return fmt.Errorf("cache ID %s is also that of %s", id, other)
	}
	c.ids[id] = string(chain)
	if err := c.overlay(chain, id, parent); err != nil {
		return err
	}
	return c.split(db, id)
}

func (c *checker) parent(db string) (string, error) {
	if !c.has(db, "parent") {
		return "", nil
	}
	p, err := c.read(db, "parent")
	if err == nil && !c.has(layerDB, layers.Digest(p).Hex()) {
		err = fmt.Errorf("its parent %s is missing", p)
	}
	return p, err
}

func (c *checker) overlay(chain layers.Digest, id, parent string) error {
	dir := path.Join("overlay2", id)
	for _, n := range []string{"diff", "committed"} {
		if !c.has(dir, n) {
			return fmt.Errorf("%s/%s is missing", dir, n)
		}
	}
	link, err := c.read(dir, "link")
	if err != nil {
		return err
	}
	if len(link) != linkLength || strings.Trim(link, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return fmt.Errorf("link %q: want %d upper-case letters and digits", link, linkLength)
	}
	if other, ok := c.links[link]; ok {
		return fmt.Errorf("link %s is also that of %s", link, other)
	}
	c.links[link] = string(chain)
	want, err := c.lower(parent)
	if err != nil {
		return err
	}
	got := ""
	if c.has(dir, "lower") {
		got, err = c.read(dir, "lower")
	}
	if err == nil && got != want {
		err = fmt.Errorf("lower is %q, want %q", got, want)
	}
	return err
}

// lower returns what the lower file of a layer on top of parent must hold.
func (c *checker) lower(parent string) (string, error) {
	var parts []string
	for n := 0; parent != ""; n++ {
		if n > maxLayers {
			return "", fmt.Errorf("parents go in a circle or are more than %d", maxLayers)
		}
		db := path.Join(layerDB, layers.Digest(parent).Hex())
		id, err := c.read(db, "cache-id")
		if err != nil {
			return "", err
		}
		link, err := c.read("overlay2", id, "link")
		if err != nil {
			return "", err
		}
		parts = append(parts, "l/"+link)
		if parent, err = c.parent(db); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, ":"), nil
}

// split checks that every file whose content the tar-split asks for is there
// with its size, and that no whiteout was left under its tar name.
func (c *checker) split(db, id string) error {
	raw, err := c.read(db, "tar-split.json.gz")
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(strings.NewReader(raw))
	if err != nil {
		return fmt.Errorf("reading the tar-split: %w", err)
	}
	diff := path.Join(c.at, "overlay2", id, "diff")
	for u := storage.NewJSONUnpacker(z); ; {
		e, err := u.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the tar-split: %w", err)
		}
		if e.Type != storage.FileType || e.Size == 0 {
			continue
		}
		if f, ok := c.t.Lookup(path.Join(diff, e.GetName())); !ok || f.Size != e.Size {
			return fmt.Errorf("the tar-split names %s with %d bytes, which is missing or of another size", e.GetName(), e.Size)
		}
	}
	for f := range c.t.Under(diff) {
		if strings.HasPrefix(path.Base(f.Path), whiteout) {
			return fmt.Errorf("/%s: a whiteout in the form of a tar", f.Path)
		}
	}
	return nil
}

func (c *checker) images() {
	const dir = "image/overlay2/imagedb/content/sha256"
	for _, id := range c.names(dir) {
		raw, err := c.read(dir, id)
		if err == nil && layers.DigestOf([]byte(raw)).Hex() != id {
			err = fmt.Errorf("its content has digest %s", layers.DigestOf([]byte(raw)))
		}
		if err == nil {
			err = c.rootfs([]byte(raw))
		}
		if err != nil {
			c.fail("image %s: %w", id, err)
		}
	}
}

func (c *checker) rootfs(raw []byte) error {
	cf, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	var chain layers.Digest
	for _, d := range cf.RootFS.DiffIDs {
		chain = chainID(chain, layers.Digest(d.String()))
		c.used[chain] = true
		if !c.has(layerDB, chain.Hex()) {
			return fmt.Errorf("its layer %s is missing", chain)
		}
	}
	return nil
}

func (c *checker) repositories() {
	raw, err := c.read("image/overlay2/repositories.json")
	if err != nil {
		c.fail("%w", err)
		return
	}
	var r struct {
		Repositories map[string]map[string]layers.Digest
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		c.fail("repositories.json: %w", err)
	}
	named := map[string]bool{}
	for repo, refs := range r.Repositories {
		for ref, id := range refs {
			named[id.Hex()] = true
			if !strings.HasPrefix(ref, repo+":") && !strings.HasPrefix(ref, repo+"@") {
				c.fail("repositories.json: %s is listed under %s", ref, repo)
			}
			if !c.has("image/overlay2/imagedb/content/sha256", id.Hex()) {
				c.fail("repositories.json: %s leads to %s, which is missing", ref, id)
			}
		}
	}
	for _, id := range c.names("image/overlay2/imagedb/content/sha256") {
		if !named[id] {
			c.fail("image %s: has no name", id)
		}
	}
	slices.SortFunc(c.errs, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
}
