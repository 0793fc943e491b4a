package ignition_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/ignition"
)

// localFiles makes a directory with some files, and a secret beside it.
func localFiles(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	for _, name := range []string{"motd", "u.service", "keys", "tree/a", "tree/b/c", "links/file", "unused", "../secret"} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "tree/b/c"), 0o755), os.Symlink("/none", filepath.Join(dir, "links/dangling"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLocals finds all that a Butane file includes and nothing else.
func TestLocals(t *testing.T) {
	dir := localFiles(t)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "variant: fcos\nstorage: {files: [{path: /local, contents: {inline: local}}]}", nil},
		{"contents and parts", "storage: {files: [{path: /a, contents: {local: motd}, append: [{local: keys}]}]}", []string{"keys", "motd"}},
		{"trees", "storage: {trees: [{local: tree, path: /x}, {local: ./tree}]}", []string{"tree/a", "tree/b/c*"}},
		{"a link in a tree is not read through", "storage: {trees: [{local: links}]}", []string{"links/dangling -> /none", "links/file"}},
		{"empty", "systemd: {units: [{name: u, contents_local: }, {name: v, contents_local: ''}]}", nil},
		{"units", "systemd: {units: [{name: u, contents_local: u.service, dropins: [{contents_local: motd}]}]}", []string{"motd", "u.service"}},
		{"lists", "passwd: {users: [{name: core, ssh_authorized_keys_local: [keys, motd]}]}", []string{"keys", "motd"}},
		{"not there", "storage: {files: [{contents: {local: none}}]}", nil},
		{"outside", "storage: {files: [{contents: {local: ../secret}}]}", nil},
		{"not YAML", "a: [", nil},
	} {
		var got []string
		for _, l := range ignition.Locals([]byte(tt.in), dir) {
			if l.Exec {
				l.Name += "*"
			}
			if l.Link != "" {
				l.Name += " -> " + l.Link
			}
			got = append(got, l.Name)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, d)
		}
	}
	if got := ignition.Locals([]byte("local: motd"), dir+"/none"); got != nil {
		t.Errorf("got %v of a directory that is not there", got)
	}
}

// FuzzLocals: nothing outside of the directory is ever named.
func FuzzLocals(f *testing.F) {
	f.Add("storage: {trees: [{local: tree}], files: [{contents: {local: ../secret}}]}")
	dir := localFiles(f)
	f.Fuzz(func(t *testing.T, in string) {
		for _, l := range ignition.Locals([]byte(in), dir) {
			if !filepath.IsLocal(l.Name) {
				t.Errorf("got %q", l.Name)
			}
		}
	})
}
