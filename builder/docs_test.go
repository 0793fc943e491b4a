package builder_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

const docsHead = `# The cluster file

` + "`kscratch init`" + ` writes a ` + "`cluster.yaml`" + ` with every field, its default and a comment. All fields are
optional. Paths are relative to the file. What is wrong with a file is reported all at once, as
` + "`file:line:col: field: what; the fix`" + `, with exit code 2.

This page is made from the program (` + "`go test ./builder -run Docs -update`" + `); a test keeps it true.

| field | default | meaning |
|---|---|---|
`

func TestDocsAreCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString(docsHead)
	document(&b, "", reflect.ValueOf(*builder.Default()))
	const path = "../docs/cluster.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.String(), string(got)); d != "" {
		t.Errorf("docs/cluster.md is out of date (-want +got), run with -update:\n%s", d)
	}
}

// document writes a table row for each field below v.
func document(b *strings.Builder, path string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			continue // not in the file
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		text, choices := describe(f.Tag.Get("jsonschema"))
		switch {
		case f.Type.Kind() == reflect.Struct:
			fmt.Fprintf(b, "| **%s** | | %s |\n", at, text)
			document(b, at, v.Field(i))
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			fmt.Fprintf(b, "| **%s[]** | | %s |\n", at, text)
			document(b, at+"[]", reflect.New(f.Type.Elem()).Elem())
		default:
			fmt.Fprintf(b, "| `%s` | %s | %s%s |\n", at, value(v.Field(i)), text, choices)
		}
	}
}

func value(v reflect.Value) string {
	if v.IsZero() && v.Kind() != reflect.Bool || v.Kind() == reflect.Slice && v.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// describe splits a jsonschema tag into its description and its choices.
func describe(tag string) (text, choices string) {
	var enum []string
	tag = strings.ReplaceAll(tag, `\,`, "\x00")
	for part := range strings.SplitSeq(tag, ",") {
		key, val, _ := strings.Cut(part, "=")
		val = strings.ReplaceAll(val, "\x00", ",")
		switch key {
		case "description":
			text = val
		case "enum":
			enum = append(enum, "`"+val+"`")
		case "minimum":
			choices += " At least " + val + "."
		case "maximum":
			choices += " At most " + val + "."
		}
	}
	if len(enum) > 1 {
		choices = " One of " + strings.Join(enum, ", ") + "."
	}
	return text, choices
}
