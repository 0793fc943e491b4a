package derive

import (
	"fmt"
	"strconv"
	"strings"
)

// A sysusersItem is one line of sysusers.d(5), type u, g, m or r. Specifiers
// other than %% are not supported, nor are ids given as the owner of a path.
type sysusersItem struct {
	kind   byte   // 'u', 'g', 'm' or 'r'
	locked bool   // "u!": the account is expired as well as without password
	name   string // user or group; '-' for r
	id     string // "-", "12", "12:34", "12:group", "-:group"; the group for m; the range for r
	gecos  string
	home   string
	shell  string
}

// parseSysusers reads a sysusers.d file. The name is for messages.
func parseSysusers(name string, b []byte) ([]sysusersItem, error) {
	var items []sysusersItem
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		it, err := parseSysusersLine(line)
		if err != nil {
			return nil, fmt.Errorf("reading %s:%d: %w", name, i+1, err)
		}
		items = append(items, it)
	}
	return items, nil
}

func parseSysusersLine(line string) (sysusersItem, error) {
	w, err := splitQuoted(line)
	if err != nil {
		return sysusersItem{}, err
	}
	for len(w) < 6 {
		w = append(w, "-")
	}
	for i, s := range w[1:] {
		if strings.Contains(strings.ReplaceAll(s, "%%", ""), "%") {
			return sysusersItem{}, fmt.Errorf("specifier in %q is not supported", s)
		}
		w[i+1] = strings.ReplaceAll(s, "%%", "%")
	}
	kind, locked := strings.CutSuffix(w[0], "!")
	it := sysusersItem{locked: locked, name: w[1], id: w[2], gecos: dash(w[3]), home: dash(w[4]), shell: dash(w[5])}
	switch {
	case len(w) > 6:
		return it, fmt.Errorf("%d fields, want at most 6", len(w))
	case !strings.Contains("u g m r", kind) || len(kind) != 1:
		return it, fmt.Errorf("type %q is not known", w[0])
	case locked && kind != "u":
		return it, fmt.Errorf("type %q: the mark ! goes with u only", w[0])
	case kind != "r" && !validName(it.name), kind == "m" && !validName(it.id):
		return it, fmt.Errorf("%q %q: not the names of a user or group", it.name, it.id)
	case strings.ContainsAny(it.gecos+it.home+it.shell, ":\n"):
		return it, fmt.Errorf("a field of %q holds a colon", it.name)
	}
	it.kind = kind[0]
	return it, nil
}

// dash returns s, or "" where s is the dash that stands for the default.
func dash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// validName is the strict rule of systemd: a letter or underscore, then
// letters, digits, underscores, dashes; at most 31 bytes.
func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 31
}

// splitQuoted splits a line at blanks; single or double quotes keep blanks
// together, and a backslash takes the next byte as it is.
func splitQuoted(line string) ([]string, error) {
	var out []string
	var cur strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line):
			i++
			cur.WriteByte(line[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			cur.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				out = append(out, cur.String())
				cur.Reset()
			}
			inWord = false
		default:
			cur.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("quote is not closed in %q", line)
	}
	if inWord {
		out = append(out, cur.String())
	}
	return out, nil
}

// parseID reads a numeric id; 2^32-1 and 2^16-1 stand for "none" in the kernel.
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("id %q: %w", s, err)
	}
	if n == 0xffffffff || n == 0xffff {
		return 0, fmt.Errorf("id %q is reserved", s)
	}
	return uint32(n), nil
}
