package conformance

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadReport(t *testing.T) {
	const good = `[{"SpecReports": [
		{"LeafNodeType": "BeforeSuite", "State": "passed"},
		{"ContainerHierarchyTexts": ["[sig-a] A", "b"], "LeafNodeType": "It", "LeafNodeText": "works [Conformance]", "State": "passed", "RunTime": 1500000000},
		{"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "fails", "State": "failed", "Failure": {"Message": "\n pod is gone\nmore"}},
		{"LeafNodeType": "It", "LeafNodeText": "needs more", "State": "skipped", "Failure": {"Message": "Requires at least 2 nodes"}},
		{"LeafNodeType": "It", "LeafNodeText": "other", "State": "skipped"},
		{"LeafNodeType": "It", "LeafNodeText": "slow", "State": "timedout", "Failure": {}},
		{"LeafNodeType": "It", "LeafNodeText": "cut short", "State": "timedout", "Failure": {"Message": "A suite timeout occurred"}},
		{"LeafNodeType": "SynchronizedAfterSuite", "State": "failed", "Failure": {"Message": "no matter"}}
	]}]`
	got, err := readReport(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]result{
		"[sig-a] A b works [Conformance]": {Passed, "", 1500 * time.Millisecond},
		"fails":                           {Failed, "failed: pod is gone", 0},
		"needs more":                      {NotTried, "skips itself: Requires at least 2 nodes", 0},
		"slow":                            {Failed, "timedout: no reason given", 0},
		"cut short":                       {NotTried, "the time ran out during it", 0},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"no report", ``, "reading Ginkgo's report: EOF"},
		{"not a report", `{}`, "reading Ginkgo's report"},
		{"no cluster", `[{"SpecReports": [{"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "no nodes"}}]}]`, "the suite's SynchronizedBeforeSuite failed: no nodes"},
		{"cluster not up in time", `[{"SpecReports": [{"LeafNodeType": "BeforeSuite", "State": "timedout", "Failure": {"Message": "A suite timeout occurred"}}]}]`, "the suite's BeforeSuite timedout"},
	} {
		if got, err := readReport(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v; want an error with %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzReadReport(f *testing.F) {
	f.Add([]byte(`[{"SpecReports": [{"LeafNodeType": "It", "LeafNodeText": "a", "State": "passed"}]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readReport(strings.NewReader(string(b)))
		for name, r := range got {
			if err != nil || r.outcome == "" || r.outcome != Passed && r.reason == "" {
				t.Errorf("%q: %+v, %v", name, r, err)
			}
		}
	})
}

var known = []Spec{
	{"[sig-a] fails_often [Conformance]", "a.go"},
	{"[sig-a] passes [Conformance]", "a.go"},
	{"[sig-a] too late [Conformance]", "a.go"},
	{"[sig-apps] StatefulSet scales [Conformance]", "ss.go"},
	{"[sig-b] other [Conformance]", "b.go"},
}

const wantMarkdown = `
| outcome | specs |
|---|---|
| passed | 1 |
| failed | 1 |
| not tried | 3 |

## Failed

- \[sig-a\] fails\_often \[Conformance\]: failed: &lt;nil>

## Passed

- \[sig-a\] passes \[Conformance\]

## Not tried: needs the image agnhost:2.55, an older program that no module here builds

- \[sig-apps\] StatefulSet scales \[Conformance\]

## Not tried: not in the list of this run

- \[sig-b\] other \[Conformance\]

## Not tried: the time ran out before it

- \[sig-a\] too late \[Conformance\]
`

func TestReport(t *testing.T) {
	asked := []string{known[0].Name, known[1].Name, known[2].Name}
	r := newReport(known, asked, map[string]result{
		known[0].Name: {Failed, "failed: <nil>", time.Second},
		known[1].Name: {Passed, "", time.Second},
	})
	var b strings.Builder
	if err := r.WriteMarkdown(&b, "v1.2.3", "2 nodes"); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.HasSuffix(got, wantMarkdown) || !strings.Contains(got, "Kubernetes v1.2.3") {
		t.Errorf("got\n%s\nwant at its end\n%s", got, wantMarkdown)
	}
	want := "5 conformance specs: 1 passed, 1 failed, 3 not tried\n" +
		"failed: [sig-a] fails_often [Conformance]: failed: <nil>\n" +
		"not tried: 1: needs the image agnhost:2.55, an older program that no module here builds\n" +
		"not tried: 1: not in the list of this run\nnot tried: 1: the time ran out before it\n"
	if got := r.Summary(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPartition(t *testing.T) {
	shared, alone := partition([]string{"a", "b [Serial]", "c", "d", "e [Disruptive]"}, 2)
	if !slices.Equal(shared[0], []string{"a", "d"}) || !slices.Equal(shared[1], []string{"c"}) || !slices.Equal(alone, []string{"b [Serial]", "e [Disruptive]"}) {
		t.Errorf("got %v, %v", shared, alone)
	}
}

func TestRedirect(t *testing.T) {
	const in = "clusters:\n- cluster:\n    certificate-authority-data: Zm9v\n    server: https://127.0.0.1:6443\n  name: a\ncurrent-context: a\n"
	got, err := redirect([]byte(in), "https://127.0.0.1:7")
	if want := strings.Replace(in, ":6443", ":7", 1); err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"", "a: [", "clusters: []", "clusters: [{name: a}]", "clusters: [1]"} {
		if got, err := redirect([]byte(bad), "https://127.0.0.1:7"); err == nil {
			t.Errorf("%q: got %s", bad, got)
		}
	}
}

func TestLists(t *testing.T) {
	for name, l := range map[string][]string{"quick": Quick(), "full": Full()} {
		sorted := slices.Clone(l)
		slices.Sort(sorted)
		if len(l) == 0 || len(slices.Compact(sorted)) != len(l) {
			t.Errorf("%s is empty or has a spec twice", name)
		}
		for _, s := range l {
			if !strings.Contains(s, "[Conformance]") || !slices.Contains(Full(), s) {
				t.Errorf("%s: %q is no conformance spec or not in the full list", name, s)
			}
			if why := obstacle(Spec{Name: s}); why != "" {
				t.Errorf("%s: %q %s", name, s, why)
			}
		}
	}
	if n := len(Quick()); n > 8 {
		t.Errorf("the quick list has %d specs, want 8 or fewer", n)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		asked []string
		want  string
	}{
		{nil, "no spec is asked for"},
		{[]string{known[0].Name, "[sig-a] renamed"}, `no conformance spec "[sig-a] renamed"`},
	} {
		if err := check(known, tt.asked); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want an error with %q", tt.asked, err, tt.want)
		}
	}
}
