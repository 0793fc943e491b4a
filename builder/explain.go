package builder

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// layerParts is what a layer of an image derives from: its cache key by parts.
type layerParts struct {
	Layer string
	Parts map[string]string // value by name
}

// partsOf returns the layers of an image in the order in which they are made,
// with everything that each of them derives from. A layer that others derive
// from is a part of them by its key.
func partsOf(s *Spec, l *Lock, role Role) ([]layerParts, error) {
	program, err := buildID()
	if err != nil {
		return nil, err
	}
	packages, programs, images := layerParts{"packages", map[string]string{}}, layerParts{"programs", map[string]string{}}, layerParts{"container images", map[string]string{}}
	for _, p := range l.packages(role) {
		packages.Parts[p.Name] = p.Version + " " + short(p.Digest)
	}
	for _, f := range l.Files {
		programs.Parts[f.Name] = f.Version + " " + short(f.Digest)
	}
	for _, im := range l.images(role) {
		images.Parts[im.Name] = short(im.Digest)
	}
	root := layerParts{"root", map[string]string{
		"packages": packages.key(), "programs": programs.key(), "container images": images.key(),
		"time of the lock": l.Time.UTC().Format("2006-01-02T15:04:05Z"),
		"kscratch":         short(l.Inputs.Kscratch), "program kscratch": program,
	}}
	config := layerParts{"configuration", map[string]string{
		"PKI": short(l.Inputs.PKI), "root": root.key(),
	}}
	for _, f := range l.Inputs.Files {
		config.Parts["file "+f.Path] = short(f.Digest)
	}
	b, err := s.encode()
	if err != nil {
		return nil, err
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("internal error: reading a cluster file as rendered: %w", err)
	}
	settings := map[string]string{}
	field.Flatten(settings, "", v)
	for k, v := range settings {
		config.Parts["cluster.yaml: "+k] = v
	}
	return []layerParts{packages, programs, images, root, config}, nil
}

// key is the digest of all parts.
func (p layerParts) key() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(p.Parts)) {
		all = append(all, k, p.Parts[k])
	}
	return short(layers.DigestOfParts(all...))
}

func short(d layers.Digest) string {
	if d == "" {
		return ""
	}
	return d.Hex()[:12]
}

// Explanation says what a build makes again, and because of which inputs.
type Explanation struct {
	Role   Role
	First  bool // nothing is known of a build before
	Layers []LayerChange
}

// LayerChange is how the inputs of a layer differ from those of the build
// before.
type LayerChange struct {
	Name    string
	Key     string         // of the layer, the first 12 digits
	Parts   int            // how many inputs there are
	Changed []field.Change // by the name of the input
}

// kindParts is the kind of what the content store remembers of the inputs.
const kindParts = "parts"

func partsKey(role Role, o Options) string {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		dir = o.Dir
	}
	return string(layers.DigestOfParts(string(role), dir))
}

// Explain compares the inputs of a build with those of the last one of this
// role in the same directory. It reads and changes nothing else.
func Explain(s *Spec, l *Lock, role Role, o Options) (Explanation, error) {
	now, err := partsOf(s, l, role)
	if err != nil {
		return Explanation{}, err
	}
	before, known := cache.Recall[[]layerParts](o.Store, kindParts, partsKey(role, o))
	e := Explanation{Role: role, First: !known}
	for _, p := range now {
		c := LayerChange{Name: p.Layer, Key: p.key(), Parts: len(p.Parts)}
		i := slices.IndexFunc(before, func(b layerParts) bool { return b.Layer == p.Layer })
		if i >= 0 {
			c.Changed = field.Changes(before[i].Parts, p.Parts)
		}
		e.Layers = append(e.Layers, c)
	}
	return e, nil
}

// rememberParts notes the inputs of a build for the next one to compare with.
func rememberParts(ctx context.Context, s *Spec, l *Lock, role Role, o Options) {
	now, err := partsOf(s, l, role)
	if err == nil {
		err = cache.Remember(ctx, o.Store, kindParts, partsKey(role, o), now)
	}
	if err != nil {
		o.log().Debug("the next build cannot say what has changed", "because", err)
	}
}

// Text writes an explanation for people: a line for each layer, and one for
// each input of it that has changed.
func (e Explanation) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range e.Layers {
		what := "the same"
		switch {
		case e.First:
			what = "not known: this is the first build here"
		case len(l.Changed) > 0:
			what = fmt.Sprintf("%d changed", len(l.Changed))
		}
		fmt.Fprintf(t, "%s\t%s\t%d inputs\t%s\n", l.Name, l.Key, l.Parts, what)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range e.Layers {
		for _, c := range l.Changed {
			if _, err := fmt.Fprintf(w, "  %s: %s: %s → %s\n", l.Name, c.Name, cmp.Or(c.Old, "none"), cmp.Or(c.New, "none")); err != nil {
				return err
			}
		}
	}
	return nil
}
