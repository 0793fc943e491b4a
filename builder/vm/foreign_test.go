//go:build foreign

package vm

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// TestQemuImgAgrees: qemu-img finds no fault with an overlay, reads the base
// through it, and its writes stay out of the base.
func TestQemuImgAgrees(t *testing.T) {
	dir := t.TempDir()
	base, over := filepath.Join(dir, "base.raw"), filepath.Join(dir, "over.qcow2")
	content := strings.Repeat("kscratch", 1<<17)
	if err := os.WriteFile(base, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 16 << 30, 8 << 40} {
		os.Remove(over)
		if err := CreateOverlay(over, base, size); err != nil {
			t.Fatal(err)
		}
		run(t, "qemu-img", "check", "-q", over)
		var info struct {
			Size    int64  `json:"virtual-size"`
			Backing string `json:"full-backing-filename"`
			Format  string `json:"backing-filename-format"`
		}
		if err := json.Unmarshal([]byte(run(t, "qemu-img", "info", "--output=json", over)), &info); err != nil {
			t.Fatal(err)
		}
		if info.Size != max(size, 1<<20) || info.Backing != base || info.Format != "raw" {
			t.Errorf("size %d: got %+v", size, info)
		}
	}
	run(t, "qemu-io", "-c", "write -P 7 1G 128k", "-c", "write -P 9 0 4k", over)
	run(t, "qemu-io", "-r", "-c", "read -P 7 1G 128k", "-c", "read -P 0 1M 4k", "-c", "read -P 9 0 4k", over)
	run(t, "qemu-img", "check", "-q", over)
	if b, err := os.ReadFile(base); err != nil || string(b) != content {
		t.Errorf("the base has changed: %v", err)
	}
}

// TestFirmware powers real firmware on with nothing to boot.
func TestFirmware(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "empty.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := Start(t.Context(), Machine{
		Dir: dir, Clock: time.Now, Disk: disk, Snapshot: true, DiskSize: 1 << 30, CPUs: 1, Memory: 256,
		PodCIDR: "10.244.1.0/24", KernelArgs: "a=b", FwCfg: map[string]string{"opt/x": "y,z"},
		Forwards: []Forward{{Guest: 6443}, {Guest: 22}}, Ports: []string{"a", "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	nothing := regexp.MustCompile(`BdsDxe: (No bootable|failed to load)`)
	l, err := v.Console().WaitFor(t.Context(), nothing)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []int{6443, 22} {
		c, err := net.Dial("tcp4", v.Addr(p))
		if err != nil {
			t.Fatalf("port %d: %v", p, err)
		}
		c.Close()
	}
	if v.Port("a") == nil || v.Port("c") != nil || v.Addr(80) != "" {
		t.Error("ports that were not asked for, or the other way round")
	}
	if err := v.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Console().WaitAfter(t.Context(), l.At+time.Millisecond, nothing); err != nil {
		t.Fatal(err)
	}
	// Nothing handles the power button: the machine must go off all the same.
	if err := v.Stop(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), "was switched off") {
		t.Errorf("stopping: got %v", err)
	}
	<-v.Done()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestQEMURefuses: what QEMU says when it cannot start is in the error.
func TestQEMURefuses(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tc := range []struct {
		name string
		m    Machine
		want string
	}{
		{"port taken", Machine{Kernel: "/dev/null", Forwards: []Forward{{l.Addr().(*net.TCPAddr).Port, 6443}}}, "Could not set up host forwarding"},
		{"no kernel", Machine{Kernel: "/nowhere"}, "/nowhere"},
		{"no disk", Machine{Disk: "/nowhere"}, "no such file"},
	} {
		tc.m.Dir, tc.m.Clock = dir, time.Now
		if _, err := Start(t.Context(), tc.m); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}
