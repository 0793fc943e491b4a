package aptfake

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// Deb describes a binary package. Only the name is required.
type Deb struct {
	Name    string
	Version string // "" means 1.0-1
	Arch    string // "" means amd64
	Suite   string // "" means [Trixie]
	Source  string // the Source field; "" means that it is named like the package
	Section string // "" means misc

	// Relations to other packages, as they stand in a control file.
	Depends, PreDepends, Recommends, Provides, Conflicts, Breaks, Replaces string

	Essential bool
	Fields    map[string]string // further fields of the control file

	// Files are the content. Directories above them are added; owners,
	// modes, targets and extended attributes are kept, modification times
	// are [Date].
	Files     []layers.File
	Scripts   map[string]string // maintainer scripts: "postinst" → text
	Conffiles []string          // absolute paths
	Triggers  string            // the triggers file

	// Compress is the compression of both archives inside: "", ".gz", ".xz"
	// or ".zst". None is the default, so that no digest depends on a
	// compressor.
	Compress string
}

func (d Deb) withDefaults() Deb {
	for p, v := range map[*string]string{&d.Version: "1.0-1", &d.Arch: "amd64", &d.Suite: Trixie, &d.Section: "misc"} {
		if *p == "" {
			*p = v
		}
	}
	return d
}

// Filename returns the path of the package in its archive.
func (d Deb) Filename() string {
	d = d.withDefaults()
	src, _, _ := strings.Cut(d.Source, " ")
	if src == "" {
		src = d.Name
	}
	letter := src[:1]
	if strings.HasPrefix(src, "lib") && len(src) > 3 {
		letter = src[:4]
	}
	_, version, ok := strings.Cut(d.Version, ":")
	if !ok {
		version = d.Version
	}
	return path.Join("pool/main", letter, src, d.Name+"_"+version+"_"+d.Arch+".deb")
}

// control returns the fields that the package and its index entry share.
func (d Deb) control() string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Package", d.Name)
	field("Source", d.Source)
	field("Version", d.Version)
	field("Architecture", d.Arch)
	if d.Essential {
		field("Essential", "yes")
	}
	field("Maintainer", "Nobody <nobody@example.invalid>")
	field("Depends", d.Depends)
	field("Pre-Depends", d.PreDepends)
	field("Recommends", d.Recommends)
	field("Provides", d.Provides)
	field("Conflicts", d.Conflicts)
	field("Breaks", d.Breaks)
	field("Replaces", d.Replaces)
	field("Section", d.Section)
	for _, k := range slices.Sorted(maps.Keys(d.Fields)) {
		field(k, d.Fields[k])
	}
	field("Description", "package for a test")
	return b.String()
}

// Bytes returns the package as a .deb file.
func (d Deb) Bytes() ([]byte, error) {
	d = d.withDefaults()
	data, sums, err := dataTar(d.Files)
	if err != nil {
		return nil, err
	}
	control, _, err := dataTar(d.controlFiles(sums))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	arMember(&out, "debian-binary", []byte("2.0\n"))
	for _, m := range []struct {
		name string
		body []byte
	}{{"control.tar", control}, {"data.tar", data}} {
		c, err := Compress(d.Compress, m.body)
		if err != nil {
			return nil, err
		}
		arMember(&out, m.name+d.Compress, c)
	}
	return out.Bytes(), nil
}

func arMember(out *bytes.Buffer, name string, body []byte) {
	fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, Date.Unix(), 0, 0, "100644", len(body))
	out.Write(body)
	if len(body)%2 == 1 {
		out.WriteByte('\n')
	}
}

func (d Deb) controlFiles(sums string) []layers.File {
	files := []layers.File{
		layers.Regular("control", 0o644, d.Name, []byte(d.control())),
		layers.Regular("md5sums", 0o644, d.Name, []byte(sums)),
	}
	for _, n := range slices.Sorted(maps.Keys(d.Scripts)) {
		files = append(files, layers.Regular(n, 0o755, d.Name, []byte(d.Scripts[n])))
	}
	if len(d.Conffiles) > 0 {
		files = append(files, layers.Regular("conffiles", 0o644, d.Name, []byte(strings.Join(d.Conffiles, "\n")+"\n")))
	}
	if d.Triggers != "" {
		files = append(files, layers.Regular("triggers", 0o644, d.Name, []byte(d.Triggers)))
	}
	return files
}

// dataTar returns files and the directories above them as a tar archive in the
// manner of dpkg-deb, and the MD5 sums of the regular ones.
func dataTar(files []layers.File) (b []byte, sums string, err error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range withParents(files) {
		h, body, err := header(f)
		if err != nil {
			return nil, "", err
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, "", fmt.Errorf("writing %s: %w", f.Path, err)
		}
		if _, err := w.Write(body); err != nil {
			return nil, "", fmt.Errorf("writing %s: %w", f.Path, err)
		}
		if f.Mode.IsRegular() {
			sums += fmt.Sprintf("%x  %s\n", md5.Sum(body), f.Path)
		}
	}
	err = w.Close()
	return out.Bytes(), sums, err
}

func withParents(files []layers.File) []layers.File {
	all := map[string]layers.File{".": layers.Dir(".", 0o755, "aptfake")}
	for _, f := range files {
		for dir := path.Dir(f.Path); all[dir].Path == ""; dir = path.Dir(dir) {
			all[dir] = layers.Dir(dir, 0o755, "aptfake")
		}
		all[f.Path] = f
	}
	var out []layers.File
	for _, p := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[p])
	}
	return out
}

func header(f layers.File) (*tar.Header, []byte, error) {
	h, err := tar.FileInfoHeader(info{f}, f.Link)
	if err != nil {
		return nil, nil, fmt.Errorf("file %s: %w", f.Path, err)
	}
	h.Name = "./" + f.Path
	if f.Path == "." {
		h.Name = "./"
	} else if f.Mode.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime = int(f.UID), int(f.GID), "", "", Date
	for k, v := range f.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if !f.Mode.IsRegular() {
		return h, nil, nil
	}
	body, err := f.Read()
	h.Size = int64(len(body))
	return h, body, err
}

// info is a layers.File seen as fs.FileInfo.
type info struct{ f layers.File }

func (i info) Name() string       { return path.Base(i.f.Path) }
func (i info) Size() int64        { return i.f.Size }
func (i info) Mode() fs.FileMode  { return i.f.Mode }
func (i info) ModTime() time.Time { return Date }
func (i info) IsDir() bool        { return i.f.Mode.IsDir() }
func (i info) Sys() any           { return nil }
