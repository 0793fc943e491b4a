package disk

import (
	"context"
	"strings"
	"testing"
)

// Every byte of the table and of its backup counts, one that is unused apart.
func TestCheck(t *testing.T) {
	f := temp(t)
	p, err := Layout(parts(t), Options{GUID: guid(9)})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(context.Background(), f, p); err != nil {
		t.Fatal(err)
	}
	if err := Check(f, p.Size); err != nil {
		t.Fatalf("a disk as written: %v", err)
	}
	for _, tc := range []struct {
		name string
		at   int64
		want string
	}{
		{"signature of the MBR", 510, "protective MBR: want"},
		{"type in the MBR", 450, "protective MBR: want"},
		{"header", sectorSize + 40, "partition table at byte 512: its header has checksum"},
		{"no header", sectorSize, "partition table at byte 512: no header"},
		{"entries", 2*sectorSize + 60, "partition table at byte 512: its entries have checksum"},
		{"last entry", 33*sectorSize + 500, "partition table at byte 512: its entries have checksum"},
		{"header of the backup", p.Size - sectorSize + 56, ": its header has checksum"},
		{"entries of the backup", p.Size - 33*sectorSize + 60, ": its entries have checksum"},
	} {
		flip := func() {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, tc.at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0x10
			if _, err := f.WriteAt(b, tc.at); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		if err := Check(f, p.Size); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
		flip()
	}
	// A disk that has grown keeps its backup where it was.
	if err := f.Truncate(p.Size + 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := Check(f, p.Size+1<<20); err != nil {
		t.Errorf("a disk that has grown: %v", err)
	}
	if err := Check(f, 4096); err == nil {
		t.Error("a disk that was cut: no error")
	}
}

func TestCheckEntries(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Plan)
		want   string
	}{
		{"overlap", func(p *Plan) { p.Parts[2].Offset = p.Parts[1].Offset }, "partitions 2 and 3 overlap"},
		{"over the table", func(p *Plan) { p.Parts[0].Offset = 2 * sectorSize }, "partition 1: sectors 2 to"},
	} {
		f := temp(t)
		p, err := Layout(parts(t), Options{GUID: guid(9)})
		if err != nil {
			t.Fatal(err)
		}
		tc.change(&p)
		if err := Prepare(f, p); err != nil {
			t.Fatal(err)
		}
		if err := WriteTable(f, p); err != nil {
			t.Fatal(err)
		}
		if err := Check(f, p.Size); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}
