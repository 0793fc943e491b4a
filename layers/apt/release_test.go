package apt

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kscratch/kscratch/test/aptfake"
)

// The keys in keys/ are those that its README names.
func TestDebianKeys(t *testing.T) {
	keys, err := readKeys(debianKeys())
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("keys/README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.ReplaceAll(string(readme), " ", "")
	for _, k := range keys {
		if f := strings.ToUpper(hex.EncodeToString(k.PrimaryKey.Fingerprint)); !strings.Contains(listed, "`"+f+"`") {
			t.Errorf("%s is not in the README", f)
		}
	}
	if len(keys) != 3 {
		t.Errorf("got %d keys, want 3", len(keys))
	}
}

func TestParseDate(t *testing.T) {
	want := time.Date(2026, 9, 5, 7, 55, 41, 0, time.UTC)
	for s, ok := range map[string]bool{
		"Sat, 05 Sep 2026 07:55:41 UTC": true, "Sat, 5 Sep 2026 07:55:41 +0000": true, "Sat,  5 Sep 2026 07:55:41 GMT": true,
		"Sat, 05 Sep 2026 07:55:41 CEST": false, "2026-09-05T07:55:41Z": false, "": false, " UTC": false,
	} {
		got, err := parseDate(s)
		if (err == nil) != ok || ok && !got.Equal(want) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
}

func signed(t testing.TB) (raw []byte, keys keyring) {
	t.Helper()
	files, err := aptfake.Settings{}.Files()
	if err != nil {
		t.Fatal(err)
	}
	b, err := aptfake.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if keys, err = readKeys(b); err != nil {
		t.Fatal(err)
	}
	return files["debian/dists/trixie/InRelease"], keys
}

// A key is good in the time for which it was made only.
func TestVerifyTime(t *testing.T) {
	raw, keys := signed(t)
	for year, ok := range map[int]bool{2020: false, 2026: true} {
		_, _, err := verify(raw, keys, time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC))
		if (err == nil) != ok {
			t.Errorf("in %d: got %v", year, err)
		}
	}
}

// A signature by a key that is not known does not hide a good one after it.
func TestVerifySeveral(t *testing.T) {
	raw, keys := signed(t)
	debian, err := readKeys(debianKeys())
	if err != nil {
		t.Fatal(err)
	}
	_, signers, err := verify(raw, append(debian, keys...), aptfake.Date)
	if err != nil || len(signers) != 1 {
		t.Errorf("got %v, %v", signers, err)
	}
}

// Nothing but what was signed is ever accepted.
func FuzzRelease(f *testing.F) {
	raw, keys := signed(f)
	want, _, err := verify(raw, keys, aptfake.Date)
	if err != nil {
		f.Fatal(err)
	}
	s := Suite{Name: "trixie", Archive: Archive}
	f.Add(raw)
	f.Add(bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")))
	f.Add(want)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _, err := verify(raw, keys, aptfake.Date)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("verified: %q", got)
		}
		if _, err := parseRelease(raw, s); err == nil && !bytes.Contains(raw, []byte("trixie")) {
			t.Errorf("taken for trixie: %q", raw)
		}
	})
}

func FuzzHostMirror(f *testing.F) {
	f.Add("Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\n", "deb [x=y] http://m.example/s sid-security main")
	f.Add("URIs: file:..\nTypes: deb", "deb [")
	f.Fuzz(func(t *testing.T, sources, list string) {
		m, err := hostMirror(fstest.MapFS{
			"etc/apt/sources.list.d/a.sources": {Data: []byte(sources)},
			"etc/apt/sources.list.d/b.list":    {Data: []byte(list)},
		}, nil)
		if err == nil && m.Check() != nil {
			t.Errorf("%+v: %v", m, m.Check())
		}
	})
}
