package builder

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/layers"
)

func TestParseSums(t *testing.T) {
	a, b := layers.DigestOf([]byte("a")), layers.DigestOf([]byte("b"))
	for _, tt := range []struct {
		in   string
		want map[string]layers.Digest
		err  string
	}{
		{"", map[string]layers.Digest{}, ""},
		{a.Hex() + "  x/y\n" + b.Hex() + "  two  blanks\n", map[string]layers.Digest{"x/y": a, "two  blanks": b}, ""},
		{a.Hex() + "  last", map[string]layers.Digest{"last": a}, ""},
		{a.Hex() + "  x\n" + a.Hex() + " y\n", nil, "line 2: want 64"},
		{a.Hex() + " *binary\n", nil, "line 1: want 64"},
		{a.Hex()[1:] + "  x\n", nil, "line 1: want 64"},
		{a.Hex() + "  ../x\n", nil, "line 1: want 64"},
		{a.Hex() + "  /etc/passwd\n", nil, "line 1: want 64"},
		{"\n", nil, "line 1: want 64"},
		{strings.Repeat("x", 1<<20), nil, "token too long"},
	} {
		got, err := parseSums(strings.NewReader(tt.in))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.20q: got %v, want %q", tt.in, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got); err != nil || d != "" {
			t.Errorf("%.20q: %v, -want +got:\n%s", tt.in, err, d)
		}
	}
}

// FuzzParseSums: what is read is digests and paths below the directory, and
// reads the same when it is written again.
func FuzzParseSums(f *testing.F) {
	f.Add(layers.DigestOf(nil).Hex() + "  debian/pool/a.deb\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseSums(strings.NewReader(in))
		if err != nil {
			return
		}
		var out strings.Builder
		for name, d := range got {
			if d.Check() != nil || !fs.ValidPath(name) {
				t.Errorf("got %q for %q", name, d)
			}
			fmt.Fprintf(&out, "%s  %s\n", d.Hex(), name)
		}
		again, err := parseSums(strings.NewReader(out.String()))
		if d := cmp.Diff(got, again); err != nil || d != "" {
			t.Errorf("%v, -want +got:\n%s", err, d)
		}
	})
}
