//go:build foreign

package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// TestImage reads and changes a disk that other programs have made.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	root, fs, raw := filepath.Join(dir, "root"), filepath.Join(dir, "root.erofs"), filepath.Join(dir, "disk.raw")
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("kubectl\n", 1<<17)
	if err := os.WriteFile(filepath.Join(root, "usr/bin/kubectl"), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.erofs", fs, root)
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "truncate", "-s", "96M", raw)
	tool(t, "sgdisk", "-a", "2048", "-n", "1:2048:+64M", "-t", "1:"+string(typeESP), "-n", "2:0:+8M", "-t", "2:"+string(typeRoot), raw)
	tool(t, "mkfs.vfat", "--offset", "2048", "-F", "32", "-s", "1", raw, "65536")
	im := Image{Raw: raw}
	start, size, err := im.partition(typeRoot)
	if err != nil || start != (1+64)<<20 || size != 8<<20 {
		t.Fatalf("the root lies at %d, has %d bytes, %v", start, size, err)
	}
	tool(t, "dd", "if="+fs, "of="+raw, "bs=1M", "seek=65", "conv=notrunc", "status=none")

	kubectl := filepath.Join(dir, "kubectl")
	if err := im.Extract("usr/bin/kubectl", kubectl); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(kubectl); err != nil || string(b) != content {
		t.Errorf("extracted %d bytes, want %d; %v", len(b), len(content), err)
	}
	offset, block, bs, err := im.middleOfRoot()
	if err != nil || bs != 4096 || offset != start+block*bs || block < 100 || block > 160 {
		t.Errorf("the middle of the root is %d, block %d of %d bytes; %v", offset, block, bs, err)
	}

	cred := filepath.Join(dir, "cred")
	if err := os.WriteFile(cred, []byte("10.244.5.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const target = "/loader/credentials/kscratch.pod-cidr.cred"
	for range 2 { // the second time, everything is there
		if err := im.AddToESP(t.Context(), cred, target); err != nil {
			t.Fatal(err)
		}
	}
	if got := tool(t, "mtype", "-i", raw+"@@1M", "::"+target); got != "10.244.5.0/24\n" {
		t.Errorf("the ESP has %q", got)
	}
}
