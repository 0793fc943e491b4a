package erofs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

var testOptions = Options{
	Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), UUID: [16]byte{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}, Label: "kscratch-root",
}

func tree(t testing.TB, files ...layers.File) *layers.Tree {
	t.Helper()
	tr, err := layers.Merge(layers.Of("test", "", files...))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func with(f layers.File, change func(*layers.File)) layers.File {
	change(&f)
	return f
}

// sample has every kind of entry and sizes around the block size.
func sample(t testing.TB) *layers.Tree {
	files := []layers.File{
		with(layers.Regular("usr/bin/sudo", 0o755|fs.ModeSetuid, "deb:sudo", []byte("#!")), func(f *layers.File) {
			f.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02", "user.note": strings.Repeat("n", 5000)}
		}),
		with(layers.Dir("var/mail", 0o775|fs.ModeSetgid, "deb:base"), func(f *layers.File) { f.GID = 8 }),
		layers.Dir("tmp", 0o777|fs.ModeSticky, "deb:base"),
		layers.Dir("empty", 0o700, "deb:base"),
		layers.Symlink("bin", "usr/bin", "deb:base"),
		layers.Symlink("long", "/"+strings.Repeat("x/", 2000), "deb:base"),
		with(layers.Regular("etc/big-uid", 0o640, "spec", []byte("x")), func(f *layers.File) { f.UID, f.GID = 1<<31, 70000 }),
		{Path: "dev/sda", Mode: fs.ModeDevice | 0o660, Rdev: unix.Mkdev(8, 300), Owner: "o"},
		{Path: "dev/tty", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o620, Rdev: unix.Mkdev(5, 0), Owner: "o"},
		{Path: "run/fifo", Mode: fs.ModeNamedPipe | 0o600, Owner: "o"},
	}
	for _, n := range []int{0, 1, 4000, 4064, 4065, 4096, 4097, 300000} {
		files = append(files, layers.Regular(fmt.Sprintf("data/%d", n), 0o644, "o", bytes.Repeat([]byte{byte(n), 7}, n)[:n]))
	}
	for i := range 300 { // a directory of several blocks
		files = append(files, layers.Regular(fmt.Sprintf("many/%s-%d", strings.Repeat("n", 40), i), 0o644, "o", fmt.Append(nil, i)))
	}
	return tree(t, files...)
}

// file is a WriteSeeker and ReaderAt in memory.
type file struct {
	b   []byte
	pos int64
}

func (f *file) Write(p []byte) (int, error) {
	if need := f.pos + int64(len(p)); need > int64(len(f.b)) {
		f.b = append(f.b, make([]byte, need-int64(len(f.b)))...)
	}
	n := copy(f.b[f.pos:], p)
	f.pos += int64(n)
	return n, nil
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, errors.New("not needed")
	}
	f.pos = off
	return off, nil
}

func image(t testing.TB, tr *layers.Tree) []byte {
	t.Helper()
	var f file
	s, err := Write(context.Background(), tr, &f, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	if s.Size != int64(len(f.b)) || s.Inodes != tr.Len() {
		t.Errorf("stats say %+v, but the image has %d bytes and the tree %d entries", s, len(f.b), tr.Len())
	}
	return f.b
}

// listing describes each entry in a line.
func listing(t testing.TB, tr *layers.Tree) []string {
	t.Helper()
	var out []string
	for f := range tr.Files() {
		line := fmt.Sprintf("/%s %s %d:%d %#x %q", f.Path, f.Mode, f.UID, f.GID, f.Rdev, f.Link)
		if f.Open != nil {
			b, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %d %x", f.Size, sha256.Sum256(b))
		}
		for _, k := range slices.Sorted(maps.Keys(f.Xattrs)) {
			line += fmt.Sprintf(" %s=%x", k, f.Xattrs[k])
		}
		out = append(out, line)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	tr := sample(t)
	img, err := Open(bytes.NewReader(image(t, tr)))
	if err != nil {
		t.Fatal(err)
	}
	if img.UUID != testOptions.UUID || img.Label != testOptions.Label || !img.Time.Equal(testOptions.Time) {
		t.Errorf("image says %x %q %s", img.UUID, img.Label, img.Time)
	}
	got, err := img.Tree("image")
	if err != nil {
		t.Fatal(err)
	}
	want, have := listing(t, tr), listing(t, got)
	if !slices.Equal(want, have) {
		for i := range min(len(want), len(have)) {
			if want[i] != have[i] {
				t.Fatalf("read back\n%.300s\nwrote\n%.300s", have[i], want[i])
			}
		}
		t.Fatalf("read back %d entries, wrote %d", len(have), len(want))
	}
	for f := range got.Files() {
		if !f.ModTime.Equal(testOptions.Time) {
			t.Errorf("/%s has time %s", f.Path, f.ModTime)
		}
	}
	b, err := img.ReadFile("bin/sudo")
	if err != nil || string(b) != "#!" {
		t.Errorf("reading through a link: %q, %v", b, err)
	}
}

func TestSameBytesAndSize(t *testing.T) {
	tr := sample(t)
	a, b := image(t, tr), image(t, tr)
	if !bytes.Equal(a, b) {
		t.Error("two images of one tree differ")
	}
	n, err := Size(tr, testOptions)
	if err != nil || n != int64(len(a)) {
		t.Errorf("Size is %d (%v), the image has %d", n, err, len(a))
	}
	empty := image(t, tree(t, layers.Dir(".", 0o755, "o")))
	if len(empty) != 2*BlockSize {
		t.Errorf("empty image has %d bytes", len(empty))
	}
}

type failing struct{ io.Reader }

func (failing) Close() error { return errors.New("disk on fire") }

func TestErrors(t *testing.T) {
	lie := func(p string, size int64, content string) layers.File {
		return with(layers.Regular(p, 0o644, "deb:liar", []byte(content)), func(f *layers.File) { f.Size = size })
	}
	big := strings.Repeat("b", 10000)
	for _, tc := range []struct {
		name string
		f    layers.File
		want string
	}{
		{"short", lie("a", 10, "123"), "reading /a of deb:liar: content ends after 3 of 10 bytes"},
		{"long", lie("a", 2, "123"), "reading /a of deb:liar: content goes on after 2 bytes"},
		{"short, own blocks", lie("a", 10001, big), "reading /a of deb:liar: content ends after 10000 of 10001 bytes"},
		{"long, own blocks", lie("a", 9999, big), "reading /a of deb:liar: content goes on after 9999 bytes"},
		{"not empty", lie("a", 0, "1"), "reading /a of deb:liar: content goes on after 0 bytes"},
		{"cannot open", with(lie("a", 1, "1"), func(f *layers.File) { f.Open = func() (io.ReadCloser, error) { return nil, fs.ErrPermission } }), "reading /a of deb:liar: permission denied"},
		{"cannot close", with(lie("a", 1, ""), func(f *layers.File) {
			f.Open = func() (io.ReadCloser, error) { return failing{strings.NewReader("1")}, nil }
		}), "reading /a of deb:liar: disk on fire"},
		{"acl", with(lie("a", 0, ""), func(f *layers.File) { f.Xattrs = map[string]string{"system.posix_acl_access": "x"} }), `file /a of deb:liar: extended attribute "system.posix_acl_access" is not supported`},
		{"long name", lie(strings.Repeat("n", 256), 0, ""), "name of more than 255 bytes"},
		{"long link", layers.Symlink("a", strings.Repeat("n", 4096), "o"), "link target of more than 4095 bytes"},
	} {
		_, err := Write(context.Background(), tree(t, tc.f), &file{}, testOptions)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, sample(t), &file{}, testOptions); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	b := image(t, sample(t))
	b[sbOffset+sbUUID] ^= 1
	if _, err := Open(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("altered superblock: %v", err)
	}
}

// TestNothingStaysOpen counts openings and closings, with an error half-way.
func TestNothingStaysOpen(t *testing.T) {
	open := make(chan int, 1000)
	counted := func(p, content string, size int64) layers.File {
		f := layers.Regular(p, 0o644, "o", []byte(content))
		f.Size = size
		inner := f.Open
		f.Open = func() (io.ReadCloser, error) {
			r, err := inner()
			open <- 1
			return closer{r, func() { open <- -1 }}, err
		}
		return f
	}
	var files []layers.File
	for i := range 100 {
		files = append(files, counted(fmt.Sprintf("f%03d", i), strings.Repeat("x", i*100), int64(i*100)))
	}
	files = append(files, counted("f080x", "x", 20000))
	if _, err := Write(context.Background(), tree(t, files...), &file{}, testOptions); err == nil {
		t.Fatal("no error")
	}
	close(open)
	left := 0
	for n := range open {
		left += n
	}
	if left != 0 {
		t.Errorf("%d files stay open", left)
	}
}

type closer struct {
	io.Reader
	f func()
}

func (c closer) Close() error { c.f(); return nil }

func FuzzOpen(f *testing.F) {
	img := image(f, tree(f, layers.Regular("a/b", 0o644, "o", []byte("hello")), layers.Symlink("l", "a/b", "o"),
		layers.Regular("big", 0o600, "o", make([]byte, 5000))))
	f.Add(img)
	bare := bytes.Clone(img)
	bare[sbOffset+sbCompat] = 0 // no checksum, so that the fuzzer gets further
	f.Add(bare)
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		tr, err := img.Tree("fuzz")
		if err != nil {
			return
		}
		for f := range tr.Files() {
			if f.Open == nil {
				continue
			}
			if r, err := f.Open(); err == nil {
				io.Copy(io.Discard, io.LimitReader(r, 1<<20))
				r.Close()
			}
		}
	})
}

// BenchmarkRoot writes the root given in KSCRATCH_ROOT, or the sample.
func BenchmarkRoot(b *testing.B) {
	tr := sample(b)
	if root := os.Getenv("KSCRATCH_ROOT"); root != "" {
		tr = fromDisk(b, root)
	}
	out, err := os.Create(filepath.Join(b.TempDir(), "image"))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	for b.Loop() {
		out.Seek(0, io.SeekStart)
		s, err := Write(context.Background(), tr, out, testOptions)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(s.Size)
	}
}

// fromDisk makes a tree of a directory.
func fromDisk(b *testing.B, root string) *layers.Tree {
	var files []layers.File
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		f := layers.File{Path: rel, Mode: info.Mode(), Owner: "disk"}
		switch {
		case info.Mode().IsRegular():
			f.Size = info.Size()
			f.Open = func() (io.ReadCloser, error) { return os.Open(p) }
		case info.Mode().Type() == fs.ModeSymlink:
			f.Mode = fs.ModeSymlink | 0o777
			f.Link, err = os.Readlink(p)
		}
		files = append(files, f)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return tree(b, files...)
}
