//go:build boot

package boot

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/uki"
)

// TestForeignToolsAgree has the image under test judged by the tools of each
// format that it is made of.
func TestForeignToolsAgree(t *testing.T) {
	raw := config.Image.Raw
	b, err := os.ReadFile(filepath.Join(filepath.Dir(raw), "master.manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m builder.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	part := map[disk.Type]string{}
	for _, p := range m.Partitions {
		size := p.Size
		if disk.Type(p.Type) == disk.Root {
			size = p.Used
		}
		part[disk.Type(p.Type)] = section(t, raw, filepath.Join(dir, p.Label), p.Offset, size)
	}
	judge(t, `No problems found`, "sgdisk", "-v", raw)
	judge(t, `(?m)files`, "fsck.vfat", "-n", part[disk.ESP])
	judge(t, ``, "fsck.erofs", part[disk.Root])
	judge(t, ``, "veritysetup", "verify", part[disk.Root], part[disk.RootVerity], m.RootHash)

	kernel, config := bootParts(t, raw, dir)
	judge(t, `\.osrel[\s\S]*\.cmdline[\s\S]*\.initrd`, "objdump", "-h", kernel)
	judge(t, ``, "ignition-validate", config)
}

// judge runs a tool and wants it to succeed, and its output to match.
func judge(t *testing.T, want, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil || !regexp.MustCompile(want).Match(out) {
		t.Errorf("%s does not agree: %v\n%s", name, err, out)
	}
}

// section copies a part of a file, with holes where it has zeros.
func section(t *testing.T, from, to string, offset, size int64) string {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; {
		n, err := in.ReadAt(buf[:min(int64(len(buf)), size-at)], offset+at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				t.Fatal(err)
			}
		}
		at += int64(n)
	}
	return to
}

// bootParts writes the unified kernel image and the Ignition config that it
// carries to files.
func bootParts(t *testing.T, raw, dir string) (kernel, config string) {
	t.Helper()
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	esp, err := d.ESP()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := esp.Tree("esp")
	if err != nil {
		t.Fatal(err)
	}
	found, err := tree.Glob("EFI/Linux/*.efi")
	if err != nil || len(found) != 1 {
		t.Fatalf("want one unified kernel image, found %d, %v", len(found), err)
	}
	b, err := found[0].Read()
	if err != nil {
		t.Fatal(err)
	}
	kernel = filepath.Join(dir, "uki.efi")
	if err := os.WriteFile(kernel, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return kernel, ignitionIn(t, kernel, dir)
}

// ignitionIn unpacks the Ignition config out of a unified kernel image with
// zstd and cpio.
func ignitionIn(t *testing.T, kernel, dir string) string {
	t.Helper()
	f, err := os.Open(kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sections, err := uki.Read(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	initrd, ok := uki.Find(sections, ".initrd")
	if !ok {
		t.Fatal("the unified kernel image has no .initrd")
	}
	r, err := initrd.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	// The initrd is frames of Zstandard with zeros between them, which zstd does
	// not skip; the last frame is the cluster file's part.
	last := bytes.LastIndex(all, []byte{0x28, 0xb5, 0x2f, 0xfd})
	if last < 0 {
		t.Fatal("the initrd has no Zstandard frame")
	}
	if err := os.WriteFile(filepath.Join(dir, "config.zst"), all[last:], 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `cd "$1" && { zstd -dcq config.zst 2>zstd.err || :; } | cpio -idm --quiet --no-absolute-filenames`
	unpacked := filepath.Join(dir, "usr/lib/ignition/base.d/50-kscratch.ign")
	if out, err := exec.Command("bash", "-c", script, "bash", dir).CombinedOutput(); err != nil {
		t.Fatalf("unpacking the initrd: %v\n%s", err, out)
	}
	return unpacked
}
