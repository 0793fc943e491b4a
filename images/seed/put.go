package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// move is something prepared below tmp and its place.
type move struct{ from, to string }

// forgetRemovals drops what docker noted of unfinished removals of layers that
// are baked: docker would finish them after its start and take the new
// directory for the old one.
func (r *root) forgetRemovals(want *baked) error {
	ns, err := r.names(layerDir)
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, l := range want.layers {
		ids[l.id] = true
	}
	for _, n := range ns {
		if !strings.HasSuffix(n, "-removing") {
			continue
		}
		id, err := r.ReadFile(path.Join(layerDir, n, "cache-id"))
		if err == nil && ids[string(bytes.TrimSpace(id))] {
			if err := r.drop(path.Join(layerDir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// putLayers puts every baked layer that is missing or not as it should be.
func (r *root) putLayers(want *baked) error {
	var moves []move
	for _, chain := range slices.Sorted(maps.Keys(want.layers)) {
		ms, err := r.stageLayer(chain, want.layers[chain])
		if err != nil {
			return fmt.Errorf("preparing layer %s: %w", chain, err)
		}
		moves = append(moves, ms...)
	}
	if len(moves) == 0 {
		return nil
	}
	if err := r.sync(); err != nil {
		return err
	}
	for _, m := range moves {
		if err := r.replace(m.from, m.to); err != nil {
			return err
		}
	}
	r.log.Info("baked layers put in place", "layers", len(want.layers), "changes", len(moves))
	return nil
}

// stageLayer prepares the parts of a layer that need to be put: its overlay2
// directory, its short name, and at last its entry in the layerdb.
func (r *root) stageLayer(chain string, l bakedLayer) ([]move, error) {
	var out []move
	stage := func(to string, prepare func(t string) error) error {
		t := r.temp()
		out = append(out, move{t, to})
		return prepare(t)
	}
	dir := path.Join(overlayDir, l.id)
	if !r.overlayRight(dir, l) {
		if err := stage(dir, func(t string) error { return r.makeOverlay(t, l) }); err != nil {
			return nil, err
		}
	}
	short, target := path.Join(linkDir, l.link), path.Join("..", l.id, "diff")
	if got, err := r.Readlink(short); err != nil || got != target {
		if err := stage(short, func(t string) error { return r.Symlink(target, t) }); err != nil {
			return nil, err
		}
	}
	db := path.Join(layerDir, chain)
	if !r.metaRight(db, l) && !r.dockersOwn(db, l) {
		if err := stage(db, func(t string) error { return r.makeMeta(t, l) }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *root) overlayRight(dir string, l bakedLayer) bool {
	target, err := r.Readlink(path.Join(dir, "diff"))
	if err != nil || target != l.diff || !r.same(path.Join(dir, "link"), []byte(l.link)) {
		return false
	}
	if _, err := r.Lstat(path.Join(dir, "committed")); err != nil {
		return false
	}
	if l.lower != nil {
		return r.same(path.Join(dir, "lower"), l.lower)
	}
	_, err = r.Lstat(path.Join(dir, "lower"))
	return errors.Is(err, fs.ErrNotExist)
}

func (r *root) makeOverlay(t string, l bakedLayer) error {
	if err := r.Mkdir(t, 0o710); err != nil {
		return err
	}
	if err := r.Symlink(l.diff, path.Join(t, "diff")); err != nil {
		return err
	}
	if err := r.WriteFile(path.Join(t, "link"), []byte(l.link), 0o644); err != nil {
		return err
	}
	if err := r.WriteFile(path.Join(t, "committed"), nil, 0o600); err != nil || l.lower == nil {
		return err
	}
	return r.WriteFile(path.Join(t, "lower"), l.lower, 0o644)
}

func (r *root) metaRight(db string, l bakedLayer) bool {
	ns, err := r.names(db)
	if err != nil || len(ns) != len(l.meta) {
		return false
	}
	for n, b := range l.meta {
		if !r.same(path.Join(db, n), b) {
			return false
		}
	}
	return true
}

func (r *root) makeMeta(t string, l bakedLayer) error {
	if err := r.Mkdir(t, 0o700); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(l.meta)) {
		if err := r.WriteFile(path.Join(t, n), l.meta[n], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dockersOwn says whether the layerdb has a layer that docker unpacked itself
// and that is whole.
func (r *root) dockersOwn(db string, l bakedLayer) bool {
	id, err := r.ReadFile(path.Join(db, "cache-id"))
	if err != nil || string(id) == l.id || !r.same(path.Join(db, "diff"), l.meta["diff"]) || !fs.ValidPath(string(id)) {
		return false
	}
	if p, ok := l.meta["parent"]; ok && !r.same(path.Join(db, "parent"), p) {
		return false
	}
	size, err := r.ReadFile(path.Join(db, "size"))
	if err != nil {
		return false
	}
	if _, err := strconv.ParseInt(string(size), 10, 64); err != nil {
		return false
	}
	dir := path.Join(overlayDir, string(id))
	st, err := r.Lstat(path.Join(dir, "diff"))
	if err != nil || !st.IsDir() {
		return false
	}
	link, err := r.ReadFile(path.Join(dir, "link"))
	if err != nil || !shortName.Match(link) {
		return false
	}
	_, err = r.Lstat(path.Join(linkDir, string(link)))
	return err == nil
}

func (r *root) putImages(want *baked) error {
	for _, id := range slices.Sorted(maps.Keys(want.images)) {
		p := path.Join(contentDir, id)
		if r.same(p, want.images[id]) {
			continue
		}
		if err := r.put(p, 0o600, want.images[id]); err != nil {
			return err
		}
		r.log.Info("baked image put in place", "id", id)
	}
	return nil
}

// putNames enters the baked names into docker's and takes out those of images
// that go. A file that docker could not read, which would keep it from
// starting, is set aside.
func (r *root) putNames(want *baked, gone map[string]bool) error {
	raw, err := r.ReadFile(namesFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	have, perr := parseNames(raw)
	if perr != nil {
		have = names{}
		if err == nil {
			r.log.Warn("docker's list of names is damaged; starting a new one", "err", perr, "kept", brokenFile)
			if err := r.put(brokenFile, 0o600, raw); err != nil {
				return err
			}
		}
	}
	mergeNames(have, want.names, gone)
	b, err := json.Marshal(struct{ Repositories names }{have})
	if err != nil || bytes.Equal(b, bytes.TrimSpace(raw)) {
		return err
	}
	return r.put(namesFile, 0o600, b)
}

func mergeNames(have, want names, gone map[string]bool) {
	for repo, refs := range have {
		maps.DeleteFunc(refs, func(_, id string) bool { return gone[strings.TrimPrefix(id, "sha256:")] })
		if len(refs) == 0 {
			delete(have, repo)
		}
	}
	for repo, refs := range want {
		if have[repo] == nil {
			have[repo] = map[string]string{}
		}
		maps.Copy(have[repo], refs)
	}
}
