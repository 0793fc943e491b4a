//go:build foreign

package live

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestAttach has the kernel show the partitions of a file: util-linux and
// gdisk say what they see. The device is given back.
func TestAttach(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	run(t, "sgdisk", "--new=1:2048:4095", "--change-name=1:one", image)
	dev, err := Attach(image, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	out := run(t, "losetup", "--list", "--noheadings", "--raw", "--output", "BACK-FILE,RO,PARTSCAN,LOG-SEC", dev)
	if want := image + " 1 1 512\n"; out != want {
		t.Errorf("losetup says %q, want %q", out, want)
	}
	if out := run(t, "sgdisk", "--print", dev); !strings.Contains(out, " one\n") {
		t.Errorf("sgdisk says %s", out)
	}
	// Kernels without CONFIG_EFI_PARTITION do not scan; partx reads by itself.
	if out := run(t, "partx", "--show", "--noheadings", "--output", "SECTORS,NAME", dev); strings.Join(strings.Fields(out), " ") != "2048 one" {
		t.Errorf("partx says %q", out)
	}
	if _, err := Attach(filepath.Join(t.TempDir(), "none"), false); err == nil || !strings.Contains(err.Error(), "attaching /") {
		t.Errorf("no file: %v", err)
	}
}
