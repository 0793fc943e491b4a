package ignition

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_3/types"
	"github.com/vincent-petithory/dataurl"
)

// Report is what an Ignition config puts on a node, sorted by path.
type Report struct {
	Entries []Entry
}

// Entry is one thing in an Ignition config.
type Entry struct {
	Path   string      // absolute; of a unit or drop-in where Ignition puts it
	Mode   fs.FileMode // type and permission bits; zero permissions: Ignition's default
	Owner  string      // user:group by name or number; root:root unless the config says otherwise
	Note   string      // "enabled", "masked", "gzip", or the URL of content that is not in the config
	Digest string      // sha256:… of the content; empty without content
	Body   []byte      // the content
}

// List returns what an Ignition config, spec 3.3.0 or older, holds.
func List(config []byte) (Report, error) {
	c, err := parse(config)
	if err != nil {
		return Report{}, err
	}
	return reportOf(c)
}

func reportOf(c types.Config) (Report, error) {
	var r Report
	for _, d := range c.Storage.Directories {
		r.Entries = append(r.Entries, Entry{Path: d.Path, Mode: fs.ModeDir | perm(d.Mode), Owner: owner(d.Node)})
	}
	for _, l := range c.Storage.Links {
		r.Entries = append(r.Entries, Entry{Path: l.Path, Mode: fs.ModeSymlink, Owner: owner(l.Node), Note: "to " + deref(l.Target)})
	}
	for _, f := range c.Storage.Files {
		e := Entry{Path: f.Path, Mode: perm(f.Mode), Owner: owner(f.Node)}
		if err := e.content(f.Contents); err != nil {
			return Report{}, fmt.Errorf("reading the content of %s: %w", f.Path, err)
		}
		r.Entries = append(r.Entries, e)
	}
	for _, u := range c.Systemd.Units {
		r.Entries = append(r.Entries, unitEntries(u)...)
	}
	slices.SortStableFunc(r.Entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return r, nil
}

func unitEntries(u types.Unit) []Entry {
	const dir = "/etc/systemd/system/"
	var out []Entry
	e := Entry{Path: dir + u.Name, Mode: 0o644, Owner: "root:root"}
	switch {
	case u.Mask != nil && *u.Mask:
		e.Note = "masked"
	case u.Enabled != nil && *u.Enabled:
		e.Note = "enabled"
	case u.Enabled != nil:
		e.Note = "disabled"
	}
	e.set([]byte(deref(u.Contents)))
	if e.Note != "" || len(e.Body) > 0 {
		out = append(out, e)
	}
	for _, d := range u.Dropins {
		e := Entry{Path: dir + u.Name + ".d/" + d.Name, Mode: 0o644, Owner: "root:root"}
		e.set([]byte(deref(d.Contents)))
		out = append(out, e)
	}
	return out
}

func (e *Entry) content(r types.Resource) error {
	if r.Source == nil {
		return nil
	}
	if !strings.HasPrefix(*r.Source, "data:") {
		e.Note = *r.Source // fetched by the node
		return nil
	}
	u, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		return err
	}
	e.Note = deref(r.Compression) // undone by the node
	e.set(u.Data)
	return nil
}

func (e *Entry) set(b []byte) {
	if len(b) == 0 {
		return
	}
	sum := sha256.Sum256(b)
	e.Body, e.Digest = b, "sha256:"+hex.EncodeToString(sum[:])
}

func owner(n types.Node) string {
	return name(n.User.ID, n.User.Name) + ":" + name(n.Group.ID, n.Group.Name)
}

func name(id *int, name *string) string {
	switch {
	case name != nil:
		return *name
	case id != nil && *id != 0:
		return fmt.Sprint(*id)
	}
	return "root"
}

func perm(m *int) fs.FileMode {
	if m == nil {
		return 0
	}
	return fs.FileMode(*m) & fs.ModePerm
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
