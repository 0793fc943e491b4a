package uki

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
)

// stub is an EFI program that does nothing, with the headers of systemd-stub:
// .text, .sbat, and room for 16 more sections.
func stub(signed bool) []byte {
	const headers = 0x400
	b := make([]byte, headers)
	copy(b, "MZ")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	coff := b[68:]
	le.PutUint16(coff[0:], 0x8664)
	le.PutUint16(coff[2:], 2)
	le.PutUint16(coff[16:], 112+16*8)
	le.PutUint16(coff[18:], 0x22e)
	opt := b[88:]
	le.PutUint16(opt[0:], magicPE32Plus)
	le.PutUint32(opt[optCodeSize:], 0x200)
	le.PutUint32(opt[16:], 0x1000) // entry
	le.PutUint64(opt[24:], 0x140000000)
	le.PutUint32(opt[optSectionAlig:], 0x1000)
	le.PutUint32(opt[optFileAlign:], 0x200)
	le.PutUint32(opt[optImageSize:], 0x3000)
	le.PutUint32(opt[optHeaderSize:], headers)
	le.PutUint16(opt[68:], 10) // EFI application
	le.PutUint32(opt[optDirCount:], 16)
	if signed {
		le.PutUint32(opt[optSecurityDir:], 0x800)
		le.PutUint32(opt[optSecurityDir+4:], 8)
	}
	for i, s := range []struct {
		name  string
		flags uint32
		data  string
	}{{".text", flagCode | flagExec | flagRead, "\x31\xc0\xc3"}, {".sbat", flagData | flagRead, "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"}} {
		t := b[88+112+16*8+i*sectionSize:]
		copy(t, s.name)
		le.PutUint32(t[8:], uint32(len(s.data)))
		le.PutUint32(t[12:], uint32(0x1000*(i+1)))
		le.PutUint32(t[16:], 0x200)
		le.PutUint32(t[20:], uint32(headers+0x200*i))
		le.PutUint32(t[36:], s.flags)
		b = append(b, make([]byte, 0x200)...)
		copy(b[headers+0x200*i:], s.data)
	}
	return b
}

func sample() Image {
	return Image{
		Stub: stub(false), OSRelease: []byte("ID=kscratch\n"), Cmdline: "roothash=abc console=ttyS0", Uname: "6.12.0-cloud-amd64",
		Ucode:  []Section{Bytes("x", []byte("microcode"))},
		Linux:  Bytes("", bytes.Repeat([]byte("kernel"), 100000)),
		Initrd: []Section{Bytes("", []byte("part1")), Bytes("", []byte("part22")), Bytes("", []byte("part3"))},
		Extra:  []Section{Bytes(".splash", []byte("BM"))},
	}
}

const sampleSections = `.text 3 "1\xc0\xc3"
.sbat 76 "sbat,1,S"
.osrel 12 "ID=kscra"
.cmdline 26 "roothash"
.uname 18 "6.12.0-c"
.splash 2 "BM"
.ucode 9 "microcod"
.linux 600000 "kernelke"
.initrd 21 "part1\x00\x00\x00"
`

func write(t testing.TB, i Image) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Write(context.Background(), &b, i)
	if err != nil {
		t.Fatal(err)
	}
	size, err := Size(i)
	if err != nil || n != int64(b.Len()) || n != size {
		t.Errorf("Write says %d bytes, Size %d (%v), there are %d", n, size, err, b.Len())
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	b := write(t, sample())
	sections, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range sections {
		c, err := s.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %d %q\n", s.Name, s.Size, c[:min(8, len(c))])
	}
	if got.String() != sampleSections {
		t.Errorf("read\n%s\nwant\n%s", got.String(), sampleSections)
	}
	if s, ok := Find(sections, ".cmdline"); !ok {
		t.Error("no .cmdline")
	} else if c, err := s.ReadAll(); err != nil || string(c) != sample().Cmdline {
		t.Errorf("command line is %q (%v)", c, err)
	}
	if _, ok := Find(sections, ".none"); ok {
		t.Error("found a section that is not there")
	}
	if !bytes.Equal(b, write(t, sample())) {
		t.Error("two images of the same input differ")
	}
}

// TestDebugPE lets the standard library judge the headers.
func TestDebugPE(t *testing.T) {
	b := write(t, sample())
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	end := uint32(0)
	var got strings.Builder
	for _, s := range f.Sections {
		if s.VirtualAddress%opt.SectionAlignment != 0 || s.VirtualAddress < end || s.Offset%opt.FileAlignment != 0 || s.Size%opt.FileAlignment != 0 {
			t.Errorf("section %s at %#x in memory, %#x+%#x in the file", s.Name, s.VirtualAddress, s.Offset, s.Size)
		}
		end = s.VirtualAddress + s.VirtualSize
		c, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		c = c[:s.VirtualSize]
		fmt.Fprintf(&got, "%s %d %q\n", s.Name, len(c), c[:min(8, len(c))])
	}
	if got.String() != sampleSections {
		t.Errorf("debug/pe reads\n%s\nwant\n%s", got.String(), sampleSections)
	}
	if want := (end + 0xfff) &^ 0xfff; opt.SizeOfImage != want {
		t.Errorf("SizeOfImage is %#x, want %#x", opt.SizeOfImage, want)
	}
	if opt.SizeOfCode != 0x200+600064 || opt.CheckSum != 0 {
		t.Errorf("SizeOfCode %#x, CheckSum %#x", opt.SizeOfCode, opt.CheckSum)
	}
}

func TestErrors(t *testing.T) {
	many := func(n int) (s []Section) {
		for i := range n {
			s = append(s, Bytes(fmt.Sprintf(".x%d", i), []byte("x")))
		}
		return s
	}
	lie := func(size int64) Section {
		f := layers.Regular("x", 0o644, "o", []byte("12345"))
		f.Size = size
		return Of("", f)
	}
	for _, tc := range []struct {
		name   string
		change func(*Image)
		want   string
	}{
		{"no stub", func(i *Image) { i.Stub = nil }, "stub: not an EFI program: no MZ header"},
		{"not PE", func(i *Image) { i.Stub = append([]byte("MZ"), make([]byte, 1000)...) }, "stub: not an EFI program: no PE header"},
		{"truncated", func(i *Image) { i.Stub = i.Stub[:0x500] }, `stub: section ".text" lies outside of the file`},
		{"signed", func(i *Image) { i.Stub = stub(true) }, "stub: is signed"},
		{"a UKI", func(i *Image) { i.Stub = write(t, sample()) }, "it is a UKI already"},
		{"32 bits", func(i *Image) { i.Stub = stub(false); le.PutUint16(i.Stub[88:], 0x10b) }, "stub: not a 64-bit EFI program"},
		{"no kernel", func(i *Image) { i.Linux = Section{} }, "no kernel"},
		{"no room", func(i *Image) { i.Extra = many(12) }, "stub: its section table has no room for 18 more sections"},
		{"long name", func(i *Image) { i.Extra = []Section{Bytes(".ninechar", nil)} }, `section ".ninechar" of 0 bytes`},
		{"twice", func(i *Image) { i.Extra = []Section{Bytes(".sbat", []byte("x"))} }, "section .sbat is there twice"},
		{"short kernel", func(i *Image) { i.Linux = lie(6) }, "section .linux: content ends after 5 of 6 bytes"},
		{"long kernel", func(i *Image) { i.Linux = lie(4) }, "section .linux: content goes on after 4 bytes"},
		{"short initrd", func(i *Image) { i.Initrd = []Section{lie(6), lie(5)} }, "section .initrd: archive has 5 bytes, want 6"},
		{"huge", func(i *Image) { i.Linux = lie(1 << 32) }, "section .linux: image would have more than 4 GiB"},
	} {
		i := sample()
		tc.change(&i)
		_, err := Write(context.Background(), io.Discard, i)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, io.Discard, sample()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(stub(false))
	empty := stub(false)[:0x300] // headers that end before they say
	for i := range 2 {
		clear(empty[88+112+16*8+i*sectionSize+16:][:8])
	}
	f.Add(empty)
	small := sample()
	small.Linux = Bytes("", []byte("k"))
	f.Add(write(f, small))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A stub from outside goes through the same parser.
		i := small
		i.Stub = b
		h := sha256.New()
		Write(context.Background(), h, i)

		sections, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, s := range sections {
			c, err := s.ReadAll()
			if err == nil && int64(len(c)) != s.Size {
				t.Errorf("section %q has %d bytes, says %d", s.Name, len(c), s.Size)
			}
		}
	})
}
