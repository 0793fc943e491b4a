//go:build foreign

package iso_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format/iso"
	"github.com/kscratch/kscratch/test/fakeworld"
	"github.com/kscratch/kscratch/test/formattest"
)

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestForeign lets xorriso, cdrkit and util-linux read a CD, and gdisk the disk
// that it is, too.
func TestForeign(t *testing.T) {
	in := fakeworld.Disk(t)
	dir := t.TempDir()
	cd := filepath.Join(dir, "cd.iso")
	out, err := os.Create(cd)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := iso.Write(t.Context(), out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want []string
		args []string
	}{
		{[]string{"UEFI  y   none", "img path :   1  /EFI.IMG", "protective-msdos-label", "GPT"}, []string{"xorriso", "-indev", cd, "-report_el_torito", "plain"}},
		{[]string{"EFI.IMG", "README.TXT"}, []string{"xorriso", "-indev", cd, "-find", "/"}},
		{[]string{"Volume id: KSCRATCH", "El Torito VD version 1 found", "Arch 239 (Unknown Arch)", "Boot media 0 (No Emulation Boot)"}, []string{"isoinfo", "-d", "-i", cd}},
		{[]string{"EFI.IMG;1", "README.TXT;1"}, []string{"isoinfo", "-l", "-i", cd}},
		{[]string{"made by kscratch: kscratch-master 2"}, []string{"isoinfo", "-x", "/README.TXT;1", "-i", cd}},
		{[]string{"sector count: ", "sector size: 2048"}, []string{"isosize", "-x", cd}},
		{[]string{"iso9660", "KSCRATCH"}, []string{"blkid", "-p", "-o", "full", "-s", "TYPE", "-s", "LABEL", cd}},
		{[]string{"No problems found"}, []string{"sgdisk", "--verify", cd}},
	} {
		got := run(t, tt.args...)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s says\n%s\nwant %q in it", strings.Join(tt.args, " "), got, want)
			}
		}
	}
	// The EFI system partition that firmware is given is a FAT file system.
	esp := filepath.Join(dir, "efi.img")
	run(t, "sh", "-c", `isoinfo -x "/EFI.IMG;1" -i "$0" >"$1"`, cd, esp)
	run(t, "fsck.vfat", "-n", esp)
	if got := run(t, "mdir", "-i", esp, "-b", "::/EFI/BOOT"); !strings.Contains(got, "BOOTX64.EFI") {
		t.Errorf("mdir says %s", got)
	}
}
