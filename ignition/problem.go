package ignition

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/coreos/vcontext/report"
)

// Problem is one remark about a user's Butane file.
type Problem struct {
	File   string
	Line   int // from 1
	Column int // from 1
	Text   string
}

func (p Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Problems is every remark about the user's Butane files, in their order. As
// an error it is a line for each.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (s Snippet) at(line, column int, text string) Problem {
	return Problem{s.Name, max(line, 1), max(column, 1), text}
}

// problems turns the remarks of a report into ours. Remarks that are for
// information only are none.
func (s Snippet) problems(r report.Report) Problems {
	var out Problems
	for _, e := range r.Entries {
		if e.Kind == report.Info {
			continue
		}
		p := s.at(1, 1, e.Message)
		if m := e.Marker.StartP; m != nil {
			p = s.at(int(m.Line), int(m.Column), e.Message)
		}
		if e.Context.Len() > 0 {
			p.Text = e.Context.String() + ": " + p.Text
		}
		out = append(out, p)
	}
	return out
}

// yamlLine finds the line in an error of the YAML parser, which tells it in
// words only.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntax is a problem before or beyond the reach of a report.
func (s Snippet) syntax(err error) Problem {
	text, line := oneLine(err.Error()), 1
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		if n, err := strconv.Atoi(text[m[2]:m[3]]); err == nil {
			line, text = n, text[:m[0]]+text[m[1]:]
		}
	}
	return s.at(line, 1, text)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func asProblems(err error) Problems {
	var ps Problems
	if errors.As(err, &ps) {
		return ps
	}
	return Problems{{File: "internal error", Line: 1, Column: 1, Text: err.Error()}}
}

func names(snippets []Snippet) string {
	out := make([]string, len(snippets))
	for i, s := range snippets {
		out[i] = s.Name
	}
	return strings.Join(out, ", ")
}

// specVersion returns the spec version that an Ignition config names.
func specVersion(b []byte) (string, error) {
	var c struct {
		Ignition struct {
			Version string `json:"version"`
		} `json:"ignition"`
	}
	if err := json.Unmarshal(b, &c); err != nil || c.Ignition.Version == "" {
		return "", fmt.Errorf("translates to something that is not an Ignition config; fix: variant: fcos, version: 1.4.0")
	}
	return c.Ignition.Version, nil
}

func supported(version string) bool {
	switch version {
	case "3.0.0", "3.1.0", "3.2.0", "3.3.0":
		return true
	}
	return false
}
