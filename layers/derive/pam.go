package derive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepPAM = Step{
	Name: "pam",
	Doc:  "/etc/pam.d/common-* from the profiles in /usr/share/pam-configs that are on by default (pam-auth-update)",
	Run:  pamFiles,
}

// pamProfile is a file of /usr/share/pam-configs: fields by name, the value of
// a multi-line field being its lines.
type pamProfile struct {
	file     string
	priority int
	fields   map[string]string
	lines    map[string][]string
}

// pamTypes are the common files with the field prefix of each.
var pamTypes = []struct{ file, field string }{
	{"common-auth", "Auth"}, {"common-account", "Account"}, {"common-password", "Password"},
	{"common-session", "Session"}, {"common-session-noninteractive", "Session"},
}

func pamFiles(_ context.Context, in Input) (Result, error) {
	profiles, err := in.pamProfiles()
	if err != nil {
		return Result{}, err
	}
	var files []layers.File
	for _, t := range pamTypes {
		f, ok := in.Tree.Lookup("usr/share/pam/" + t.file)
		if !ok || in.has("etc/pam.d/"+t.file) {
			continue
		}
		b, err := f.Read()
		if err != nil {
			return Result{}, err
		}
		on := profiles
		if t.file == "common-session-noninteractive" {
			on = slices.DeleteFunc(slices.Clone(profiles), func(p pamProfile) bool {
				return p.fields["Session-Interactive-Only"] == "yes"
			})
		}
		files = append(files, file("etc/pam.d/"+t.file, 0o644, renderPAM(string(b), t.field, on)))
	}
	return Result{Files: files}, nil
}

// pamProfiles returns the profiles with "Default: yes" in the order of the
// stacks: highest priority first, equal ones by name from the end.
func (in Input) pamProfiles() ([]pamProfile, error) {
	files, err := in.Tree.Glob("usr/share/pam-configs/*")
	if err != nil {
		return nil, err
	}
	var out []pamProfile
	for _, f := range files {
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		p, err := parsePAMProfile(path.Base(f.Path), b)
		if err != nil {
			return nil, fmt.Errorf("reading /%s: %w", f.Path, err)
		}
		if p.fields["Default"] == "yes" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b pamProfile) int {
		return cmp.Or(b.priority-a.priority, strings.Compare(b.file, a.file))
	})
	return out, checkPAMConflicts(out)
}

func checkPAMConflicts(ps []pamProfile) error {
	for _, p := range ps {
		for _, c := range strings.FieldsFunc(p.fields["Conflicts"], func(r rune) bool { return r == ',' || r == ' ' }) {
			if slices.ContainsFunc(ps, func(q pamProfile) bool { return q.file == c }) {
				return fmt.Errorf("PAM profiles %s and %s conflict and are both on by default", p.file, c)
			}
		}
	}
	return nil
}

func parsePAMProfile(name string, b []byte) (pamProfile, error) {
	p := pamProfile{file: name, fields: map[string]string{}, lines: map[string][]string{}}
	field := ""
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.TrimSpace(line) == "":
		case line[0] == ' ' || line[0] == '\t':
			if field == "" {
				return p, fmt.Errorf("line %d: continues nothing", i+1)
			}
			p.lines[field] = append(p.lines[field], strings.TrimSpace(line))
		default:
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				return p, fmt.Errorf("line %d: want \"Field: value\"", i+1)
			}
			field = k
			p.fields[k] = strings.TrimSpace(v)
		}
	}
	if v := p.fields["Priority"]; v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return p, fmt.Errorf("priority: %w", err)
		}
		p.priority = n
	}
	return p, nil
}

// The comment lines of the templates that bound the two blocks.
const (
	pamPrimary    = `# here are the per-package modules (the "Primary" block)`
	pamFallback   = `# here's the fallback if no module succeeds`
	pamAdditional = `# and here are more per-package modules (the "Additional" block)`
	pamEnd        = `# end of pam-auth-update config`
)

// renderPAM fills a template: what stands between the marks of a block is
// replaced by the lines of the profiles.
func renderPAM(template, field string, on []pamProfile) string {
	var out bytes.Buffer
	skip := ""
	for line := range strings.Lines(template) {
		text := strings.TrimSuffix(line, "\n")
		if skip != "" && !strings.HasPrefix(text, skip) {
			continue
		}
		skip = ""
		out.WriteString(line)
		switch {
		case strings.HasPrefix(text, pamPrimary):
			out.WriteString(pamBlock(field, "Primary", on))
			skip = pamFallback
		case strings.HasPrefix(text, pamAdditional):
			out.WriteString(pamBlock(field, "Additional", on))
			skip = pamEnd
		}
	}
	return out.String()
}

// pamBlock renders one block. In a control value "end" stands for a jump over
// the rest of the block: out of Primary to behind the fallback, in Additional
// to the last line.
func pamBlock(field, block string, on []pamProfile) string {
	var lines []string
	first := true
	for _, p := range on {
		if p.fields[field+"-Type"] != block {
			continue
		}
		ls := p.lines[field]
		if initial := p.lines[field+"-Initial"]; first && len(initial) > 0 {
			ls = initial
		}
		first = false
		lines = append(lines, ls...)
	}
	typ := strings.ToLower(field)
	if block == "Primary" && len(lines) == 0 {
		return typ + "\t[default=1]\t\t\tpam_permit.so\n"
	}
	left := len(lines)
	if block == "Additional" {
		left--
	}
	var out strings.Builder
	for _, l := range lines {
		out.WriteString(typ + "\t" + jump(l, left) + "\n")
		left--
	}
	return out.String()
}

// pamLine is control, module and options of a line. pam-auth-update writes
// the options anew, a blank between them and one before the first even when
// there is none.
var pamLine = regexp.MustCompile(`^((?:\[[^]]+\]|\w+)\s+\S+)\s*(.*)`)

// jump renders a profile's line with n for each "end" in its control.
func jump(line string, n int) string {
	m := pamLine.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	i := strings.Index(m[1], "]") + 1
	return strings.ReplaceAll(m[1][:i], "end", strconv.Itoa(n)) + m[1][i:] + " " + strings.Join(strings.Fields(m[2]), " ")
}
