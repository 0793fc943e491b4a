package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// result is how one spec went.
type result struct {
	outcome Outcome
	reason  string // of a failure, or why the spec skipped itself
	took    time.Duration
}

// ginkgoReport is what is used of Ginkgo's JSON report
// (https://onsi.github.io/ginkgo/#generating-machine-readable-reports).
type ginkgoReport struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
		RunTime                 time.Duration // nanoseconds
		Failure                 struct{ Message string }
	}
}

// cutShort is Ginkgo's message for the spec at which -ginkgo.timeout ended it.
const cutShort = "A suite timeout occurred"

// readReport returns the specs that were run. One that Ginkgo passed over has
// no result; one that skipped itself was not tried, and says why.
func readReport(r io.Reader) (map[string]result, error) {
	var reports []ginkgoReport
	if err := json.NewDecoder(r).Decode(&reports); err != nil {
		return nil, fmt.Errorf("reading Ginkgo's report: %w", err)
	}
	out := map[string]result{}
	for _, rep := range reports {
		for _, s := range rep.SpecReports {
			if strings.HasSuffix(s.LeafNodeType, "BeforeSuite") && s.State != "passed" {
				return nil, fmt.Errorf("no spec was run, the suite's %s %s: %s", s.LeafNodeType, s.State, firstLine(s.Failure.Message))
			}
			if s.LeafNodeType != "It" {
				continue
			}
			name := strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
			switch {
			case s.State == "passed":
				out[name] = result{Passed, "", s.RunTime}
			case s.State == "skipped" && s.Failure.Message != "":
				out[name] = result{NotTried, "skips itself: " + firstLine(s.Failure.Message), s.RunTime}
			case s.Failure.Message == cutShort:
				out[name] = result{NotTried, "the time ran out during it", s.RunTime}
			case s.State != "skipped" && s.State != "pending":
				out[name] = result{Failed, s.State + ": " + firstLine(s.Failure.Message), s.RunTime}
			}
		}
	}
	return out, nil
}

// firstLine returns the first line of a message that says something.
func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return "no reason given"
}
