//go:build foreign

package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProbe runs the probe machine in the emulator, where it must always work:
// what the probe says of KVM is then KVM's doing.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	firmware := filepath.Join(dir, "probe.bin")
	if err := os.WriteFile(firmware, probeFirmware(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, program, want string
	}{
		{"emulator", qemuProgram, ""},
		{"aborts", "/bin/false", "exit status 1"},
		{"works too well", "/bin/true", "exits with status 99"},
		{"missing", "/nowhere", "no such file"},
	} {
		err := probe(t.Context(), tc.program, firmware, accelArgs(false))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestChooseKVM: a machine that may choose never fails for want of KVM.
func TestChooseKVM(t *testing.T) {
	dir := t.TempDir()
	if kvm, err := chooseKVM(t.Context(), AccelAuto, "/bin/false", dir); kvm || err != nil {
		t.Errorf("auto: got %v, %v", kvm, err)
	}
	if kvm, err := chooseKVM(t.Context(), AccelKVM, "/bin/false", dir); kvm || err == nil {
		t.Errorf("kvm: got %v, %v", kvm, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
