package builder_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/builder"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

const docsHead = `# The cluster file

` + "`kscratch init`" + ` writes a ` + "`cluster.yaml`" + ` with every field, its default and a comment. All fields are
optional. Paths are relative to the file. What is wrong with a file is reported all at once, as
` + "`file:line:col: field: what; the fix`" + `, with exit code 2. What the options of the guide that kscratch
follows have become, and what each of them does to a node, is in [options.md](options.md).

This page is made from the schema (` + "`kscratch schema`; `go test ./builder -run Docs -update`" + `); a test keeps it true.

| field | type | default | meaning |
|---|---|---|---|
`

func TestDocsAreCurrent(t *testing.T) {
	b, err := builder.Schema()
	must(t, err)
	d := docs{defs: map[string]*yaml.Node{}}
	root := document(t, b)
	for name, def := range each(child(root, "$defs")) {
		d.defs["#/$defs/"+name] = def
	}
	b, err = yaml.Marshal(builder.Default())
	must(t, err)
	d.rows(root, "", document(t, b))
	current(t, "../docs/cluster.md", docsHead+d.out.String())
}

// current compares a page with what it should be, or writes it with -update.
func current(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if d := gocmp.Diff(want, string(got)); d != "" {
		t.Errorf("%s is out of date (-want +got), run with -update:\n%s", strings.TrimPrefix(path, "../"), d)
	}
}

// document parses YAML, or JSON, with the order of its keys.
func document(t *testing.T, b []byte) *yaml.Node {
	t.Helper()
	var doc yaml.Node
	must(t, yaml.Unmarshal(b, &doc))
	return doc.Content[0]
}

// each yields the keys and values of a mapping; nothing if n is none.
func each(n *yaml.Node) func(func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

// child returns what a mapping has under a key; nil if it has nothing.
func child(n *yaml.Node, key string) *yaml.Node {
	for k, v := range each(n) {
		if k == key {
			return v
		}
	}
	return nil
}

func text(n *yaml.Node, key string) string {
	if v := child(n, key); v != nil {
		return v.Value
	}
	return ""
}

// docs writes a table row for each field of a schema.
type docs struct {
	defs map[string]*yaml.Node // by reference
	out  strings.Builder
}

func (d *docs) rows(schema *yaml.Node, path string, defaults *yaml.Node) {
	for name, field := range each(child(schema, "properties")) {
		at := strings.TrimPrefix(path+"."+name, ".")
		meaning := text(field, "description") + limits(field) + limits(child(field, "items"))
		def := d.defs[text(field, "$ref")]
		if child(def, "properties") != nil {
			fmt.Fprintf(&d.out, "| **%s** | | | %s |\n", at, meaning)
			d.rows(def, at, child(defaults, name))
			continue
		}
		if def, ok := d.defs[text(child(field, "items"), "$ref")]; ok {
			fmt.Fprintf(&d.out, "| **%s[]** | list | | %s |\n", at, meaning)
			d.rows(def, at+"[]", nil)
			continue
		}
		fmt.Fprintf(&d.out, "| `%s` | %s | %s | %s |\n", at, kind(cmp.Or(def, field)), value(child(defaults, name)), meaning)
	}
}

// kind says what type a schema stands for.
func kind(schema *yaml.Node) string {
	switch text(schema, "type") {
	case "array":
		return "list of " + kind(child(schema, "items"))
	case "object":
		if of := kind(child(schema, "additionalProperties")); of != "any" {
			return "map of " + of
		}
		return "map"
	case "":
		var kinds []string
		if list := child(schema, "anyOf"); list != nil {
			for _, of := range list.Content {
				kinds = append(kinds, kind(of))
			}
		}
		return cmp.Or(strings.Join(kinds, " or "), "any")
	}
	return text(schema, "type")
}

// value writes a default; nothing says more than an empty one.
func value(n *yaml.Node) string {
	if n == nil || n.Value == "" && len(n.Content) == 0 {
		return ""
	}
	n.Style |= yaml.FlowStyle
	b, err := yaml.Marshal(n)
	if err != nil {
		return err.Error()
	}
	return "`" + string(bytes.TrimSpace(b)) + "`"
}

// limits says which values a schema allows.
func limits(schema *yaml.Node) (out string) {
	if enum := child(schema, "enum"); enum != nil && len(enum.Content) > 1 {
		var names []string
		for _, e := range enum.Content {
			names = append(names, "`"+e.Value+"`")
		}
		out += " One of " + strings.Join(names, ", ") + "."
	}
	if v := text(schema, "minimum"); v != "" {
		out += " At least " + v + "."
	}
	if v := text(schema, "maximum"); v != "" {
		out += " At most " + v + "."
	}
	return out
}
