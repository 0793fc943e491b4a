//go:build foreign

package qcow2

import (
	"os/exec"
	"strings"
	"testing"
)

// TestForeign lets QEMU count the references of large images.
func TestForeign(t *testing.T) {
	for _, tt := range larges {
		t.Run(tt.name, func(t *testing.T) {
			out, err := exec.Command("qemu-img", "check", "-f", "qcow2", large(t, tt.o, tt.length).Name()).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "No errors were found on the image.") {
				t.Errorf("qemu-img check: %v\n%s", err, out)
			}
		})
	}
}
