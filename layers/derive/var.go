package derive

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepVar = Step{
	Name: "var",
	Doc:  "what packages keep below /var as tmpfiles.d lines and factory files, because /var is the state partition, which starts empty",
	Run:  varContent,
}

const (
	varConf = "usr/lib/tmpfiles.d/kscratch-var.conf"
	factory = "usr/share/factory/"
)

// varContent turns each directory and link below /var into a line, and each
// file into a copy below /usr/share/factory with a line that copies it back;
// then /var is emptied. Paths that another tmpfiles.d file makes are left to
// it: systemd-tmpfiles complains about two lines for a path.
func varContent(_ context.Context, in Input) (Result, error) {
	made, err := in.tmpfilesPaths()
	if err != nil {
		return Result{}, err
	}
	var conf bytes.Buffer
	conf.WriteString("# What Debian's packages keep below /var, made on the empty state partition.\n")
	r := Result{Drop: children(in, "var")}
	for f := range in.Tree.Under("var") {
		if f.Path == "var" || made["/"+f.Path] {
			continue
		}
		line, copied, err := varLine(f)
		if err != nil {
			return Result{}, err
		}
		conf.WriteString(line)
		r.Files = append(r.Files, copied...)
	}
	conf.WriteString(in.varExtra(made))
	if in.has("usr/lib/tmpfiles.d") {
		r.Files = append(r.Files, file(varConf, 0o644, conf.String()))
	}
	return r, nil
}

// varExtra are directories that postinsts make: base-files' /var/opt and
// /var/mail, and systemd's /var/log/journal, which makes the journal lasting.
func (in Input) varExtra(made map[string]bool) string {
	var out strings.Builder
	for _, d := range []struct{ path, mode, group string }{
		{"/var/log/journal", "2755", "systemd-journal"},
		{"/var/mail", "2775", "mail"},
		{"/var/opt", "0755", "root"},
	} {
		if _, err := in.id("etc/group", d.group); err == nil && !made[d.path] && !in.has(d.path[1:]) {
			fmt.Fprintf(&out, "d %s %s root %s - -\n", d.path, d.mode, d.group)
		}
	}
	return out.String()
}

// varLine returns the tmpfiles.d line for f, and the factory copy it needs.
func varLine(f layers.File) (string, []layers.File, error) {
	p := tmpfilesQuote("/" + f.Path)
	switch {
	case f.Path == "var/run": // base-files migrates these two directories to links
		return "L /var/run - - - - ../run\n", nil, nil
	case f.Path == "var/lock":
		return "L /var/lock - - - - ../run/lock\n", nil, nil
	case strings.HasPrefix(f.Path, "var/run/"), strings.HasPrefix(f.Path, "var/lock/"):
		return "", nil, fmt.Errorf("/%s of %s: /run is empty at boot", f.Path, f.Owner)
	case f.Mode.IsDir():
		return fmt.Sprintf("d %s %04o %d %d - -\n", p, unixMode(f.Mode), f.UID, f.GID), nil, nil
	case f.Mode.Type() == fs.ModeSymlink:
		return fmt.Sprintf("L %s - - - - %s\n", p, tmpfilesQuote(f.Link)), nil, nil
	case f.Mode.IsRegular():
		line := fmt.Sprintf("C %s %04o %d %d - %s\n", p, unixMode(f.Mode), f.UID, f.GID, tmpfilesQuote("/"+factory+f.Path))
		f.Path = factory + f.Path
		return line, []layers.File{f}, nil
	}
	return "", nil, fmt.Errorf("/%s of %s: a %v cannot be made by tmpfiles.d", f.Path, f.Owner, f.Mode.Type())
}

// unixMode returns the permission bits with setuid, setgid and sticky in their
// Unix places.
func unixMode(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	for bit, set := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&set != 0 {
			n |= bit
		}
	}
	return n
}

// tmpfilesQuote writes a field so that tmpfiles.d reads it back unchanged.
func tmpfilesQuote(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	if !strings.ContainsAny(s, " \t\"'\\") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// tmpfilesPaths returns the paths for which tmpfiles.d has a line that makes
// them.
func (in Input) tmpfilesPaths() (map[string]bool, error) {
	files, err := in.confs(".conf", "etc/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d")
	if err != nil {
		return nil, err
	}
	made := map[string]bool{}
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) > 1 && f.Path != varConf && slices.Contains([]byte("dDvqQLCfFp"), w[0][0]) {
				made[path.Clean(w[1])] = true
			}
		}
	}
	return made, nil
}
