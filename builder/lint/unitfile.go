package lint

import "strings"

// assignment is a line of a unit file.
type assignment struct{ section, key, value string }

// parseUnit reads a unit file as systemd.syntax(7) describes it: comments begin
// with # or ;, a backslash at the end of a line joins it with the next one that
// is no comment. A line that is neither a section nor an assignment is left
// out; systemd warns of those and goes on.
func parseUnit(b []byte) []assignment {
	var out []assignment
	section, whole := "", ""
	for line := range strings.SplitSeq(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && (line[0] == '#' || line[0] == ';') {
			continue
		}
		if part, more := strings.CutSuffix(line, `\`); more {
			whole += part + " "
			continue
		}
		line, whole = strings.TrimSpace(whole+line), ""
		if name, ok := sectionName(line); ok {
			section = name
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			out = append(out, assignment{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return out
}

func sectionName(line string) (string, bool) {
	name, ok := strings.CutPrefix(line, "[")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, "]")
}

// words splits a command line as systemd.service(5) does: at spaces outside of
// quotes. A backslash takes the meaning from the next character; what else it
// can mean, such as \n, is no part of a path. Several commands in a line, with ;
// between them, count as one.
func words(s string) []string {
	var out []string
	var word strings.Builder
	var quote rune
	open, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if open {
				out = append(out, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if open {
		out = append(out, word.String())
	}
	return out
}
