package builder

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers"
)

const filesSpec = `butane: [conf/a.bu]
roleButane: {master: [m.bu]}
manifests: {patches: [{target: etcd, type: json, file: p.yaml}]}
base: {keyring: keys.pgp}
docker: {registries: [{host: r.example.org, ca: ca.pem, username: u, passwordFile: secret}]}
`

// filesProject writes every file that filesSpec names.
func filesProject(t *testing.T) (dir string, s *Spec, keys pki.Set) {
	t.Helper()
	dir = t.TempDir()
	for name, body := range map[string]string{
		"conf/a.bu":     "storage:\n  files: [{path: /a, contents: {local: inc/motd}}]\n  trees: [{local: tree}]\nsystemd:\n  units: [{name: u, contents_local: u.service}]\n",
		"conf/inc/motd": "motd", "conf/tree/x/y": "y", "conf/u.service": "[Unit]", "conf/unused": "",
		"m.bu": "variant: fcos\n", "p.yaml": "[]", "keys.pgp": "keys", "ca.pem": "pem", "secret": "123456\n",
	} {
		writeTestFile(t, filepath.Join(dir, name), body)
	}
	s, err := Parse("f", []byte(filesSpec))
	if err != nil {
		t.Fatal(err)
	}
	return dir, s, pki.Of(map[pki.Name][]byte{pki.CAKey: []byte("a key")})
}

func writeTestFile(t *testing.T, name, body string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(body), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func digests(t *testing.T, s *Spec, keys pki.Set, dir string) map[string]UserFile {
	t.Helper()
	files, err := userFiles(s, keys, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(files, func(a, b UserFile) int { return strings.Compare(a.Path, b.Path) }) {
		t.Errorf("not sorted: %v", files)
	}
	return byPath(files)
}

// TestUserFiles: each file that decides about an image is pinned, and what a
// password is cannot be found out by trying.
func TestUserFiles(t *testing.T) {
	dir, s, keys := filesProject(t)
	before := digests(t, s, keys, dir)
	want := []string{"ca.pem", "conf/a.bu", "conf/inc/motd", "conf/tree/x/y", "conf/u.service", "keys.pgp", "m.bu", "p.yaml", "secret"}
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(before))); d != "" {
		t.Errorf("files -want +got:\n%s", d)
	}
	for path, f := range before {
		if f.Keyed != (path == "secret") {
			t.Errorf("%s: keyed is %v", path, f.Keyed)
		}
	}
	if before["secret"].Digest == layers.DigestOf([]byte("123456\n")) {
		t.Error("the lock has the plain digest of a password")
	}
	if other := digests(t, s, pki.Of(map[pki.Name][]byte{pki.CAKey: []byte("another")}), dir); other["secret"] == before["secret"] {
		t.Error("the digest of a password does not depend on the PKI")
	}
	for _, path := range want {
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, filepath.Join(dir, path), string(b)+"# more\n")
		got := changedInputs(Inputs{Files: slices.Collect(maps.Values(before))}, Inputs{Files: slices.Collect(maps.Values(digests(t, s, keys, dir)))})
		if d := cmp.Diff([]string{"the file " + path + " has changed"}, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
		writeTestFile(t, filepath.Join(dir, path), string(b))
	}
}

// TestUserFilesMissing names all that are not there, with their places.
func TestUserFilesMissing(t *testing.T) {
	dir, s, keys := filesProject(t)
	for _, name := range []string{"conf/a.bu", "m.bu", "p.yaml", "keys.pgp", "ca.pem", "secret"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := userFiles(s, keys, Options{Dir: dir})
	var spec *SpecError
	if !errors.As(err, &spec) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range spec.Problems {
		got = append(got, p.Path)
		if want := "cannot be read: open " + dir; !strings.HasPrefix(p.Msg, want) || p.Line == 0 {
			t.Errorf("got %v", p)
		}
	}
	want := []string{
		"base.keyring", "butane[0]", "docker.registries[0].ca", "docker.registries[0].passwordFile",
		"manifests.patches[0].file", "roleButane.master[0]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestChangedInputs says everything that changed, in words.
func TestChangedInputs(t *testing.T) {
	old := Inputs{Spec: "1", Sources: "1", PKI: "1", Kscratch: "1", Files: []UserFile{{Path: "a", Digest: "1"}, {Path: "p", Digest: "1", Keyed: true}}}
	for _, tt := range []struct {
		now  Inputs
		want []string
	}{
		{old, nil},
		{Inputs{Spec: "2", Sources: "1", PKI: "1", Kscratch: "1", Files: old.Files}, []string{"the cluster file has changed"}},
		{
			Inputs{Spec: "1", Sources: "1", PKI: "2", Kscratch: "2", Files: []UserFile{{Path: "b", Digest: "1"}, {Path: "p", Digest: "2", Keyed: true}}},
			[]string{"the PKI has changed", "it was made by another kscratch", "the file a is not used any more", "the file b is new"},
		},
	} {
		if d := cmp.Diff(tt.want, changedInputs(old, tt.now)); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
}
