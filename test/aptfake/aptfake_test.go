package aptfake_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/test/aptfake"
)

var debs = []aptfake.Deb{
	{Name: "aa", Depends: "libb1", Files: []layers.File{layers.Regular("usr/bin/aa", 0o755, "t", []byte("aa"))}},
	{Name: "libb1", Version: "1:2-3", Source: "libb", Suite: aptfake.Security, Fields: map[string]string{"Multi-Arch": "same"}},
	{Name: "cc", Arch: "all", Suite: aptfake.Updates, Essential: true},
}

// The bytes of an archive without compression are the same today, tomorrow and
// everywhere. If this digest changes, so do those in the golden files of
// others: say why in the commit.
func TestDeterministic(t *testing.T) {
	files, err := aptfake.Settings{Debs: debs}.Files()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(files)) {
		parts = append(parts, p, string(files[p]))
	}
	keys, err := aptfake.Keys()
	if err != nil {
		t.Fatal(err)
	}
	const want = "sha256:8b382f99512cee2fe2b3c79a10f15ca69dcffde4ce6433eb434696304879de8c"
	if got := layers.DigestOfParts(append(parts, string(keys))...); got != want {
		t.Errorf("got %s, want %s, for\n%s", got, want, strings.Join(slices.Sorted(maps.Keys(files)), "\n"))
	}
}

func TestWriteAndServe(t *testing.T) {
	a := aptfake.New(t, debs...)
	dir := t.TempDir()
	keys, err := aptfake.Write(dir, debs...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(keys, a.Keys) {
		t.Error("the keys differ")
	}
	for _, p := range []string{"debian/dists/trixie/InRelease", "debian-security/dists/trixie-security/InRelease", a.Path(debs[0]), a.Path(debs[1]), a.Path(debs[2])} {
		want, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		status, got := get(t, strings.TrimSuffix(a.Main, "debian")+p)
		if status != 200 || !bytes.Equal(got, want) {
			t.Errorf("%s: got status %d, %d bytes, want %d", p, status, len(got), len(want))
		}
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return -1, b
	}
	return resp.StatusCode, b
}

func TestFaults(t *testing.T) {
	a := aptfake.New(t, debs...)
	p := a.Path(debs[0])
	url := a.Main + strings.TrimPrefix(p, "debian")
	_, good := get(t, url)
	a.Fail(p, 503, 2)
	a.Cut(p, 10)
	var got []string
	for range 4 {
		status, b := get(t, url)
		got = append(got, fmt.Sprint(status, " ", len(b)))
	}
	a.TamperDeb(debs[0])
	_, bad := get(t, url)
	a.Remove(p)
	status, _ := get(t, url)
	want := []string{"503 20", "503 20", "-1 10", fmt.Sprint("200 ", len(good))}
	if !slices.Equal(got, want) || len(bad) != len(good) || bytes.Equal(bad, good) || status != 404 {
		t.Errorf("got %v, want %v; tampered: %v; removed: %d", got, want, !bytes.Equal(bad, good), status)
	}
	if n := len(a.Requests()); n != 7 || a.Requests()[0] != "GET "+p {
		t.Errorf("requests: %v", a.Requests())
	}
}
