package lint

import (
	"io/fs"
	"strings"
	"testing"
)

// A unit file of any content gives assignments that are each one line, and that
// read the same when they are written down.
func FuzzParseUnit(f *testing.F) {
	for _, s := range []string{"[Unit]\nAfter=a b\\\n# c\n d\n;x\nBad\n[Service\nExecStart=\n", "a=b\\", "\\\n\\\n=", "[]\r\n = \r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var text strings.Builder
		parsed := parseUnit([]byte(s))
		for _, a := range parsed {
			if strings.Contains(a.key+a.value+a.section, "\n") {
				t.Fatalf("%q: %+v has more than one line", s, a)
			}
			text.WriteString("[" + a.section + "]\n" + a.key + "=" + a.value + "\n")
		}
		again := parseUnit([]byte(text.String()))
		for i, a := range parsed {
			odd := strings.ContainsAny(a.section, "[]") || strings.HasSuffix(a.value, `\`) || a.key == "" || strings.ContainsAny(a.key[:1], "#;[")
			if odd {
				return // cannot be written down like this
			}
			if i >= len(again) || again[i] != a {
				t.Fatalf("%q: %+v is read again as %+v", s, parsed, again)
			}
		}
	})
}

// Words hold everything but quotes, spaces and backslashes.
func FuzzWords(f *testing.F) {
	for _, s := range []string{`a "b c" 'd'`, `"`, `\ x\`, `""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := 0
		for _, w := range words(s) {
			n += len(w)
		}
		if strings.ToValidUTF8(s, "") == s && n > len(s) {
			t.Errorf("%q has words of %d bytes", s, n)
		}
	})
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{
		"a  b\tc": "a|b|c", `"a b" c`: "a b|c", `a'b "c'd`: `ab "cd`, `a\ b`: "a b", `""`: "", `"a\"b"`: `a"b`, "": "", `"open a`: "open a",
	} {
		if got := strings.Join(words(in), "|"); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if len(words(`""`)) != 1 || len(words(" ")) != 0 {
		t.Error("an empty word in quotes is one, spaces are none")
	}
}

// A manifest of any content is pods or an error, never a panic.
func FuzzPods(f *testing.F) {
	for _, s := range []string{"kind: Pod\nspec: {containers: [{image: a}]}\n---\nkind: List\nitems: [{kind: Job}]\n", "[", "kind: PodList\nitems: [{kind: PodList, items: [{}]}]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		found, err := podsIn([]byte(s))
		for i := range found {
			found[i].containers()
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}

// Links of any kind end.
func FuzzFind(f *testing.F) {
	f.Add("/a/b", "../b/./a", "/a")
	f.Add("/a", "/", "a")
	f.Fuzz(func(t *testing.T, p, x, y string) {
		all := Files{"/a": {Mode: fs.ModeSymlink, Link: x}, "/b": {Mode: fs.ModeDir}, "/b/a": {Mode: fs.ModeSymlink, Link: y}}
		if at, f, ok := all.find(p); ok && f.Mode.Type() == fs.ModeSymlink {
			t.Errorf("%q ends in the link %s", p, at)
		}
	})
}

func FuzzParseRelease(f *testing.F) {
	for _, s := range []string{"v1.36.3", "26.1.5+dfsg1-9", "3.6.8-0", "1..2", "v", "1.99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseRelease(s)
		if again, _ := parseRelease(r.String()); ok && again != r {
			t.Errorf("%q is %v, which is %v", s, r, again)
		}
	})
}
