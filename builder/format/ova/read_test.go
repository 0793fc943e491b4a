package ova_test

import (
	"archive/tar"
	"bytes"
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
