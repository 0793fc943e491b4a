package initrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func tree(t testing.TB, files ...layers.File) *layers.Tree {
	t.Helper()
	tr, err := layers.Merge(layers.Of("test", "", files...))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func sample(t testing.TB) *layers.Tree {
	return tree(t,
		layers.Dir(".", 0o755, "o"),
		layers.Dir("tmp", 0o777|fs.ModeSticky, "o"),
		layers.Regular("etc/a", 0o640, "o", []byte("hello")),
		layers.Regular("etc/empty", 0o644, "o", nil),
		layers.Regular("usr/bin/su", 0o755|fs.ModeSetuid, "o", bytes.Repeat([]byte("text "), 100000)),
		layers.Symlink("init", "usr/lib/systemd/systemd", "o"),
		layers.File{Path: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Rdev: unix.Mkdev(5, 1), UID: 1, GID: 1 << 20, Owner: "o"},
		layers.File{Path: "dev/vda", Mode: fs.ModeDevice | 0o660, Rdev: unix.Mkdev(254, 300), Owner: "o"},
	)
}

const sampleArchive = `1 . 40755 0:0 2 0 0
2 dev 40755 0:0 2 0 0
3 dev/console 20600 1:1048576 1 5:1 0
4 dev/vda 60660 0:0 1 254:300 0
5 etc 40755 0:0 2 0 0
6 etc/a 100640 0:0 1 0 5 hello
7 etc/empty 100644 0:0 1 0 0
8 init 120777 0:0 1 0 0 usr/lib/systemd/systemd
9 tmp 41777 0:0 2 0 0
10 usr 40755 0:0 2 0 0
11 usr/bin 40755 0:0 2 0 0
12 usr/bin/su 104755 0:0 1 0 500000 text text
`

func archive(t testing.TB, tr *layers.Tree, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Write(context.Background(), &b, tr, o)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) || n%4 != 0 {
		t.Errorf("archive of %d bytes, Write says %d", b.Len(), n)
	}
	return b.Bytes()
}

// listing reads an archive with another implementation of the format.
func listing(t *testing.T, b []byte) string {
	t.Helper()
	r := cpio.NewReader(bytes.NewReader(b))
	var out strings.Builder
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(testTime) {
			t.Errorf("%s has time %s", h.Name, h.ModTime)
		}
		c, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" { // the package has read it already
			c = []byte(h.Linkname)
		}
		dev := "0"
		if major, minor := devices(b, h.Name); major+minor > 0 {
			dev = fmt.Sprintf("%d:%d", major, minor)
		}
		line := fmt.Sprintf("%d %s %o %d:%d %d %s %d %s", h.Inode, h.Name, int64(h.Mode), h.Uid, h.Guid, h.Links, dev, h.Size, c[:min(len(c), 23)])
		out.WriteString(strings.TrimSpace(line[:min(len(line), strings.Index(line+"text text", "text text")+9)]) + "\n")
	}
}

// devices reads rdevmajor and rdevminor of an entry, which the other
// implementation does not offer.
func devices(b []byte, name string) (major, minor int64) {
	i := bytes.Index(b, []byte(name+"\x00"))
	fmt.Sscanf(string(b[i-32:i-24]), "%X", &major)
	fmt.Sscanf(string(b[i-24:i-16]), "%X", &minor)
	return major, minor
}

func unpack(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out, err := io.ReadAll(io.LimitReader(z, 1<<30))
	// Zeros after the frame are not one.
	if err != nil && !errors.Is(err, zstd.ErrMagicMismatch) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return out
}

func TestWrite(t *testing.T) {
	plain := archive(t, sample(t), Options{Time: testTime, Plain: true})
	if got := listing(t, plain); got != sampleArchive {
		t.Errorf("archive has\n%s\nwant\n%s", got, sampleArchive)
	}
	packed := archive(t, sample(t), Options{Time: testTime})
	if !bytes.Equal(unpack(t, packed), plain) {
		t.Error("the compressed archive has other content than the plain one")
	}
	var h zstd.Header
	if err := h.Decode(packed); err != nil || h.WindowSize > 128<<20 || h.Skippable {
		t.Errorf("frame has a window of %d bytes (%v)", h.WindowSize, err)
	}
}

func TestSameBytesOnAnyMachine(t *testing.T) {
	noise := make([]byte, 9<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	tr := tree(t, layers.Regular("noise", 0o644, "o", noise), layers.Regular("more", 0o644, "o", noise))
	var first []byte
	for _, cores := range []int{1, 2, 7} {
		old := runtime.GOMAXPROCS(cores)
		b := archive(t, tr, Options{})
		runtime.GOMAXPROCS(old)
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("with %d cores the archive is another", cores)
		}
	}
}

func TestConcat(t *testing.T) {
	var b bytes.Buffer
	n, err := Concat(&b, strings.NewReader("abcde"), strings.NewReader("x"), strings.NewReader("1234"))
	if want := "abcde\x00\x00\x00x\x00\x00\x001234"; err != nil || b.String() != want || n != 16 {
		t.Errorf("joined to %q, %d (%v), want %q", b.String(), n, err, want)
	}
}

func TestErrors(t *testing.T) {
	size := func(n int64) layers.File {
		f := layers.Regular("a", 0o644, "deb:liar", []byte("12345"))
		f.Size = n
		return f
	}
	xattr := size(5)
	xattr.Xattrs = map[string]string{"user.x": "1"}
	for _, tc := range []struct {
		name string
		f    layers.File
		o    Options
		want string
	}{
		{"short", size(6), Options{}, "file /a of deb:liar: content ends after 5 of 6 bytes"},
		{"long", size(4), Options{Plain: true}, "file /a of deb:liar: content goes on after 4 bytes"},
		{"huge", size(1 << 32), Options{}, "size of 4294967296 bytes"},
		{"xattr", xattr, Options{}, "extended attributes"},
		{"time", size(5), Options{Time: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}, "the format has 1970 to 2106"},
		{"trailer", layers.Regular("TRAILER!!!", 0o644, "o", nil), Options{}, "name ends the archive"},
		{"long name", layers.Regular(strings.Repeat("n", 4096), 0o644, "o", nil), Options{}, "path or link of more than 4095 bytes"},
	} {
		_, err := Write(context.Background(), io.Discard, tree(t, tc.f), tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, io.Discard, sample(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
