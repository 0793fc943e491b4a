//go:build foreign

package initrd

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCpioAndZstd lets GNU cpio and zstd read archives.
func TestCpioAndZstd(t *testing.T) {
	dir := t.TempDir()
	plain, packed := archive(t, sample(t), Options{Time: testTime, Plain: true}), archive(t, sample(t), Options{Time: testTime})
	out := run(t, plain, "cpio", "-itv", "--numeric-uid-gid")
	for _, want := range []string{"crw-------   1 1        1048576    5,   1 Jan  2", "brw-rw----   1 0        0        254, 300 Jan  2",
		"-rwsr-xr-x   1 0        0          500000 Jan  2", "init -> usr/lib/systemd/systemd", "drwxrwxrwt   2 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("cpio does not show %q:\n%s", want, out)
		}
	}
	p := filepath.Join(dir, "a.zst")
	if err := os.WriteFile(p, bytes.TrimRight(packed, "\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "zstd", "-t", p)
	if out := run(t, nil, "zstd", "-lv", p); !strings.Contains(out, "Number of files: 1") && !strings.Contains(out, "# Zstandard Frames: 1") {
		t.Errorf("zstd does not see one frame:\n%s", out)
	}
}

func run(t *testing.T, in []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = io.Reader(bytes.NewReader(in))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
