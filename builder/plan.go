package builder

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Plan says what a build would do. Making one asks no server and writes
// nothing.
type Plan struct {
	Role    Role     `json:"role"`
	Lock    string   `json:"lock"`    // what becomes of the lock
	Work    Work     `json:"work"`    // how much is made
	Inputs  []Input  `json:"inputs"`  // in the order of the lock, or as the cluster file asks for them
	Fetch   int64    `json:"fetch"`   // bytes that the content store lacks, of the inputs that are pinned
	Unknown int      `json:"unknown"` // inputs of which only the lock to come will tell
	Outputs []string `json:"outputs"` // files that would be written
}

// Work is how much of an image a build makes; see [Make].
type Work string

// The kinds of work, from the least.
const (
	WorkNothing    Work = "nothing"
	WorkSettings   Work = "settings"
	WorkEverything Work = "everything"
)

// Input is what an image is made of.
type Input struct {
	Kind    string        `json:"kind"`
	Name    string        `json:"name"`
	Version string        `json:"version,omitempty"`
	From    string        `json:"from"`             // where it is from; of what is not pinned, where it is looked for
	Size    int64         `json:"size,omitempty"`   // bytes; 0 if it is not known
	Digest  layers.Digest `json:"digest,omitempty"` // empty if it is not pinned
	Stored  bool          `json:"stored"`           // the content store has it
}

// PlanBuild plans the build of a role into a directory. The lock is nil if
// there is none that fits; why says what becomes of the lock.
func PlanBuild(s *Spec, l *Lock, why string, role Role, dir string, o Options) (Plan, error) {
	p := Plan{Role: role, Lock: why, Work: WorkEverything}
	for _, f := range o.formats() {
		p.Outputs = append(p.Outputs, filepath.Join(dir, string(role)+f.Ext))
	}
	if o.SBOM {
		p.Outputs = append(p.Outputs, filepath.Join(dir, string(role)+".spdx.json"))
	}
	p.Outputs = append(p.Outputs, filepath.Join(dir, string(role)+".manifest.json"))
	if l == nil {
		p.Inputs = wanted(s, role)
		p.Unknown = len(p.Inputs)
		return p, nil
	}
	p.Inputs = pinnedInputs(l, role, o.Store)
	for _, in := range p.Inputs {
		if !in.Stored {
			p.Fetch += in.Size
		}
	}
	if _, ok := standing(l, role, dir, o); ok {
		p.Work, p.Outputs = WorkNothing, nil
		return p, nil
	}
	img, err := reconfigured(s, l, role, o)
	if err != nil || img == nil {
		return p, err
	}
	if d, err := img.donor(dir); err == nil {
		d.close()
		p.Work = WorkSettings
	}
	return p, nil
}

func pinnedInputs(l *Lock, role Role, store *cache.Store) []Input {
	var out []Input
	stored := func(d layers.Digest) bool {
		_, ok := store.Lookup(d)
		return ok
	}
	for _, p := range l.packages(role) {
		out = append(out, Input{"package", p.Name, p.Version, p.Archive + " " + p.Path, p.Size, p.Digest, stored(p.Digest)})
	}
	for _, f := range l.Files {
		out = append(out, Input{"program", f.Name, f.Version, f.From, f.Size, f.Digest, stored(f.Digest)})
	}
	for _, im := range l.images(role) {
		name, version := cutTag(im.Name)
		in := Input{Kind: "image", Name: name, Version: version, From: im.From, Digest: im.Digest, Stored: stored(im.Digest)}
		if scheme, _, _ := strings.Cut(im.From, ":"); scheme+":" == programScheme || scheme+":" == distroScheme {
			in.Stored = true // made of inputs that are named above, or will be
		}
		out = append(out, in)
	}
	return out
}

// cutTag parts name:tag; a colon before a slash is a port's.
func cutTag(ref string) (name, tag string) {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// wanted is what a cluster file asks for by name, dependencies apart.
func wanted(s *Spec, role Role) []Input {
	var out []Input
	for _, name := range s.PackageNames(role) {
		out = append(out, Input{Kind: "package", Name: name, From: "Debian " + s.Base.Suite})
	}
	from := func(sources []string) string { return strings.Join(sources, ", ") }
	c := s.Components
	out = append(out,
		Input{Kind: "program", Name: serverTarball, Version: s.Kubernetes.Version, From: from(s.Kubernetes.Sources)},
		Input{Kind: "program", Name: "cri-dockerd", Version: c.CRIDockerd.Version, From: from(c.CRIDockerd.Sources)},
	)
	if s.Network.Mode == "flannel" {
		out = append(out, Input{Kind: "program", Name: flanneld, Version: c.Flannel.Version, From: from(c.Flannel.Sources)})
	}
	if role == Master {
		out = append(out, Input{Kind: "image", Name: "etcd", Version: c.Etcd.Version, From: from(c.Etcd.Sources)})
	}
	out = append(out,
		Input{Kind: "image", Name: "coredns", Version: c.CoreDNS.Version, From: from(c.CoreDNS.Sources)},
		Input{Kind: "image", Name: "pause", Version: c.Pause.Version, From: from(c.Pause.Sources)},
	)
	for _, im := range s.Images {
		name, version := cutTag(im.Name)
		out = append(out, Input{Kind: "image", Name: name, Version: version, From: im.From})
	}
	return out
}

// JSON writes the plan as JSON.
func (p Plan) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(p)
}

// Text writes the plan for people: what would be fetched by name, the rest by
// numbers, or all of it by name.
func (p Plan) Text(w io.Writer, all bool) error {
	fmt.Fprintf(w, "role   %s\nlock   %s\nwork   %s\n", p.Role, p.Lock, p.Work)
	for _, f := range p.Outputs {
		fmt.Fprintf(w, "write  %s\n", f)
	}
	here := 0
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, in := range p.Inputs {
		verb := "fetch"
		switch {
		case in.Digest == "":
			verb = "find"
		case in.Stored:
			verb = "have"
			here++
		}
		if verb == "have" && !all {
			continue
		}
		size := ""
		if in.Size > 0 {
			size = fmt.Sprintf("%.1f MiB", float64(in.Size)/mib)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", verb, in.Kind, in.Name, in.Version, size, in.From)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if p.Unknown > 0 {
		_, err := fmt.Fprintf(w, "%d inputs are found, with what they depend on, when the lock is made\n", p.Unknown)
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d inputs are in the content store; %.1f MiB are to be fetched\n", here, len(p.Inputs), float64(p.Fetch)/mib)
	return err
}
