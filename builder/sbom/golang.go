package sbom

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// maxInMemory bounds the programs that are read as a whole, in bytes; it only
// counts where the medium has no random access.
const maxInMemory = 512 << 20

// programs adds every Go program of a root, with the modules that it says it
// is built from.
func (l *lister) programs(ctx context.Context, root *layers.Tree) error {
	for f := range root.Files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !f.Mode.IsRegular() || f.Mode&0o111 == 0 || f.Size < 64 {
			continue
		}
		info, err := buildInfo(f)
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", f.Path, f.Owner, err)
		}
		if info != nil {
			l.program(f, info)
		}
	}
	return nil
}

// buildInfo returns what a Go program says of its modules; nil for whatever is
// none.
func buildInfo(f layers.File) (*debug.BuildInfo, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, err
	}
	if string(magic) != "\x7fELF" {
		return nil, nil
	}
	at, ok := r.(io.ReaderAt)
	if !ok {
		b, err := io.ReadAll(io.LimitReader(r, maxInMemory))
		if err != nil {
			return nil, err
		}
		at = bytes.NewReader(append(magic, b...))
	}
	info, err := buildinfo.Read(at)
	if err != nil {
		return nil, nil // the package cannot tell damage from another language
	}
	return info, nil
}

// program adds one program and its modules.
func (l *lister) program(f layers.File, info *debug.BuildInfo) {
	found := l.sums[f.Path]
	main := info.Main
	c := Component{
		Kind: Program, Name: path.Base(f.Path), Version: version(main.Version), Path: "/" + f.Path,
		PURL: golang(cmp.Or(main.Path, info.Path, "command-line-arguments"), version(main.Version)), Within: l.owners[found.Owner],
	}
	if found.Sum != "" {
		c.Digest = layers.Digest("sha256:" + found.Sum)
	}
	c.ID = id(c)
	needs := []string{l.module(&debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")})}
	for _, m := range info.Deps {
		needs = append(needs, l.module(m))
	}
	slices.Sort(needs)
	c.Needs = slices.Compact(needs)
	l.all = append(l.all, c)
}

// module adds a Go module once and returns its ID. What takes a module's place
// is what is in the program.
func (l *lister) module(m *debug.Module) string {
	if m.Replace != nil && m.Replace.Version != "" {
		m = m.Replace
	}
	c := Component{Kind: Module, Name: m.Path, Version: version(m.Version), PURL: golang(m.Path, version(m.Version))}
	if known, ok := l.modules[c.PURL]; ok {
		return known
	}
	c.ID = id(c)
	l.modules[c.PURL] = c.ID
	l.all = append(l.all, c)
	return c.ID
}

// version returns a module's version, which the go command leaves out of what
// is built from a working tree.
func version(v string) string {
	if v == "(devel)" {
		return ""
	}
	return v
}
