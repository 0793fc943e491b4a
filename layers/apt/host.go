package apt

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers/deb"
)

// source is one address of the apt configuration.
type source struct {
	file     string // where it stands
	uri      string
	suites   []string
	parts    []string // components
	signedBy string
}

// HostMirror returns the Debian mirror that the machine with the given root
// directory is configured to use, from etc/apt/sources.list and
// etc/apt/sources.list.d/. Only the addresses count: the machine may run
// another release. The first source of the main archive and the first whose
// suite ends in -security are taken; addresses of other archives are passed
// over. If there is none, the error says what was looked at and names the
// remedies, such as "base.mirror in the spec".
func HostMirror(root string, remedies ...string) (Mirror, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return Mirror{}, fmt.Errorf("finding the Debian mirror: %w", err)
	}
	defer dir.Close()
	return hostMirror(dir.FS(), remedies)
}

func hostMirror(fsys fs.FS, remedies []string) (Mirror, error) {
	var m Mirror
	var seen []string
	for _, name := range sourceFiles(fsys) {
		sources, err := readSources(fsys, name)
		if err != nil {
			seen = append(seen, fmt.Sprintf("/%s (%v)", name, err))
			continue
		}
		before := m
		for _, s := range sources {
			m = m.with(fsys, s)
		}
		if m == before {
			seen = append(seen, fmt.Sprintf("/%s (%d sources, none of them new and Debian's)", name, len(sources)))
		} else {
			seen = append(seen, "/"+name)
		}
	}
	if m.Archive != "" && m.Security != "" {
		return m, m.Check()
	}
	what := "archive"
	if m.Archive != "" {
		what = "security archive"
	}
	err := fmt.Errorf("finding the Debian mirror: the apt configuration names no Debian %s; looked at %s", what, strings.Join(seen, ", "))
	if len(remedies) > 0 {
		err = fmt.Errorf("%w; set %s", err, strings.Join(remedies, " or "))
	}
	return Mirror{}, err
}

// sourceFiles returns the files in which apt looks for sources, in its order.
func sourceFiles(fsys fs.FS) []string {
	lists, _ := fs.Glob(fsys, "etc/apt/sources.list.d/*.list")
	deb822, _ := fs.Glob(fsys, "etc/apt/sources.list.d/*.sources")
	more := append(lists, deb822...)
	slices.Sort(more)
	return append([]string{"etc/apt/sources.list"}, more...)
}

func readSources(fsys fs.FS, name string) ([]source, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("missing")
	}
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".sources") {
		return parseSources(name, string(b))
	}
	return parseList(name, string(b)), nil
}

// parseSources reads the sources in deb822 form, sources.list(5).
func parseSources(file, text string) ([]source, error) {
	var out []source
	for p, err := range deb.Paragraphs(strings.NewReader(text)) {
		if err != nil {
			return nil, err
		}
		off := slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(p.Get("Enabled")))
		if off || !slices.Contains(strings.Fields(p.Get("Types")), "deb") {
			continue
		}
		for _, uri := range strings.Fields(p.Get("URIs")) {
			out = append(out, source{
				file: file, uri: uri, signedBy: p.Get("Signed-By"),
				suites: strings.Fields(p.Get("Suites")), parts: strings.Fields(p.Get("Components")),
			})
		}
	}
	return out, nil
}

// parseList reads the sources in one-line form, "deb [options] uri suite
// component…", sources.list(5). Lines that are none are passed over.
func parseList(file, text string) []source {
	var out []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || line == "" || line[0] != ' ' && line[0] != '\t' {
			continue
		}
		s := source{file: file}
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "["); ok {
			var options string
			options, line, _ = strings.Cut(rest, "]")
			for o := range strings.FieldsSeq(options) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.signedBy = v
				}
			}
		}
		if f := strings.Fields(line); len(f) >= 2 {
			s.uri, s.suites, s.parts = f[0], f[1:2], f[2:]
			out = append(out, s)
		}
	}
	return out
}

// codenames are the suites that a machine with a Debian mirror may name.
var codenames = []string{
	"stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid",
	"oldoldstable", "oldstable", "stable", "testing", "unstable",
}

// isDebian reports whether a source is of Debian itself: it has the component
// main, a suite of Debian, and is signed with Debian's keys if it says with
// which. Others, such as vendors' archives, use Debian's suite names too, but
// then they bring their own keys or components.
func (s source) isDebian() bool {
	if !slices.Contains(s.parts, "main") {
		return false
	}
	if s.signedBy != "" && !strings.Contains(s.signedBy, "debian-archive") {
		return false
	}
	return slices.ContainsFunc(s.suites, func(suite string) bool {
		name, _, _ := strings.Cut(suite, "-")
		name, _, _ = strings.Cut(name, "/")
		return slices.Contains(codenames, name)
	})
}

// isSecurity reports whether the source is of the security archive. Before
// bullseye its suites were called like buster/updates.
func (s source) isSecurity() bool {
	return slices.ContainsFunc(s.suites, func(suite string) bool {
		return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
	})
}

// with returns the mirror with the address of a source added, if it is one
// that was missing.
func (m Mirror) with(fsys fs.FS, s source) Mirror {
	uri, ok := address(fsys, s.uri)
	switch {
	case !ok || !s.isDebian():
	case s.isSecurity() && m.Security == "":
		m.Security = uri
	case !s.isSecurity() && m.Archive == "":
		m.Archive = uri
	}
	return m
}

// address returns the base URL of a source without the slash at its end. Of a
// list of mirrors in a file, as Debian's cloud images have it, it is the first.
func address(fsys fs.FS, uri string) (string, bool) {
	if list, ok := strings.CutPrefix(uri, "mirror+file:"); ok {
		b, err := fs.ReadFile(fsys, strings.TrimLeft(path.Clean(list), "/"))
		f := strings.Fields(string(b))
		if err != nil || len(f) == 0 {
			return "", false
		}
		uri = f[0]
	}
	// In sources, file:/srv is as good as file:///srv.
	if p, ok := strings.CutPrefix(uri, "file:"); ok {
		uri = "file:///" + strings.TrimLeft(p, "/")
	}
	u, err := url.Parse(uri)
	if err != nil || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) {
		return "", false
	}
	return strings.TrimRight(uri, "/"), true
}
