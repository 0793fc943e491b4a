//go:build foreign

package fat

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDosfstoolsAndMtools lets dosfstools check file systems and mtools read
// them.
func TestDosfstoolsAndMtools(t *testing.T) {
	for _, size := range []int64{MinSize, testSize, 261 << 20, 512 << 20} {
		tr := sample(t)
		p := image(t, tr, size).Name()
		if out := run(t, "fsck.vfat", "-n", "-v", p); strings.Contains(out, "Dirty bit") || strings.Contains(out, "differ") {
			t.Errorf("%d bytes: fsck.vfat says\n%s", size, out)
		}
		for _, name := range []string{"EFI/Linux/kscratch-master_1+3.efi", "many/a long name with number 39.cred", "Grüße €.txt"} {
			f, ok := tr.Lookup(name)
			if !ok {
				t.Fatal(name)
			}
			want, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(t.TempDir(), "out")
			run(t, "mcopy", "-i", p, "::"+name, to)
			got, err := os.ReadFile(to)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: mcopy reads %d bytes (%v), want %d", name, len(got), err, len(want))
			}
		}
		out := run(t, "mdir", "-i", p, "-/", "::")
		for _, want := range []string{"Volume in drive : is ESP", "Volume Serial Number is 1234-ABCD", "2026-01-02   3:04", "BOOTX64  EFI    100001"} {
			if !strings.Contains(out, want) {
				t.Errorf("mdir does not show %q:\n%s", want, out)
			}
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MTOOLSRC=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
