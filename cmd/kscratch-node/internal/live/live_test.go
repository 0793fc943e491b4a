package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMounted(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{
		"sys/dev/block/253:0/slaves/loop0p3", "sys/dev/block/253:0/slaves/loop0p2",
		"sys/dev/block/253:1/slaves/vda3", "sys/class/block/vda3",
		"sys/dev/block/253:2/slaves/dm-9", "sys/class/block/dm-9/slaves/loop4p1",
		"sys/dev/block/8:1", "sys/dev/block/253:3/slaves/dm-3", "sys/class/block/dm-3/slaves/dm-3",
	} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		mounts string
		want   bool
	}{
		{"30 1 253:0 / /sysroot ro - erofs /dev/mapper/root ro\n", true},
		{"30 1 253:1 / /sysroot ro - erofs /dev/mapper/root ro\n31 30 8:1 / /sysroot/var rw - ext4 /dev/vda1 rw\n", false},
		{"30 1 253:0 / /sysroot ro - erofs a ro\n31 30 253:1 / /sysroot ro - erofs b ro\n", false},
		{"30 1 253:2 / /sysroot ro - erofs /dev/mapper/root ro\n", true},
		{"30 1 253:3 / /sysroot ro - erofs /dev/mapper/root ro\n", false}, // a circle ends
		{"30 1 8:1 / /sysroot ro - ext4 /dev/vda1 ro\n", false},
	} {
		put(t, dir, "proc/self/mountinfo", tt.mounts)
		if got, err := Mounted(dir, "/sysroot"); err != nil || got != tt.want {
			t.Errorf("%q: got %v, %v", tt.mounts, got, err)
		}
	}
	put(t, dir, "proc/self/mountinfo", "1 1 0:1 / / rw - rootfs rootfs rw\n")
	if _, err := Mounted(dir, "/sysroot"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing mounted: %v", err)
	}
}

// fakeDisk is a disk of zeros but for one byte.
type fakeDisk struct{ size, at int64 }

func (f fakeDisk) Size() (int64, error) { return f.size, nil }
func (f fakeDisk) Close() error         { return nil }
func (f fakeDisk) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if f.at >= off && f.at < off+int64(len(b)) {
		b[f.at-off] = 1
	}
	return len(b), nil
}

func TestFind(t *testing.T) {
	const big = 16 << 30
	blank := fakeDisk{big, big / 2} // what is in the middle is not looked at
	for _, tt := range []struct {
		name  string
		disks map[string]fakeDisk
		attrs string // files below sys/class/block, with content after a blank
		part  bool   // there is a state partition
		want  string // argument
		place Place
	}{
		{name: "none", place: Place{InRAM: true}},
		{name: "one", disks: map[string]fakeDisk{"vda": blank}, place: Place{Disk: "/dev/vda"}},
		{name: "order", disks: map[string]fakeDisk{"nvme10n1": blank, "nvme2n1": blank}, place: Place{Disk: "/dev/nvme2n1"}},
		{name: "state is there", disks: map[string]fakeDisk{"vda": blank}, part: true},
		{name: "table at its start", disks: map[string]fakeDisk{"vda": {big, 512}, "vdb": blank}, place: Place{Disk: "/dev/vdb"}},
		{name: "table at its end", disks: map[string]fakeDisk{"vda": {big, big - 1}}, place: Place{InRAM: true}},
		{name: "too small", disks: map[string]fakeDisk{"vda": {1 << 30, 1 << 29}}, place: Place{InRAM: true}},
		{name: "read-only", disks: map[string]fakeDisk{"vda": blank}, attrs: "vda/ro 1", place: Place{InRAM: true}},
		{name: "removable", disks: map[string]fakeDisk{"sda": blank}, attrs: "sda/removable 1", place: Place{InRAM: true}},
		{name: "partition", disks: map[string]fakeDisk{"sda1": blank}, attrs: "sda1/partition 1", place: Place{InRAM: true}},
		{name: "no disks", disks: map[string]fakeDisk{"loop0": blank, "sr0": blank, "zram0": blank, "dm-0": blank}, place: Place{InRAM: true}},
		{name: "named", disks: map[string]fakeDisk{"vda": blank, "vdb": blank}, want: "/dev/vdb", place: Place{Disk: "/dev/vdb"}},
		{name: "memory", disks: map[string]fakeDisk{"vda": blank}, want: Memory, place: Place{InRAM: true}},
	} {
		dir := t.TempDir()
		put(t, dir, "sys/class/block/.keep", "")
		for name, d := range tt.disks {
			for attr, v := range map[string]int64{"ro": 0, "removable": 0, "size": d.size / 512} {
				put(t, dir, "sys/class/block/"+name+"/"+attr, fmt.Sprintln(v))
			}
		}
		if file, v, ok := strings.Cut(tt.attrs, " "); ok {
			put(t, dir, "sys/class/block/"+file, v+"\n")
		}
		if tt.part {
			put(t, dir, statePart, "")
		}
		s := State{Dir: dir, Want: tt.want, Wait: Patience(0, 2), Open: func(p string) (Device, error) { return tt.disks[filepath.Base(p)], nil }}
		if got, err := s.Find(t.Context()); err != nil || got != tt.place {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.place)
		}
	}
}

// TestFindLate: the disk with the state may show up after a blank one.
func TestFindLate(t *testing.T) {
	dir := t.TempDir()
	for attr, v := range map[string]string{"ro": "0", "removable": "0", "size": fmt.Sprint(int64(minState) / 512)} {
		put(t, dir, "sys/class/block/vda/"+attr, v+"\n")
	}
	looks := 0
	s := State{Dir: dir, Open: func(string) (Device, error) { return fakeDisk{minState, -1}, nil }, Wait: func(context.Context) bool {
		if looks++; looks == 3 {
			put(t, dir, statePart, "")
		}
		return looks < 5
	}}
	if got, err := s.Find(t.Context()); err != nil || got != (Place{}) {
		t.Errorf("got %+v, %v, want the partition", got, err)
	}
}

func TestFindErrors(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "sys/class/block/.keep", "")
	s := State{Dir: dir, Want: "/dev/vdz", Wait: Patience(0, 2)}
	if _, err := s.Find(t.Context()); err == nil || !strings.Contains(err.Error(), `kscratch.state="/dev/vdz" names no blank disk of 2 GiB and more`) {
		t.Errorf("a disk that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = State{Dir: dir, Wait: func(context.Context) bool { return true }}
	if _, err := s.Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	put(t, dir, "dev/vdc1", "")
	put(t, dir, "dev/disk/by-partlabel/.keep", "")
	if err := os.Symlink("../../vdc1", filepath.Join(dir, statePart)); err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"": "", "/dev/vdc": "", "/dev/vdb": "/dev/vdc1 is a state partition", "/dev/vd": "/dev/vdc1 is", Memory: "/dev/vdc1 is",
	} {
		got, err := State{Dir: dir, Want: want, Wait: Patience(0, 2)}.Find(t.Context())
		if got != (Place{}) || (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%q with a state partition: got %+v, %v, want the error %q", want, got, err, text)
		}
	}
	if _, err := (State{Dir: t.TempDir(), Wait: Patience(0, 1)}).Find(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no sysfs: %v", err)
	}
}
