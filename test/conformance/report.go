package conformance

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Outcome says how a spec went.
type Outcome string

// The outcomes.
const (
	Passed   Outcome = "passed"
	Failed   Outcome = "failed"
	NotTried Outcome = "not tried"
)

// Result is the outcome of a spec.
type Result struct {
	Spec
	Outcome Outcome
	Reason  string        // of a failure, or why it was not tried
	Took    time.Duration // zero if it was not run
}

// Report has a result for each spec of the conformance programme, in order of
// name.
type Report []Result

const (
	notListed = "not in the list of this run"
	noTime    = "the time ran out before it"
)

// newReport joins the specs that there are, those asked for and those that ran.
func newReport(known []Spec, asked []string, ran map[string]result) Report {
	var out Report
	for _, s := range known {
		r := Result{Spec: s, Outcome: NotTried, Reason: notListed}
		got, ok := ran[s.Name]
		switch {
		case ok:
			r.Outcome, r.Reason, r.Took = got.outcome, got.reason, got.took
		case slices.Contains(asked, s.Name):
			r.Reason = noTime
		default:
			if why := obstacle(s); why != "" {
				r.Reason = why
			}
		}
		out = append(out, r)
	}
	return out
}

// With returns the results that have an outcome.
func (r Report) With(o Outcome) Report {
	return slices.DeleteFunc(slices.Clone(r), func(x Result) bool { return x.Outcome != o })
}

// Summary says in a few lines how many specs passed, which failed, and why the
// others were not tried.
func (r Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d conformance specs: %d passed, %d failed, %d not tried\n", len(r), len(r.With(Passed)), len(r.With(Failed)), len(r.With(NotTried)))
	for _, f := range r.With(Failed) {
		fmt.Fprintf(&b, "failed: %s: %s\n", f.Name, f.Reason)
	}
	for _, g := range r.With(NotTried).byReason() {
		fmt.Fprintf(&b, "not tried: %d: %s\n", len(g.specs), g.reason)
	}
	return b.String()
}

type group struct {
	reason string
	specs  Report
}

// byReason groups results, in order of reason.
func (r Report) byReason() []group {
	var out []group
	for _, x := range r {
		i := slices.IndexFunc(out, func(g group) bool { return g.reason == x.Reason })
		if i < 0 {
			i = len(out)
			out = append(out, group{reason: x.Reason})
		}
		out[i].specs = append(out[i].specs, x)
	}
	slices.SortFunc(out, func(a, b group) int { return strings.Compare(a.reason, b.reason) })
	return out
}

const preamble = `# Conformance

How a kscratch cluster of %s does in the conformance programme of
Kubernetes %s: every spec with its outcome, and the reason where it was not
tried. ` + "`make conformance`" + ` runs the specs and writes this file. The specs are
upstream's own, built from the Kubernetes module; the images they use are
described in test/e2e.

| outcome | specs |
|---|---|
| passed | %d |
| failed | %d |
| not tried | %d |
`

// WriteMarkdown writes the report on a Kubernetes version and a cluster, such as
// "2 nodes". The same outcomes give the same text: times are left out.
func (r Report) WriteMarkdown(w io.Writer, version, cluster string) error {
	var b bytes.Buffer
	passed, failed, rest := r.With(Passed), r.With(Failed), r.With(NotTried)
	fmt.Fprintf(&b, preamble, cluster, version, len(passed), len(failed), len(rest))
	if len(failed) > 0 {
		b.WriteString("\n## Failed\n\n")
		for _, x := range failed {
			fmt.Fprintf(&b, "- %s: %s\n", escape(x.Name), escape(x.Reason))
		}
	}
	section(&b, "Passed", passed)
	for _, g := range rest.byReason() {
		section(&b, "Not tried: "+g.reason, g.specs)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func section(b *bytes.Buffer, title string, specs Report) {
	if len(specs) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", escape(title))
	for _, x := range specs {
		fmt.Fprintf(b, "- %s\n", escape(x.Name))
	}
}

// escape keeps Markdown from reading a text as anything but text.
var escape = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", "|", `\|`,
).Replace
