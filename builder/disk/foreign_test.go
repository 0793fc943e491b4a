//go:build foreign

package disk

import (
	"os/exec"
	"strings"
	"testing"
)

// TestForeign lets gdisk, sfdisk, qemu and mtools look at an image.
func TestForeign(t *testing.T) {
	f, _ := image(t)
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"sgdisk", "-v", f.Name()}, []string{"No problems found"}},
		{[]string{"sgdisk", "-i", "2", f.Name()}, []string{
			"Partition GUID code: 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Partition unique GUID: 02020304-0506-4708-890A-0B0C0D0E0F02",
			"First sector: 71680", "Attribute flags: 1000000000000000", "Partition name: 'root-a_1'"}},
		{[]string{"sgdisk", "-i", "4", f.Name()}, []string{"Attribute flags: 0800000000000000", "4D21B016-B534-45C2-A9FB-5C16E091FD2D"}},
		{[]string{"sfdisk", "--verify", f.Name()}, []string{"No errors detected"}},
		{[]string{"qemu-img", "info", "-f", "raw", f.Name()}, []string{"virtual size: 42 MiB"}},
		{[]string{"mdir", "-b", "-/", "-i", f.Name() + "@@1M", "::"}, []string{"::/EFI/BOOT/BOOTX64.EFI"}},
	} {
		out, err := exec.Command(tc.args[0], tc.args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", tc.args, err, out)
		}
		for _, w := range tc.want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%v: no %q in\n%s", tc.args, w, out)
			}
		}
	}
}
