package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/derive"
)

// Reason says why a path is as it is. A path may have two: what the first boot
// writes to /etc hides what the root has there.
type Reason struct {
	Path   string   `json:"path"`             // absolute, links on the way followed
	In     string   `json:"in"`               // root or first boot
	Owner  string   `json:"owner"`            // who brings it, as recorded
	What   string   `json:"what"`             // the same in words
	Digest string   `json:"digest,omitempty"` // of the content; empty for a secret
	Lock   []string `json:"lock,omitempty"`   // the entries of the lock that pin it
	Chain  []string `json:"chain,omitempty"`  // packages from one that was asked for to the one that brings it
	Keys   []Key    `json:"keys"`             // of the cluster file that decide about it
}

// Key is a key of the cluster file.
type Key struct {
	Key   string `json:"key"`             // such as base.packages[0]; kscratch: it is in every image
	Value string `json:"value,omitempty"` // that the image was built with, JSON
	Place string `json:"place,omitempty"` // file:line:col, or the default
}

// Why says who put a path of the node into the image, and why. Places are
// those of a cluster file, see [builder.Places]; nil if there is none at hand.
func (i *Image) Why(p string, places map[string]string) ([]Reason, error) {
	var out []Reason
	if f, ok := i.Config.Lookup(relative(p)); ok && i.inReport("/"+f.Path) {
		out = append(out, i.whyConfig("/"+f.Path))
	} else if i.inReport("/" + relative(p)) { // a unit that the root has, enabled or masked
		out = append(out, i.whyConfig("/"+relative(p)))
	}
	if f, ok := i.Root.Lookup(relative(p)); ok {
		r, err := i.whyRoot(f)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("/%s: %w: neither in the root nor written by the first boot", relative(p), fs.ErrNotExist)
	}
	values, err := i.values()
	if err != nil {
		return nil, err
	}
	for n := range out {
		for k := range out[n].Keys {
			out[n].Keys[k].fill(values, places)
		}
	}
	return out, nil
}

func (i *Image) inReport(p string) bool {
	for _, e := range i.report.Entries {
		if e.Path == p {
			return true
		}
	}
	return false
}

func (i *Image) whyConfig(p string) Reason {
	r := Reason{Path: p, In: "first boot", Owner: "ignition", What: "written by Ignition, rendered by kscratch from the cluster file"}
	for _, e := range i.report.Entries {
		if e.Path == p {
			r.Digest = e.Digest
			if e.Note != "" {
				r.What += " (" + e.Note + ")"
			}
		}
	}
	if own, ok := i.Build.Butane[p]; ok {
		key, file, _ := strings.Cut(own, " ")
		r.Owner, r.What = "butane:"+file, "written by Ignition, last changed by the Butane file "+file
		r.Keys = append(r.Keys, Key{Key: key})
	}
	for _, s := range i.Build.Secrets {
		if s.Path == p {
			r.What += "; a secret: " + s.Use
			r.Digest = "" // by which a weak password could be found
		}
	}
	for _, key := range ConfigKeys(p) {
		r.Keys = append(r.Keys, Key{Key: key})
	}
	if len(r.Keys) == 0 {
		r.Keys = []Key{{Key: "kscratch"}}
	}
	return r
}

// whyRoot explains a file of the root by its recorded owner.
func (i *Image) whyRoot(f layers.File) (Reason, error) {
	found, ok := i.owners[f.Path]
	if !ok {
		return Reason{}, fmt.Errorf("/%s is in the root but not in its record: the image was changed after it was built", f.Path)
	}
	r := Reason{Path: "/" + f.Path, In: "root", Owner: found.Owner}
	if found.Sum != "" {
		r.Digest = "sha256:" + found.Sum
	}
	kind, name, _ := strings.Cut(found.Owner, ":")
	switch {
	case kind == "deb":
		i.whyPackage(&r)
	case kind == "derive":
		r.What = "computed by kscratch, which runs no maintainer script"
		for _, s := range derive.Steps {
			if s.Name == name {
				r.What += ": " + s.Doc
			}
		}
		r.Keys = []Key{{Key: "kscratch"}}
	case kind == "image":
		i.whyImage(&r, name)
	case kind == "kscratch":
		r.What = "kscratch's own: " + name
		r.Keys = []Key{{Key: "kscratch"}}
	default:
		i.whyProgram(&r)
	}
	return r, nil
}

func (i *Image) whyPackage(r *Reason) {
	for _, p := range i.Record.Packages {
		if p.Owner() != r.Owner {
			continue
		}
		r.What = "Debian package " + p.Name + " " + p.Version
		r.Lock = []string{fmt.Sprintf("packages: %s %s %s, %s, %s", p.Name, p.Version, p.Arch, i.Build.Sources["deb:"+p.Name], p.Digest)}
		r.Chain = i.chain(p.Name)
		if len(r.Chain) > 0 {
			r.Keys = []Key{{Key: i.Build.Keys["deb:"+r.Chain[0]]}}
		}
	}
}

// chain returns the shortest way from a package that was asked for to one that
// is there because of it, by what depends on what.
func (i *Image) chain(name string) []string {
	needs := map[string][]string{}
	for _, p := range i.Record.Packages {
		needs[p.Name] = p.Depends
	}
	from := map[string]string{}
	var queue []string
	for _, part := range slices.Sorted(maps.Keys(i.Build.Keys)) {
		if n, ok := strings.CutPrefix(part, "deb:"); ok && i.isPackage(n) {
			from[n] = ""
			queue = append(queue, n)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		for _, n := range needs[queue[0]] {
			if _, seen := from[n]; !seen {
				from[n] = queue[0]
				queue = append(queue, n)
			}
		}
	}
	if _, ok := from[name]; !ok {
		return nil
	}
	out := []string{name}
	for at := from[name]; at != ""; at = from[at] {
		out = append(out, at)
	}
	slices.Reverse(out)
	return out
}

func (i *Image) isPackage(name string) bool {
	return slices.ContainsFunc(i.Record.Packages, func(p record.Package) bool { return p.Name == name })
}

func (i *Image) whyImage(r *Reason, name string) {
	r.What = "container image " + name
	if key, ok := i.Build.Keys["image:"+name]; ok {
		r.Keys = []Key{{Key: key}}
	}
	for _, im := range i.Record.Images {
		if im.Name != name {
			continue
		}
		digest := im.Digest
		if digest == "" {
			digest = im.ID
		}
		from := i.Build.Sources["image:"+im.Name]
		r.Lock = append(r.Lock, fmt.Sprintf("images: %s from %s, %s", im.Name, from, digest))
		if program, ok := strings.CutPrefix(from, "program:"); ok {
			r.Lock = append(r.Lock, i.lockedPrograms(program)...)
		}
		if strings.HasPrefix(from, "server:") {
			r.Lock = append(r.Lock, i.lockedPrograms("kubernetes-server")...)
		}
	}
}

func (i *Image) whyProgram(r *Reason) {
	name, version, _ := strings.Cut(r.Owner, "=")
	locked := name
	r.What = name + " " + version
	if name == "kubernetes" {
		locked = "kubernetes-server"
		r.What = "Kubernetes " + version + ", a program of its server tarball"
	}
	r.Lock = i.lockedPrograms(locked)
	if key, ok := i.Build.Keys["program:"+locked]; ok {
		r.Keys = []Key{{Key: key}}
	}
}

func (i *Image) lockedPrograms(name string) (out []string) {
	for _, p := range i.Record.Programs {
		if p.Name == name {
			out = append(out, fmt.Sprintf("files: %s %s from %s, %s", p.Name, p.Version, i.Build.Sources["program:"+p.Name], p.Digest))
		}
	}
	return out
}

// values returns the recorded cluster file as plain values.
func (i *Image) values() (any, error) {
	b, err := i.Initrd.ReadFile(record.SpecPath)
	if err != nil {
		return nil, err
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("reading /%s of the initrd: %w", record.SpecPath, err)
	}
	return v, nil
}

// fill adds value and place to a key.
func (k *Key) fill(values any, places map[string]string) {
	if k.Key == "kscratch" {
		return
	}
	if v, err := valueAt(values, k.Key); err == nil {
		if b, err := json.Marshal(v); err == nil {
			k.Value = string(b)
		}
	}
	if places == nil {
		return
	}
	k.Place = "the default"
	if at, ok := places[k.Key]; ok {
		k.Place = at
	}
}

var errNoKey = errors.New("no such key")

// valueAt returns the value at a key such as base.packages[0].
func valueAt(v any, key string) (any, error) {
	for _, part := range strings.FieldsFunc(key, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[part]
			if !ok {
				return nil, errNoKey
			}
			v = next
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 || n >= len(at) {
				return nil, errNoKey
			}
			v = at[n]
		default:
			return nil, errNoKey
		}
	}
	return v, nil
}

// WhyText writes reasons for people.
func WhyText(w io.Writer, reasons []Reason) error {
	p := newPage(w)
	for _, r := range reasons {
		p.title("%s (%s)", r.Path, r.In)
		p.row("owner", r.Owner)
		p.row("what", r.What)
		if r.Digest != "" {
			p.row("digest", r.Digest)
		}
		for _, l := range r.Lock {
			p.row("lock", l)
		}
		if len(r.Chain) > 1 {
			p.row("needed by", strings.Join(r.Chain, " → "))
		}
		for _, k := range r.Keys {
			p.row("key", k.text())
		}
	}
	return p.flush()
}

func (k Key) text() string {
	if k.Key == "kscratch" {
		return "none: every image has it"
	}
	s := k.Key
	if k.Value != "" {
		s += ": " + k.Value
	}
	if k.Place != "" {
		s += " (" + k.Place + ")"
	}
	return s
}
