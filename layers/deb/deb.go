// Package deb reads Debian binary packages, deb(5): an ar archive of
// debian-binary, control.tar and data.tar, the latter two compressed by xz,
// zstd, gzip or not at all.
//
// [Layer] stores the uncompressed data.tar in the content store once and
// yields its files from there by random access. No maintainer script is ever
// run; they are handed out as text, so that others can say what they would
// have done. [Paragraphs] reads the field syntax that Debian's control, index
// and configuration files share, deb822(5).
//
// Not supported: version 0 packages, bzip2 and lzma compression, package
// signatures inside the archive (the repository's signature chain counts).
package deb

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// codeVersion is part of every key and digest: raise it when the same .deb
// would be read differently than before.
const codeVersion = "deb/1"

// maxControl bounds the uncompressed control.tar in bytes. The largest in
// Debian, of documentation packages with many md5sums, have some 10 MB.
const maxControl = 32 << 20

// Options bounds the reading of a package. The zero value is ready for use.
type Options struct {
	MaxData int64 // limit of the uncompressed data.tar in bytes; 0 means 4 GiB
}

// Script is a maintainer script of a package.
type Script struct {
	Name string // "preinst", "postinst", "prerm", "postrm" or "config"
	Body []byte
}

// Package is a Debian binary package whose content is in the store.
type Package struct {
	Name, Version, Arch string

	Control   Paragraph // every field of the control file
	Scripts   []Script  // in order of name
	Conffiles []string  // configuration files, relative to the root, in order of path
	Triggers  []string  // lines of the triggers file, such as "interest-noawait ldconfig"

	// Layer has the files. Its digest derives from that of the .deb; the
	// owner of each file is "deb:<name>=<version>".
	Layer layers.Layer
}

// String returns "name=version".
func (p *Package) String() string { return p.Name + "=" + p.Version }

// Layer reads the package in blob. The name and version that are expected,
// "name=version", are checked; "" expects nothing. Content that is larger than
// its limit is a *[SizeError]. The package's whole list of files has been read
// and is known to be sound when Layer returns.
func Layer(ctx context.Context, store *cache.Store, blob cache.Blob, pkg string, o Options) (*Package, error) {
	p, err := load(ctx, store, blob, pkg, o)
	if err != nil {
		what := pkg
		if what == "" {
			what = string(blob.Digest)
		}
		return nil, fmt.Errorf("unpacking %s: %w", what, err)
	}
	return p, nil
}

func load(ctx context.Context, store *cache.Store, blob cache.Blob, pkg string, o Options) (*Package, error) {
	f, err := blob.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	control, data, err := parts(f, blob.Size)
	if err != nil {
		return nil, err
	}
	p, err := readControl(ctx, control)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", control.name, err)
	}
	if pkg != "" && p.String() != pkg {
		return nil, fmt.Errorf("the package says that it is %s", p)
	}
	if o.MaxData == 0 {
		o.MaxData = 4 << 30
	}
	t, err := store.Compute(ctx, "untar", codeVersion+" "+string(blob.Digest), func(ctx context.Context, w io.Writer) error {
		return decompress(ctx, data, o.MaxData, func(r io.Reader) error {
			_, err := io.Copy(w, r)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", data.name, err)
	}
	l := layers.Tar{
		Title: "deb:" + p.String(), Owner: "deb:" + p.String(), Size: t.Size, Open: t.ReaderAt,
		Content: layers.DigestOfParts(codeVersion, string(blob.Digest)),
	}
	p.Layer = l
	return p, checkFiles(ctx, l)
}

// parts returns the two archives of a package. As deb(5) asks, members whose
// name begins with _ and members after data.tar are passed over.
func parts(r io.ReaderAt, size int64) (control, data member, err error) {
	ms, err := members(r, size)
	if err != nil {
		return member{}, member{}, err
	}
	ms = slices.DeleteFunc(ms, func(m member) bool { return strings.HasPrefix(m.name, "_") })
	want := []string{"debian-binary", "control.tar", "data.tar"}
	for i, w := range want {
		if i >= len(ms) {
			return member{}, member{}, fmt.Errorf("not a Debian package: no %s", w)
		}
		if stem(ms[i].name) != w {
			return member{}, member{}, fmt.Errorf("not a Debian package: member %d is %q, want %s", i+1, ms[i].name, w)
		}
	}
	format, err := io.ReadAll(io.LimitReader(ms[0].body, 16))
	if err != nil {
		return member{}, member{}, fmt.Errorf("reading debian-binary: %w", err)
	}
	if !strings.HasPrefix(string(format), "2.") {
		return member{}, member{}, fmt.Errorf("package format %q is not supported, only 2.x", strings.TrimSpace(string(format)))
	}
	return ms[1], ms[2], nil
}

// stem returns "data.tar" for "data.tar.xz".
func stem(name string) string {
	if base, _, ok := strings.Cut(name, ".tar"); ok {
		return base + ".tar"
	}
	return name
}

// decompress hands the uncompressed content of a member to read.
func decompress(ctx context.Context, m member, limit int64, read func(io.Reader) error) error {
	z, err := Decompress(strings.TrimPrefix(m.name, stem(m.name)), layers.WithContext(ctx, m.body), limit)
	if err != nil {
		return err
	}
	return errors.Join(read(z), z.Close())
}

// checkFiles walks the headers of an archive. That is cheap, and it makes a
// bad package an error here, where its name is known, and not in the middle of
// an image.
func checkFiles(ctx context.Context, l layers.Layer) error {
	for f, err := range l.Files() {
		if err == nil {
			err = f.Check()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readControl(ctx context.Context, m member) (*Package, error) {
	files := map[string][]byte{}
	err := decompress(ctx, m, maxControl, func(r io.Reader) error { return readSmall(r, files) })
	if err != nil {
		return nil, err
	}
	return parseControl(files)
}

// The files of control.tar that are read.
var (
	scripts  = []string{"config", "postinst", "postrm", "preinst", "prerm"}
	metadata = []string{"conffiles", "control", "triggers"}
)

func readSmall(r io.Reader, files map[string][]byte) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end mark counts too: a checksum, a limit.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if !slices.Contains(scripts, name) && !slices.Contains(metadata, name) {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("member %q is not a regular file", h.Name)
		}
		if files[name], err = io.ReadAll(tr); err != nil {
			return fmt.Errorf("member %q: %w", h.Name, err)
		}
	}
}

func parseControl(files map[string][]byte) (*Package, error) {
	p := &Package{}
	for c, err := range Paragraphs(strings.NewReader(string(files["control"]))) {
		if err != nil {
			return nil, fmt.Errorf("reading control: %w", err)
		}
		if p.Control != nil {
			return nil, errors.New("reading control: more than one paragraph")
		}
		p.Control = c
	}
	p.Name, p.Version, p.Arch = p.Control.Get("Package"), p.Control.Get("Version"), p.Control.Get("Architecture")
	if err := errors.Join(CheckName(p.Name), CheckVersion(p.Version), CheckName(p.Arch)); err != nil {
		return nil, fmt.Errorf("reading control: Package, Version or Architecture: %w", err)
	}
	for _, n := range scripts {
		if b, ok := files[n]; ok {
			p.Scripts = append(p.Scripts, Script{n, b})
		}
	}
	var err error
	if p.Conffiles, err = conffiles(string(files["conffiles"])); err != nil {
		return nil, err
	}
	for _, line := range lines(string(files["triggers"])) {
		if line, _, _ = strings.Cut(line, "#"); line != "" {
			p.Triggers = append(p.Triggers, strings.TrimSpace(line))
		}
	}
	return p, nil
}

// conffiles reads the list of configuration files. Those marked
// remove-on-upgrade are no longer in the package and left out.
func conffiles(s string) ([]string, error) {
	var out []string
	for _, line := range lines(s) {
		if strings.HasPrefix(line, "remove-on-upgrade ") {
			continue
		}
		p, err := layers.TarPath(line)
		if err != nil || !strings.HasPrefix(line, "/") {
			return nil, fmt.Errorf("reading conffiles: %q is not an absolute path", clip(line))
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return out, nil
}

// lines returns the lines of s, trimmed, without empty ones.
func lines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}
