package ova_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format/ova"
	"github.com/kscratch/kscratch/test/formattest"
)

func TestCheck(t *testing.T) {
	out := formattest.Temp(t)
	if err := ova.Write(t.Context(), out, formattest.Source(t, formattest.Disks(t)["odd"])); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	check := func(b []byte) error { return ova.Check(t.Context(), bytes.NewReader(b), int64(len(b))) }
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		at   int
		want string
	}{
		{"descriptor", 700, "kscratch.ovf of the OVA has SHA-256"},
		{"disk", len(b) - 2000, "kscratch-disk1.vmdk of the OVA has SHA-256"},
		{"manifest", 512 + 4096 + 512 + 20, ""},
		{"header", 150, "reading OVA"},
	} {
		c := bytes.Clone(b)
		c[tc.at] ^= 1
		if err := check(c); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestCheckManifest: a manifest that leaves something out proves nothing.
func TestCheckManifest(t *testing.T) {
	line := func(name, body string) string {
		return fmt.Sprintf("SHA256(%s)= %x\n", name, sha256.Sum256([]byte(body)))
	}
	ovf, vmdk := line("a.ovf", "descriptor"), line("a.vmdk", "disk")
	both := []string{"a.ovf", "descriptor", "a.vmdk", "disk"}
	for _, tc := range []struct {
		name, manifest string
		members        []string // names and bodies
		want           string
	}{
		{"whole", ovf + vmdk, both, ""},
		{"no line break at the end", ovf + strings.TrimSpace(vmdk), both, ""},
		{"empty", "", both, "manifest of the OVA: it has no SHA-256 of a.ovf"},
		{"no descriptor", vmdk, both, "manifest of the OVA: it has no SHA-256 of a.ovf"},
		{"no disk", ovf, both, "manifest of the OVA: it has no SHA-256 of a.vmdk"},
		{"one disk of two", ovf + vmdk, append(both, "b.vmdk", "x"), "manifest of the OVA: it has no SHA-256 of b.vmdk"},
		{"descriptor is not there", vmdk, both[2:], "reading OVA: it has no .ovf"},
		{"disk twice", ovf + vmdk, append(both, both[2:]...), "reading OVA: it has a.vmdk twice"},
		{"a file named twice", ovf + vmdk + ovf, both, "manifest of the OVA: it names a.ovf twice"},
		{"too long", strings.Repeat(ovf, 64<<10/len(ovf)) + vmdk, both, "reading OVA: its manifest has 65"},
		{"one long line", strings.Repeat("x", 64<<10), both, "names no file with a SHA-256"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		all := append([]string{"a.mf", tc.manifest}, tc.members...)
		for i := 0; i < len(all); i += 2 {
			if err := w.WriteHeader(&tar.Header{Name: all[i], Size: int64(len(all[i+1])), Format: tar.FormatUSTAR}); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, all[i+1])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		err := ova.Check(t.Context(), bytes.NewReader(b.Bytes()), int64(b.Len()))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	archive := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, n := range names {
			if err := w.WriteHeader(&tar.Header{Name: n, Size: 1, Format: tar.FormatUSTAR}); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, "x")
		}
		return b.Bytes()
	}
	for _, tc := range []struct {
		want  string
		names []string
	}{
		{"it has no .vmdk", []string{"a.ovf"}},
		{"it has several disks", []string{"a.ovf", "a.vmdk", "b.vmdk"}},
	} {
		b := archive(tc.names...)
		if _, err := ova.Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
	b := archive("a.ovf", "a.vmdk")
	if err := ova.Check(t.Context(), bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "no manifest") {
		t.Errorf("no manifest: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("kscratch.ovf"))
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ova.Open(bytes.NewReader(b), int64(len(b))); err == nil {
			io.Copy(io.Discard, d)
		}
		ova.Check(t.Context(), bytes.NewReader(b), int64(len(b)))
	})
}
