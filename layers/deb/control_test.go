package deb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers/deb"
)

func TestParagraphs(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"none", "", ""},
		{"only empty lines", "\n \n\n", ""},
		{"one", "A: 1\nB:2\n", "[A=1 B=2]"},
		{"no last newline", "A: 1", "[A=1]"},
		{"two", "\n\nA: 1\n\n\nA: 2\n", "[A=1] [A=2]"},
		{"white space", "A: \t x y \t\r\n", "[A=x y]"},
		{"continued", "A: 1\n  x\n .\n\ty\nB: 2\n", "[A=1\n x\n.\ny B=2]"},
		{"empty and continued", "SHA256:\n aa 1 x\n bb 2 y\n", "[SHA256=\naa 1 x\nbb 2 y]"},
		{"comments", "# c\nA: 1\n# d\nB: 2\n", "[A=1 B=2]"},
		{"colons", "A: x: y\n", "[A=x: y]"},
		{"no field", "A 1\n", `error: reading paragraph 1: line "A 1" is not a field`},
		{"blank in name", "A B: 1\n", `error: reading paragraph 1: line "A B: 1" is not a field`},
		{"no name", ": 1\n", `error: reading paragraph 1: line ": 1" is not a field`},
		{"continues nothing", " x\n", `error: reading paragraph 1: line " x" continues no field`},
		{"twice", "A: 1\n\nB: 1\nb: 2\n", `[A=1] error: reading paragraph 2: field b is there twice`},
		{"NUL", "A: \x00\n", `error: reading paragraph 1: contains a NUL byte`},
		{"too large", "A: 1\n" + strings.Repeat(" x\n", 6<<20), `error: reading paragraph 1: a paragraph is larger than 16777216 bytes`},
		{"too long a line", "A: " + strings.Repeat("x", 17<<20), `error: reading paragraph 1: a paragraph is larger than 16777216 bytes`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(c.in); got != c.want {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

func show(in string) string {
	var out []string
	for p, err := range deb.Paragraphs(strings.NewReader(in)) {
		if err != nil {
			out = append(out, "error: "+err.Error())
			continue
		}
		var fs []string
		for _, f := range p {
			fs = append(fs, f.Name+"="+f.Value)
		}
		out = append(out, fmt.Sprint(fs))
	}
	return strings.Join(out, " ")
}

func FuzzParagraphs(f *testing.F) {
	f.Add("Package: a\nDepends: b (>= 1), c | d\n\nPackage: b\nDescription: x\n y\n .\n z\n")
	f.Add("# c\nA:\n\t1\n\r\nB: \x80\n")
	f.Fuzz(func(t *testing.T, in string) {
		// What was read can be written and is read as the same again.
		var b strings.Builder
		for p, err := range deb.Paragraphs(strings.NewReader(in)) {
			if err != nil {
				return
			}
			if len(p) == 0 {
				t.Fatal("empty paragraph")
			}
			for _, f := range p {
				v := strings.ReplaceAll(f.Value, "\n", "\n ")
				if strings.Contains(v, "\n \n") || strings.HasSuffix(v, "\n ") {
					t.Fatalf("empty line in %q", f.Value)
				}
				fmt.Fprintf(&b, "%s: %s\n", f.Name, v)
			}
			b.WriteByte('\n')
		}
		if got, want := show(b.String()), show(in); got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

// versions are in ascending order; those in one line are equal.
var versions = [][]string{
	{"0~~"},
	{"0~~a"},
	{"0~"},
	{"0", "00", "0:0", "0-0", "0:0-0"},
	{"0a"},
	{"0.0~rc1", "0.00~rc1"},
	{"0.0", "0.000"},
	{"0.0-1~bpo1"},
	{"0.0-1", "0:0.0-1", "00:0.00-01"},
	{"0.0-1+b1"},
	{"0.0-1.1"},
	{"0.0.1"},
	{"1.2~rc1-1"},
	{"1.2-1"},
	{"1.2+dfsg-1"},
	{"1.10-1"},
	{"9.9a"},
	{"9.9b"},
	{"9.9+"},
	{"13.8+deb13u2"},
	{"13.8+deb13u10"},
	{"20250420123456789012345"},
	{"20250420123456789012346"},
	{"1:0"},
	{"2:2.7.5-2"},
	{"10:1"},
}

func TestCompareVersions(t *testing.T) {
	for i, as := range versions {
		for j, bs := range versions {
			for _, a := range as {
				for _, b := range bs {
					want := max(-1, min(1, i-j))
					if got := deb.CompareVersions(a, b); got != want {
						t.Errorf("%s against %s: got %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1.0~rc1-1", "1.0-1", "1:0")
	f.Add("", "-", "a:b:c-d-e")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := deb.CompareVersions(a, b), deb.CompareVersions(b, c), deb.CompareVersions(a, c)
		if ab != -deb.CompareVersions(b, a) || deb.CompareVersions(a, a) != 0 {
			t.Errorf("%q and %q: not an order", a, b)
		}
		if ab <= 0 && bc <= 0 && ac > 0 || ab < 0 && bc <= 0 && ac >= 0 {
			t.Errorf("%q, %q, %q: not transitive", a, b, c)
		}
	})
}

func TestCheck(t *testing.T) {
	for name, ok := range map[string]bool{
		"g++": true, "libc6": true, "0ad": true, "a.b-c+d": true,
		"": false, "a": false, "Aa": false, "-a": false, "a/b": false, "a b": false, "é": false,
	} {
		if got := deb.CheckName(name) == nil; got != ok {
			t.Errorf("name %q: got %v, want %v", name, got, ok)
		}
	}
	for version, ok := range map[string]bool{
		"1": true, "1:2.0~rc1+dfsg-1~deb13u1": true, "": false, "1 2": false, "1/2": false, "1\n": false,
	} {
		if got := deb.CheckVersion(version) == nil; got != ok {
			t.Errorf("version %q: got %v, want %v", version, got, ok)
		}
	}
}
