package derive

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// installSection is the [Install] section of a unit, drop-ins included.
type installSection struct {
	lists           map[string][]string // WantedBy, RequiredBy, UpheldBy, Alias, Also
	defaultInstance string
}

// installer makes the links that `systemctl enable` makes. Not supported:
// linked units outside the unit directories, specifiers other than %n, %N,
// %p, %i, %j and %%.
type installer struct {
	in    Input
	done  map[string]bool
	links map[string]layers.File
}

var unitDirs = []string{etcUnits, "usr/local/lib/systemd/system", usrUnits}

var unitSuffixes = []string{
	".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice", ".scope", ".device",
}

// unitNames returns the names of all unit files that are not aliases, sorted.
func (x *installer) unitNames() []string {
	names := map[string]bool{}
	for _, d := range unitDirs {
		fs, _ := x.in.Tree.Glob(d + "/*") // the pattern is well-formed
		for _, f := range fs {
			n := path.Base(f.Path)
			if slices.Contains(unitSuffixes, path.Ext(n)) && !f.Mode.IsDir() {
				if _, seen := names[n]; !seen {
					names[n] = f.Mode.IsRegular()
				}
			}
		}
	}
	maps.DeleteFunc(names, func(_ string, regular bool) bool { return !regular })
	return slices.Sorted(maps.Keys(names))
}

// find returns the file of a unit; an instance is its template's.
func (x *installer) find(name string) (layers.File, error) {
	for _, n := range []string{name, templateOf(name)} {
		for _, d := range unitDirs {
			if f, err := x.in.Tree.Resolve(path.Join(d, n)); err == nil && f.Mode.IsRegular() {
				return f, nil
			}
		}
	}
	return layers.File{}, fmt.Errorf("unit %s: %w", name, fs.ErrNotExist)
}

// templateOf returns "x@.service" for "x@i.service", and other names as they
// are.
func templateOf(name string) string {
	if i := strings.IndexByte(name, '@'); i >= 0 {
		return name[:i+1] + path.Ext(name)
	}
	return name
}

// enable makes the links of a unit and of those in its Also. A missing unit
// in Also is passed over, as systemctl does.
func (x *installer) enable(name string) error {
	if x.done[name] {
		return nil
	}
	x.done[name] = true
	f, err := x.find(name)
	if err != nil {
		return err
	}
	s, err := x.section(name, f)
	if err != nil {
		return err
	}
	if err := x.link(name, f.Path, s); err != nil {
		return err
	}
	for _, also := range s.lists["Also"] {
		also, err := expand(also, name)
		if err != nil {
			return err
		}
		if err := x.enable(also); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// link makes the links of one unit. A template without an instance is linked
// as its default instance, and not at all if it has none.
func (x *installer) link(name, unitPath string, s installSection) error {
	linked := name
	if strings.Contains(name, "@.") {
		if s.defaultInstance == "" {
			return nil
		}
		linked = strings.Replace(name, "@.", "@"+s.defaultInstance+".", 1)
	}
	for _, d := range []struct{ key, suffix string }{
		{"WantedBy", ".wants/"}, {"RequiredBy", ".requires/"}, {"UpheldBy", ".upholds/"},
	} {
		for _, by := range s.lists[d.key] {
			by, err := expand(by, linked)
			if err != nil {
				return err
			}
			x.put(path.Join(etcUnits, by+d.suffix+linked), unitPath)
		}
	}
	for _, a := range s.lists["Alias"] {
		a, err := expand(a, linked)
		if err != nil {
			return err
		}
		if a != linked {
			x.put(path.Join(etcUnits, a), unitPath)
		}
	}
	return nil
}

func (x *installer) put(p, target string) { x.links[p] = link(p, "/"+target) }

func (x *installer) files() []layers.File {
	var out []layers.File
	for _, p := range slices.Sorted(maps.Keys(x.links)) {
		out = append(out, x.links[p])
	}
	return out
}

// section reads [Install] of a unit file and its drop-ins.
func (x *installer) section(name string, f layers.File) (installSection, error) {
	s := installSection{lists: map[string][]string{}}
	files := []layers.File{f}
	for _, n := range []string{templateOf(name), name} {
		var dirs []string
		for _, d := range unitDirs {
			dirs = append(dirs, path.Join(d, n)+".d")
		}
		dropins, err := x.in.confs(".conf", dirs...)
		if err != nil {
			return s, err
		}
		files = append(files, dropins...)
		if n == name && n == templateOf(name) {
			break
		}
	}
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return s, err
		}
		s.read(string(b))
	}
	return s, nil
}

func (s *installSection) read(text string) {
	in := false
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			in = line == "[Install]"
		case in:
			k, v, _ := strings.Cut(line, "=")
			s.set(strings.TrimSpace(k), strings.TrimSpace(v))
		}
	}
}

func (s *installSection) set(key, value string) {
	switch key {
	case "DefaultInstance":
		s.defaultInstance = value
	case "WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also":
		if value == "" {
			s.lists[key] = nil
			return
		}
		s.lists[key] = append(s.lists[key], strings.Fields(value)...)
	}
}

// expand replaces the specifiers in an [Install] value of a unit.
func expand(s, unit string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	bare := strings.TrimSuffix(unit, path.Ext(unit))
	prefix, instance, _ := strings.Cut(bare, "@")
	last := prefix[strings.LastIndexByte(prefix, '-')+1:]
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", fmt.Errorf("value %q ends in %%", s)
		}
		v, ok := map[byte]string{'n': unit, 'N': bare, 'p': prefix, 'i': instance, 'j': last, '%': "%"}[s[i]]
		if !ok {
			return "", fmt.Errorf("specifier %%%c in %q is not supported", s[i], s)
		}
		out.WriteString(v)
	}
	return out.String(), nil
}
