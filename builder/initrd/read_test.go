package initrd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/layers"
)

// lines lists a tree with contents, without owners.
func lines(t *testing.T, tr *layers.Tree) (out []string) {
	t.Helper()
	for f := range tr.Files() {
		body := ""
		if f.Mode.IsRegular() {
			b, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			body = string(b)
		}
		out = append(out, fmt.Sprintf("%s %v %d:%d %d %q %s %x", f.Path, f.Mode, f.UID, f.GID, f.Rdev, f.Link, f.ModTime, body))
	}
	return out
}

// What Write writes is read back, in one archive or several, compressed or not.
func TestRead(t *testing.T) {
	whole := sample(t).Map(func(f layers.File) layers.File { f.ModTime = testTime; return f })
	over := tree(t, layers.Regular("etc/new", 0o600, "o", []byte("later"))).Map(func(f layers.File) layers.File { f.ModTime = testTime; return f })
	packed := archive(t, whole, Options{Time: testTime})
	plain := archive(t, whole, Options{Time: testTime, Plain: true})
	second := archive(t, over, Options{Time: testTime})
	for name, b := range map[string][]byte{
		"compressed": packed, "plain": plain,
		"zeros":   slices.Concat(make([]byte, 8), packed, make([]byte, 12)),
		"several": slices.Concat(second, plain, packed),
	} {
		got, err := Read(b, "o")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := whole
		if name == "several" {
			if want, err = layers.Overlay(over, layers.Of("whole", "", slices.Collect(whole.Files())...)); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(lines(t, want), lines(t, got)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestReadLaterReplaces(t *testing.T) {
	first := archive(t, tree(t, layers.Regular("a", 0o644, "o", []byte("1"))), Options{})
	second := archive(t, tree(t, layers.Regular("a", 0o644, "o", []byte("2"))), Options{Plain: true})
	got, err := Read(slices.Concat(first, second), "o")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := got.ReadFile("a"); string(b) != "2" {
		t.Errorf("a has %q (%v), want that of the later archive", b, err)
	}
}

func TestReadRefuses(t *testing.T) {
	plain := archive(t, tree(t, layers.Regular("a", 0o644, "o", []byte("1"))), Options{Plain: true})
	packed := archive(t, tree(t, layers.Regular("a", 0o644, "o", []byte("1"))), Options{})
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"text":     {[]byte("no archive"), "neither cpio nor Zstandard"},
		"cut":      {plain[:200], "unexpected EOF"},
		"cut zstd": {packed[:len(packed)-9], "unexpected EOF"},
		"old cpio": {[]byte("070707" + strings.Repeat("0", 200)), "not in the newc format"},
		"digits":   {bytes.Replace(plain, []byte("070701"), []byte("070701zz"), 1), "header field 0"},
		"parent":   {archiveOf("../a"), `member "../a": bad name`},
	} {
		_, err := Read(tt.b, "o")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// archiveOf is an archive with one empty file of a name that a tree refuses.
func archiveOf(name string) []byte {
	var b bytes.Buffer
	c := &counter{w: &b}
	_ = c.header(entry{ino: 1, mode: 0o100644, nlink: 1, name: name})
	_ = c.header(entry{nlink: 1, name: "TRAILER!!!"})
	return b.Bytes()
}

func FuzzRead(f *testing.F) {
	f.Add(archiveOf("a"))
	f.Add(archiveOf("../a"))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x00, 0x01, 0x00, 0x00, 0x99, 0xe9, 0xd8, 0x51})
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := Read(b, "o")
		if err != nil {
			return
		}
		if err := tr.Check(); err != nil {
			t.Error(err)
		}
	})
}
