//go:build foreign

package pxe_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format/pxe"
	"github.com/kscratch/kscratch/test/fakeworld"
	"github.com/kscratch/kscratch/test/formattest"
)

// run runs a program in dir, which must be content, and returns what it says.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestForeign takes a set apart with nothing of ours, down to the blocks of the
// root.
func TestForeign(t *testing.T) {
	in := fakeworld.Disk(t)
	out := formattest.Temp(t)
	if err := pxe.Write(t.Context(), out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, dir, "tar", "-xf", out.Name())
	run(t, dir, "sha256sum", "--check", "--strict", pxe.Sums)
	// The archives of an initrd stand one behind the other: zstd unpacks them
	// all, and cpio reads up to the end of one at a time.
	b, err := os.ReadFile(filepath.Join(dir, pxe.Initrd))
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(b, []byte("\x28\xb5\x2f\xfd"))
	if err := os.WriteFile(filepath.Join(dir, "last.zst"), bytes.TrimRight(b[last:], "\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "zstd", "-q", "-d", "last.zst", "-o", "last.cpio")
	run(t, dir, "cpio", "-i", "-d", "--quiet", "-F", "last.cpio")
	image := filepath.Join(dir, pxe.RootPath)
	if out := run(t, dir, "sgdisk", "--verify", image); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	for n, name := range []string{"verity", "root"} {
		text := run(t, dir, "sgdisk", "--info", string(rune('1'+n)), image)
		first := regexp.MustCompile(`First sector: (\d+)`).FindStringSubmatch(text)
		size := regexp.MustCompile(`Partition size: (\d+)`).FindStringSubmatch(text)
		if first == nil || size == nil {
			t.Fatalf("sgdisk says %s", text)
		}
		run(t, dir, "dd", "if="+image, "of="+name, "status=none", "skip="+first[1], "count="+size[1])
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, pxe.Cmdline))
	if err != nil {
		t.Fatal(err)
	}
	hash := regexp.MustCompile(`roothash=([0-9a-f]{64})`).FindSubmatch(cmdline)
	if hash == nil {
		t.Fatalf("no root hash in %q", cmdline)
	}
	run(t, dir, "veritysetup", "verify", "root", "verity", string(hash[1]))
	run(t, dir, "fsck.erofs", "root")
	if out := run(t, dir, "file", "-b", pxe.Kernel); !strings.Contains(out, "PE32+") && !strings.Contains(out, "Linux kernel") {
		t.Errorf("file says of the kernel: %s", out)
	}
}
