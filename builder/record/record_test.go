package record

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	sum  = strings.Repeat("0a", 32)
	root = Root{
		Format: Format, Role: "master", ID: "1", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Packages: []Package{{Name: "bash", Version: "5.2", Digest: "sha256:x", Depends: []string{"libc6"}}},
		Images:   []Image{{Name: "a:1", Layers: []Layer{{Size: 3, Dir: "d"}}}},
		Files:    map[string]map[string]string{"deb:bash=5.2": {"usr/bin/bash": sum, "usr/bin": ""}},
	}
	build = Build{Format: Format, Role: "master", Keys: map[string]string{"deb:bash": "kscratch"}, Sources: map[string]string{"deb:bash": "archive pool/b"}, Secrets: []Secret{{"/k", "<a>"}}}
)

func TestThereAndBack(t *testing.T) {
	b, err := Encode(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRoot(b)
	if d := cmp.Diff(root, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if got := got.ByPath()["usr/bin/bash"]; got != (Found{root.Packages[0].Owner(), sum}) {
		t.Errorf("got %+v", got)
	}
	b, err = Encode(build)
	if err != nil || !strings.Contains(string(b), "<a>") {
		t.Fatalf("%v: %s", err, b)
	}
	again, err := ParseBuild(b)
	if d := cmp.Diff(build, again); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{"format":2}`, "format 2, this kscratch knows 1; use the kscratch that built the image"},
		{`{}`, "format 0"},
		{`{"format":1}{}`, "text after its end"},
		{`{"format":1`, "unexpected EOF"},
		{`{"format":1,"files":{"o":{"../x":""}}}`, `file "../x" of "o"`},
		{`{"format":1,"files":{"o":{"x":"12"}}}`, "64 hex digits"},
	} {
		if _, err := ParseRoot([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
	if _, err := ParseBuild([]byte(`{"format":9}`)); err == nil || !strings.Contains(err.Error(), "reading /etc/kscratch/build.json of the initrd: format 9") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"files":{"o":{"x":""}},"keys":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRoot(b); err == nil {
			if _, err := Encode(r); err != nil {
				t.Error(err)
			}
		}
		_, _ = ParseBuild(b)
	})
}
