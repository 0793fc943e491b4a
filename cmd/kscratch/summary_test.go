package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder"
)

type silent struct{}

func (silent) Begin(string, int64) builder.Task { return noTask{} }

func TestSummary(t *testing.T) {
	s := newSummary(silent{})
	var b strings.Builder
	if err := s.table(&b); err != nil || b.Len() > 0 {
		t.Errorf("nothing was done, and the table says %q, %v", b.String(), err)
	}
	s.Input("packages", 1<<20, true)
	s.Input("packages", 1<<20, true)
	s.Input("images", 1<<19, true)
	s.Input("images", 1<<19, false)
	packages, root := s.Begin("packages", 5), s.Begin("root", 3<<20)
	packages.Add(5)
	packages.End()
	packages.End()
	root.Add(3 << 20)
	root.End()
	if err := s.table(&b); err != nil {
		t.Fatal(err)
	}
	const want = `packages  2  2.0 MiB  0.0 s  all in the content store
images    2  1.0 MiB         1 in the content store
root         3.0 MiB  0.0 s
in all                0.0 s
`
	got := regexp.MustCompile(` +\n`).ReplaceAllString(b.String(), "\n")
	// However busy the machine is.
	got = regexp.MustCompile(`(in all +)[0-9.]+ s`).ReplaceAllString(got, "${1}0.0 s")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
