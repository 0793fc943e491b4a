//go:build foreign

package erofs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestErofsUtils lets erofs-utils check an image.
func TestErofsUtils(t *testing.T) {
	p := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(p, image(t, sample(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	run(t, "fsck.erofs", "--extract="+dir, "--preserve-perms", "--no-preserve-owner", p) // a chown would clear setuid
	for name, want := range map[string]fs.FileMode{
		"usr/bin/sudo": fs.ModeSetuid | 0o755,
		"tmp":          fs.ModeDir | fs.ModeSticky | 0o777,
		"var/mail":     fs.ModeDir | fs.ModeSetgid | 0o775,
		"empty":        fs.ModeDir | 0o700,
		"bin":          fs.ModeSymlink | 0o777,
	} {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != want {
			t.Errorf("/%s: fsck.erofs extracts mode %s, want %s", name, st.Mode(), want)
		}
	}
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"-s"}, []string{"01020304-0506-4708-890a-0b0c0d0e0f10", "0xE0F5E1E2"}},
		{[]string{"--path=/usr/bin/sudo"}, []string{"Size: 2", "Uid: 0", "Xattr size: 5040"}},
		{[]string{"--path=/etc/big-uid"}, []string{"Uid: 2147483648", "Gid: 70000"}},
		{[]string{"--path=/dev/sda"}, []string{"block dev"}},
	} {
		out := run(t, "dump.erofs", append(tc.args, p)...)
		for _, w := range tc.want {
			if !strings.Contains(out, w) {
				t.Errorf("dump.erofs %v: no %q in\n%s", tc.args, w, out)
			}
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
