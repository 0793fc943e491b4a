package inspect

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// page writes a report as text: titles, and tables of aligned columns. Texts
// from an image cannot steer a terminal.
type page struct {
	w     *tabwriter.Writer
	begun bool
}

func newPage(w io.Writer) *page { return &page{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// title begins a part.
func (p *page) title(format string, args ...any) {
	if p.begun {
		fmt.Fprintln(p.w)
	}
	p.begun = true
	fmt.Fprintln(p.w, Printable(fmt.Sprintf(format, args...)))
}

// row writes a line of a table, indented.
func (p *page) row(cells ...any) {
	p.begun = true
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = Printable(fmt.Sprint(c))
	}
	fmt.Fprintln(p.w, strings.TrimRight("  "+strings.Join(out, "\t"), "\t "))
}

func (p *page) flush() error { return p.w.Flush() }

// Printable returns s with what a terminal would obey quoted.
func Printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return strconv.FormatInt(n, 10) + " B"
}

// Text writes a report for people.
func (r Report) Text(w io.Writer) error {
	p := newPage(w)
	p.title("Image")
	p.row("file", r.Image+" ("+r.Format+", a disk of "+bytesText(r.Size)+")")
	p.row("role", r.Build.Role)
	p.row("version", r.Build.Version)
	p.row("root", r.Build.Root)
	p.row("time", r.Build.Time.Format(time.RFC3339))
	p.row("cluster", r.Build.Cluster+" (security: "+r.Build.Security+")")
	p.row("lock", r.Build.Lock)
	r.partText(p)
	r.softwareText(p)
	r.bootText(p)
	p.title("Debian packages (%d)", len(r.Packages))
	for _, d := range r.Packages {
		p.row(d.Name, d.Version, d.Arch, bytesText(d.Bytes))
	}
	return p.flush()
}

// partText writes how the disk is made.
func (r Report) partText(p *page) {
	p.title("Partitions")
	for _, d := range r.Partitions {
		p.row(d.Label, d.Type, bytesText(d.Size), d.UUID)
	}
	p.title("Verity")
	p.row("root hash", r.Verity.RootHash)
	state := "not read; --verify reads it all"
	switch {
	case r.Verity.Problem != "":
		state = "DAMAGED: " + r.Verity.Problem
	case r.Verity.Checked:
		state = "every block matches the root hash"
	}
	p.row("data", bytesText(r.Verity.DataSize)+": "+state)
	p.row("partitions", map[bool]string{true: "their UUIDs are the halves of the root hash", false: "their UUIDs do NOT fit the root hash"}[r.Verity.Matches])
	p.title("Unified kernel image")
	for _, s := range r.UKI {
		p.row(s.Name, bytesText(s.Size))
	}
	for _, s := range r.UKI {
		for line := range strings.Lines(s.Text) {
			p.row(s.Name+":", strings.TrimSpace(line))
		}
	}
}

// softwareText writes what is in the root.
func (r Report) softwareText(p *page) {
	p.title("Versions")
	for _, v := range r.Versions {
		p.row(v.Name, v.Version, v.From)
	}
	p.title("Root by source")
	files, bytes := 0, int64(0)
	for _, l := range r.Layers {
		p.row(l.Name, bytesText(l.Bytes), itoa(l.Files)+" files", itoa(l.Other)+" others")
		files, bytes = files+l.Files+l.Other, bytes+l.Bytes
	}
	p.row("all", bytesText(bytes), itoa(files)+" entries")
	p.title("Container images")
	for _, im := range r.Images {
		digest := string(im.Digest)
		if digest == "" {
			digest = "image ID " + string(im.ID)
		}
		p.row(im.Name, bytesText(im.Size), digest)
	}
	p.title("Set-user-ID and set-group-ID programs (%d)", len(r.Setuid))
	for _, s := range r.Setuid {
		p.row(s)
	}
}

// bootText writes what the first boot asks and does.
func (r Report) bootText(p *page) {
	p.title("First boot accepts")
	p.row("pod CIDR", r.FirstBoot.PodCIDR)
	for i, s := range r.FirstBoot.Sources {
		p.row("", itoa(i+1)+". "+s)
	}
	if r.FirstBoot.Example != "" {
		p.row("example", r.FirstBoot.Example)
	}
	p.row("node name", r.FirstBoot.NodeName)
	p.title("First boot writes (%d)", len(r.Config))
	for _, c := range r.Config {
		p.row(c.Mode, c.Path, c.Note)
	}
	p.title("Secrets in the image (%d)", len(r.Secrets))
	for _, s := range r.Secrets {
		use := s.Use
		if use == "" {
			use = "NOT DECLARED by the build"
		}
		p.row(s.Path, s.Kind, use)
	}
}

// ListText writes files for people: with long one line has what ls -l tells,
// and who brings the file.
func ListText(w io.Writer, entries []Entry, long bool) error {
	p := newPage(w)
	for _, e := range entries {
		name := Printable(e.Path)
		if !long {
			fmt.Fprintln(p.w, name)
			continue
		}
		if e.Link != "" {
			name += " -> " + Printable(e.Link)
		}
		fmt.Fprintf(p.w, "%s\t%s\t%d:%d\t%d\t%s\t%s\n", e.Type, e.Mode, e.UID, e.GID, e.Size, name, Printable(e.Owner))
	}
	return p.flush()
}
