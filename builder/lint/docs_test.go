package lint_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder/lint"
)

var update = flag.Bool("update", false, "write docs/lint.md")

const docsHead = `# What is checked before an image is built

` + "`kscratch image lint`" + ` looks at what the images of all roles, or with ` + "`--role`" + ` of one, would contain, and says what
would go wrong on a node. It builds nothing, needs what a build needs, and takes a few seconds with a warm cache. ` + "`kscratch image build`" + `
does the same before it writes anything: errors stop it with exit code 2, warnings are printed.

A finding is a line: how bad it is, where, what, the fix, and the rule in parentheses. Where is a path on the node, with the Butane file that
put it there, or a field of the cluster file. ` + "`-o json`" + ` gives a list with ` + "`role`, `rules` and `findings`" + `, each finding with
` + "`rule`, `severity`, `where`, `what` and `fix`" + `.

    error: /etc/kubernetes/manifests/app.yaml (butane[0] app.bu): spec.containers[0]: image "example.org/app:v1" is not baked; bake it with an entry of images in the cluster file, or name one that is baked (image-baked)

This page is made from the rules (` + "`go test ./builder/lint -run Docs -update`" + `); a test keeps it true.

| rule | what holds |
|---|---|
`

// The page lists every rule, and every program with rights of its own.
func TestDocsAreCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, r := range lint.Rules {
		fmt.Fprintf(&b, "| `%s` | %s |\n", r.ID, r.Doc)
	}
	for _, l := range []struct {
		title string
		list  []lint.Privileged
	}{{"Set-user-ID programs", lint.Setuid}, {"Set-group-ID programs", lint.Setgid}} {
		fmt.Fprintf(&b, "\n## %s\n\nWhat is in container images is not counted.\n\n| program | package | why |\n|---|---|---|\n", l.title)
		for _, p := range l.list {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.Path, p.Package, p.Why)
		}
	}
	const page = "../../docs/lint.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(b.String(), string(got)); d != "" {
		t.Errorf("docs/lint.md is out of date (-want +got), run with -update:\n%s", d)
	}
}

// Rights that a caller does not have are few, and each has a reason.
func TestPrivileged(t *testing.T) {
	if n := len(lint.Setuid); n > 10 {
		t.Errorf("%d set-user-ID programs are let through", n)
	}
	for _, p := range append(lint.Setuid, lint.Setgid...) {
		if p.Path == "" || p.Package == "" || p.Why == "" {
			t.Errorf("%+v", p)
		}
	}
}
