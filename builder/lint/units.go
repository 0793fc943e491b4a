package lint

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// unitDirs are where a node has units, the first one winning. Generators write
// to further ones while it boots.
var unitDirs = []string{etcUnits, usrUnits}

// unit is a unit with its drop-ins.
type unit struct {
	name   string
	blame  int // the most of its files
	masked bool
	where  string // its file, or a drop-in if it has none
	lines  []line
}

// line is an assignment, and which file has it.
type line struct {
	assignment
	file string
}

// units loads units by name.
type units struct {
	files  Files
	in     map[string][]string // entries of the directories of units, by directory
	loaded map[string]*unit
	wanted map[string][]wish // by the unit that wants others
}

// wish is a unit that another one wants without saying so in its own file.
type wish struct {
	name string
	key  string // Wants, Requires or Upholds
	file string // that says so
}

func newUnits(files Files) units {
	u := units{files: files, in: map[string][]string{}, loaded: map[string]*unit{}, wanted: map[string][]wish{}}
	for p := range maps.Keys(files) {
		for _, dir := range unitDirs {
			if strings.HasPrefix(p, dir) {
				u.in[path.Dir(p)] = append(u.in[path.Dir(p)], p)
			}
		}
	}
	for _, list := range u.in {
		slices.Sort(list)
	}
	for _, dir := range unitDirs {
		for d, list := range u.in {
			u.links(dir, d, list)
		}
	}
	for _, name := range u.configured() {
		u.install(name)
	}
	for _, list := range u.wanted {
		slices.SortFunc(list, func(a, b wish) int { return strings.Compare(a.name+a.key, b.name+b.key) })
	}
	return u
}

// links notes the units that directories such as multi-user.target.wants name.
func (u units) links(dir, d string, list []string) {
	for suffix, key := range map[string]string{".wants": "Wants", ".requires": "Requires", ".upholds": "Upholds"} {
		by, ok := strings.CutSuffix(strings.TrimPrefix(d, dir), suffix)
		if !ok || d != dir+by+suffix {
			continue
		}
		for _, p := range list {
			u.wanted[by] = append(u.wanted[by], wish{path.Base(p), key, p})
		}
	}
}

// configured returns the units that the first boot writes a part of or has an
// opinion about.
func (u units) configured() []string {
	var out []string
	for d, list := range u.in {
		for _, p := range list {
			if !u.files[p].Config {
				continue
			}
			switch name := path.Base(d); {
			case d+"/" == etcUnits && !u.files[p].Mode.IsDir():
				out = append(out, path.Base(p))
			case strings.HasSuffix(name, ".d") && isUnit(strings.TrimSuffix(name, ".d")):
				out = append(out, strings.TrimSuffix(name, ".d"))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// install does what `systemctl enable` does with a unit that the configuration
// enables.
func (u units) install(name string) {
	if u.files[etcUnits+name].State != "enabled" {
		return
	}
	it := u.load(name)
	if it == nil {
		return
	}
	for _, l := range it.lines {
		key, ok := map[string]string{"WantedBy": "Wants", "RequiredBy": "Requires", "UpheldBy": "Upholds"}[l.key]
		if l.section != "Install" || !ok {
			continue
		}
		for by := range strings.FieldsSeq(l.value) {
			u.wanted[by] = append(u.wanted[by], wish{name, key, l.file})
		}
	}
}

// kinds of units, by the end of their names.
var unitKinds = []string{".service", ".socket", ".target", ".mount", ".automount", ".timer", ".path", ".slice", ".scope", ".swap", ".device"}

func isUnit(name string) bool { return slices.Contains(unitKinds, path.Ext(name)) }

// template returns the name of the template that an instance is made of, and
// the instance: "a@b.service" is made of "a@.service".
func template(name string) (of, instance string, ok bool) {
	ext := path.Ext(name)
	prefix, instance, ok := strings.Cut(strings.TrimSuffix(name, ext), "@")
	return prefix + "@" + ext, instance, ok && instance != ""
}

// fragment returns the file of a unit, following aliases: links between unit
// files. The unit then has the name that is at the end.
func (u units) fragment(name string) (file, real string, masked bool) {
	for range 40 {
		at := ""
		for _, dir := range unitDirs {
			if _, ok := u.files.has(dir + name); ok {
				at = dir + name
				break
			}
		}
		f := u.files[at]
		switch {
		case at == "":
			return "", name, false
		case f.Mode.Type() != modeLink:
			return at, name, f.Mode.IsRegular() && len(f.Body) == 0 && !f.Config
		case f.Link == "/dev/null":
			return at, name, true
		}
		name = path.Base(f.Link)
	}
	return "", name, false
}

// load returns a unit, or nil if a node has nothing of that name.
func (u units) load(name string) *unit {
	if it, ok := u.loaded[name]; ok {
		return it
	}
	file, real, masked := u.fragment(name)
	of, instance, isInstance := template(name)
	if file == "" && isInstance {
		file, real, masked = u.fragment(of)
		real = strings.Replace(real, "@", "@"+instance, 1)
	}
	if file == "" {
		u.loaded[name] = nil
		return nil
	}
	if real != name {
		if it, ok := u.loaded[real]; ok {
			u.loaded[name] = it
			return it
		}
	}
	it := &unit{name: real, masked: masked, where: file}
	if !masked {
		u.add(it, file)
		for _, d := range u.dropins(real) {
			u.add(it, d)
		}
	}
	u.loaded[name], u.loaded[real] = it, it
	return it
}

// add appends the lines of a file to a unit.
func (u units) add(it *unit, file string) {
	b, _ := u.files.read(file)
	it.blame = max(it.blame, u.blame(file))
	for _, a := range parseUnit(b) {
		a.value = specifiers(it.name, a.value)
		it.lines = append(it.lines, line{a, file})
	}
}

// specifiers puts in those that follow from the name (systemd.unit(5)).
func specifiers(name, value string) string {
	if !strings.Contains(value, "%") {
		return value
	}
	ext := path.Ext(name)
	prefix, instance, _ := strings.Cut(strings.TrimSuffix(name, ext), "@")
	return strings.NewReplacer("%%", "%", "%n", name, "%N", strings.TrimSuffix(name, ext), "%p", prefix, "%P", prefix,
		"%i", instance, "%I", instance, "%j", prefix[strings.LastIndexByte(prefix, '-')+1:], "%t", "/run", "%S", "/var/lib",
		"%C", "/var/cache", "%L", "/var/log", "%E", "/etc").Replace(value)
}

// dropins returns the files that change a unit: those for its kind, for the
// parts of its name that end in a dash, for its template, and for itself. Of
// those with one name the most specific counts; /etc goes before /usr.
func (u units) dropins(name string) []string {
	ext := path.Ext(name)
	names := []string{name}
	if of, _, ok := template(name); ok {
		names = append(names, of)
	}
	for stem := strings.TrimSuffix(name, ext); ; {
		i := strings.LastIndexByte(strings.TrimSuffix(stem, "-"), '-')
		if i < 0 {
			break
		}
		stem = stem[:i+1]
		names = append(names, stem+ext)
	}
	names = append(names, strings.TrimPrefix(ext, "."))
	by := map[string]string{}
	for _, n := range names {
		for _, dir := range unitDirs {
			for _, p := range u.in[dir+n+".d"] {
				if base := path.Base(p); strings.HasSuffix(base, ".conf") && by[base] == "" {
					by[base] = p
				}
			}
		}
	}
	var out []string
	for _, base := range slices.Sorted(maps.Keys(by)) {
		if u.files[by[base]].Link != "/dev/null" {
			out = append(out, by[base])
		}
	}
	return out
}

// values returns what is assigned to a key, the later the nearer to the end;
// an empty value forgets those before it.
func (it *unit) values(section, key string) []line {
	var out []line
	for _, l := range it.lines {
		switch {
		case l.section != section || l.key != key:
		case l.value == "":
			out = nil
		default:
			out = append(out, l)
		}
	}
	return out
}

// value returns the last of those, or "".
func (it *unit) value(section, key string) string {
	if v := it.values(section, key); len(v) > 0 {
		return v[len(v)-1].value
	}
	return ""
}

// no reports whether a switch that is on by itself is off.
func (it *unit) no(section, key string) bool {
	return slices.Contains([]string{"no", "false", "0", "off", "n", "f"}, strings.ToLower(it.value(section, key)))
}

// flag returns the value of a flag on the command line of a service.
func (u units) flag(name, flag string) (string, bool) {
	it := u.load(name)
	if it == nil {
		return "", false
	}
	for _, l := range it.values("Service", "ExecStart") {
		w := words(l.value)
		for i, a := range w {
			if v, ok := strings.CutPrefix(a, "--"+flag+"="); ok {
				return v, true
			}
			if a == "--"+flag && i+1 < len(w) {
				return w[i+1], true
			}
		}
	}
	return "", false
}
