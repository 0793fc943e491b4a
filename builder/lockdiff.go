package builder

import (
	"maps"
	"slices"

	"github.com/kscratch/kscratch/layers"
)

// LockChange is an entry in which two locks differ.
type LockChange struct {
	Kind string `json:"kind"` // package, program, image, suite or time
	Name string `json:"name"`
	Old  string `json:"old,omitempty"` // version, or the digest where that is the same; empty: it is new
	New  string `json:"new,omitempty"` // empty: it is gone
}

// Changes returns what differs between the pins of two locks, by kind and
// name. Inputs, which are digests of what the user wrote, are not pins.
func Changes(old, next *Lock) []LockChange {
	var out []LockChange
	for _, kind := range []struct {
		name string
		pins func(*Lock) map[string]pin
	}{{"suite", suitePins}, {"package", packagePins}, {"program", filePins}, {"image", imagePins}} {
		a, b := kind.pins(old), kind.pins(next)
		names := slices.Collect(maps.Keys(a))
		for name := range b {
			if _, both := a[name]; !both {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			if c := (LockChange{Kind: kind.name, Name: name}); c.between(a[name], b[name]) {
				out = append(out, c)
			}
		}
	}
	return out
}

// pin is the version and the digest of an entry.
type pin struct {
	version string
	digest  layers.Digest
}

// between fills c in, and reports whether the pins differ.
func (c *LockChange) between(a, b pin) bool {
	c.Old, c.New = a.version, b.version
	if a.version == b.version {
		c.Old, c.New = string(a.digest), string(b.digest)
	}
	return a != b
}

func suitePins(l *Lock) map[string]pin {
	out := map[string]pin{}
	for _, s := range l.Suites {
		out[s.Name] = pin{s.Date.UTC().Format("2006-01-02 15:04:05"), s.InRelease}
	}
	return out
}

func packagePins(l *Lock) map[string]pin {
	out := map[string]pin{}
	for _, p := range l.Packages {
		out[p.Name] = pin{p.Version, p.Digest}
	}
	return out
}

func filePins(l *Lock) map[string]pin {
	out := map[string]pin{}
	for _, f := range l.Files {
		out[f.Name] = pin{f.Version, f.Digest}
	}
	return out
}

func imagePins(l *Lock) map[string]pin {
	out := map[string]pin{}
	for _, im := range l.Images {
		name, tag := cutTag(im.Name)
		out[name] = pin{tag, im.Digest}
	}
	return out
}
