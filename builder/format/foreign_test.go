//go:build foreign

package format_test

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/ova"
	"github.com/kscratch/kscratch/test/formattest"
)

// judge runs a program, which must be content, and returns what it says.
func judge(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// same lets QEMU compare an image with the raw one.
func same(t *testing.T, kind, image string, raw *os.File) {
	t.Helper()
	if out := judge(t, "qemu-img", "compare", "-f", kind, "-F", "raw", image, raw.Name()); !strings.Contains(out, "Images are identical.") {
		t.Errorf("qemu-img compare: %s", out)
	}
}

// members unpacks an archive with tar.
func members(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	judge(t, "tar", "-C", dir, "-xf", archive)
	return dir
}

// judges are what else must agree that an image is of its format.
var judges = map[string]func(t *testing.T, image string, raw *os.File){
	"raw": func(t *testing.T, image string, raw *os.File) { judge(t, "cmp", image, raw.Name()) },
	"raw.zst": func(t *testing.T, image string, raw *os.File) {
		judge(t, "zstd", "-q", "-t", image)
		plain := filepath.Join(t.TempDir(), "plain")
		judge(t, "zstd", "-q", "-d", "-o", plain, image)
		judge(t, "cmp", plain, raw.Name())
	},
	"qcow2":      checkQcow2,
	"qcow2-zstd": checkQcow2,
	"vhd": func(t *testing.T, image string, raw *os.File) {
		same(t, "vpc", image, raw)
		if st, err := os.Stat(image); err != nil || st.Size()%(1<<20) != 512 {
			t.Errorf("%v: no whole number of MiB and a footer", st.Size())
		}
	},
	"vmdk": func(t *testing.T, image string, raw *os.File) {
		judge(t, "qemu-img", "check", "-f", "vmdk", image)
		same(t, "vmdk", image, raw)
	},
	"ova": checkOVA,
	"gce": func(t *testing.T, image string, raw *os.File) {
		judge(t, "gzip", "-t", image)
		if out := judge(t, "tar", "-tvzf", image); !strings.HasPrefix(out, "-rw-r--r-- 0/0      1073741824 1970-01-01 ") || !strings.HasSuffix(out, " disk.raw\n") {
			t.Errorf("tar lists %q", out)
		}
		same(t, "raw", filepath.Join(members(t, image), "disk.raw"), raw)
	},
}

func checkQcow2(t *testing.T, image string, raw *os.File) {
	if out := judge(t, "qemu-img", "check", "-f", "qcow2", image); !strings.Contains(out, "No errors were found on the image.") {
		t.Errorf("qemu-img check: %s", out)
	}
	same(t, "qcow2", image, raw)
}

func checkOVA(t *testing.T, image string, raw *os.File) {
	want := ova.Descriptor + "\n" + ova.Manifest + "\n" + ova.Disk + "\n"
	if out := judge(t, "tar", "-tf", image); out != want {
		t.Errorf("the archive has %q, want %q", out, want)
	}
	dir := members(t, image)
	manifest, err := os.ReadFile(filepath.Join(dir, ova.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	sums := exec.Command("sha256sum", "--tag", ova.Descriptor, ova.Disk)
	sums.Dir = dir
	out, err := sums.Output()
	if err != nil {
		t.Fatal(err)
	}
	// sha256sum writes "SHA256 (file) = sum".
	if got := strings.NewReplacer("SHA256 (", "SHA256(", ") = ", ")= ").Replace(string(out)); got != string(manifest) {
		t.Errorf("the manifest is\n%s, want\n%s", manifest, got)
	}
	disk := filepath.Join(dir, ova.Disk)
	same(t, "vmdk", disk, raw)
	checkDescriptor(t, filepath.Join(dir, ova.Descriptor), disk, raw)
}

func checkDescriptor(t *testing.T, path, disk string, raw *os.File) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		File struct {
			Href string `xml:"href,attr"`
			Size int64  `xml:"size,attr"`
		} `xml:"References>File"`
		Disk struct {
			Capacity int64 `xml:"capacity,attr"`
		} `xml:"DiskSection>Disk"`
	}
	if err := xml.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(ova.Disk, " ", st.Size(), " ", formattest.Source(t, raw).Size())
	if got := fmt.Sprint(got.File.Href, " ", got.File.Size, " ", got.Disk.Capacity); got != want {
		t.Errorf("the descriptor has %s, want %s", got, want)
	}
}

// TestForeign lets other programs look at each disk in each format.
func TestForeign(t *testing.T) {
	for name, in := range formattest.Disks(t) {
		bootable(t, in)
		for _, f := range anyDisk() {
			t.Run(f.Name+"/"+name, func(t *testing.T) {
				out := formattest.Temp(t)
				if err := f.Write(t.Context(), out, formattest.Source(t, in)); err != nil {
					t.Fatal(err)
				}
				judges[f.Name](t, out.Name(), in)
			})
		}
	}
}

// TestForeignInputs reads what other programs write.
func TestForeignInputs(t *testing.T) {
	convert := func(args ...string) func(t *testing.T, raw, out string) {
		return func(t *testing.T, raw, out string) {
			judge(t, append(append([]string{"qemu-img", "convert", "-f", "raw"}, args...), raw, out)...)
		}
	}
	tests := []struct {
		name, format string
		write        func(t *testing.T, raw, out string)
	}{
		{"qcow2", "qcow2", convert("-O", "qcow2")},
		{"qcow2 version 2", "qcow2", convert("-O", "qcow2", "-o", "compat=0.10")},
		{"qcow2 small clusters", "qcow2", convert("-O", "qcow2", "-o", "cluster_size=512")},
		{"qcow2 large clusters", "qcow2", convert("-O", "qcow2", "-o", "cluster_size=2M")},
		{"qcow2 preallocated", "qcow2", convert("-O", "qcow2", "-o", "preallocation=metadata")},
		{"qcow2 zlib", "qcow2", convert("-O", "qcow2", "-c")},
		{"qcow2 zlib, small clusters", "qcow2", convert("-O", "qcow2", "-c", "-o", "cluster_size=512")},
		{"qcow2 zlib, large clusters", "qcow2", convert("-O", "qcow2", "-c", "-o", "cluster_size=2M")},
		{"qcow2 zstd", "qcow2", convert("-O", "qcow2", "-c", "-o", "compression_type=zstd")},
		{"qcow2 zstd, large clusters", "qcow2", convert("-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M")},
		{"vmdk", "vmdk", convert("-O", "vmdk")},
		{"vmdk stream-optimized", "vmdk", convert("-O", "vmdk", "-o", "subformat=streamOptimized")},
		{"vhd", "vhd", convert("-O", "vpc", "-o", "subformat=fixed,force_size")},
		{"zstd", "raw.zst", func(t *testing.T, raw, out string) { judge(t, "zstd", "-q", "-f", "-19", "-o", out, raw) }},
		{"GNU tar", "gce", func(t *testing.T, raw, out string) {
			dir := t.TempDir()
			judge(t, "cp", "--sparse=always", raw, dir+"/disk.raw")
			judge(t, "tar", "--format=oldgnu", "-C", dir, "-Sczf", out, "disk.raw")
		}},
		{"GNU tar, no holes", "gce", func(t *testing.T, raw, out string) {
			dir := t.TempDir()
			judge(t, "cp", raw, dir+"/disk.raw")
			judge(t, "tar", "-C", dir, "-czf", out, "./disk.raw")
		}},
	}
	for name, in := range formattest.Disks(t) {
		bootable(t, in)
		for _, tt := range tests {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				tt.write(t, in.Name(), out)
				d, err := format.Open(t.Context(), out, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if d.Format != tt.format {
					t.Errorf("the format is %s, want %s", d.Format, tt.format)
				}
				formattest.Equal(t, d, in, formattest.Source(t, in).Size())
			})
		}
	}
}

// TestForeignRefused hands over what other programs write and we do not read.
func TestForeignRefused(t *testing.T) {
	raw := bootable(t, formattest.Disks(t)["odd"]).Name()
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"backing file", "it has a backing file", []string{"create", "-f", "qcow2", "-F", "raw", "-b", raw}},
		{"external data", "incompatible features 0x4", []string{"create", "-f", "qcow2", "-o", "data_file=" + raw + ".data", "OUT", "1M"}},
		{"extended L2", "incompatible features 0x10", []string{"create", "-f", "qcow2", "-o", "extended_l2=on", "OUT", "1M"}},
		{"flat vmdk", "its format is not known", []string{"create", "-f", "vmdk", "-o", "subformat=monolithicFlat", "OUT", "1M"}},
		{"dynamic VHD", "only fixed disks are read", []string{"convert", "-O", "vpc", "-o", "subformat=dynamic", raw}},
		{"VHDX", "VHDX is not supported", []string{"convert", "-O", "vhdx", raw}},
	} {
		out := filepath.Join(t.TempDir(), "out")
		args := []string{"qemu-img"}
		named := false
		for _, a := range tt.args {
			if a == "OUT" {
				a, named = out, true
			}
			args = append(args, a)
		}
		if !named {
			args = append(args, out)
		}
		judge(t, args...)
		if _, err := format.Open(t.Context(), out, t.TempDir()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}
