package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

var epoch = time.Unix(1_700_000_000, 0)

func importer(t testing.TB) Importer {
	t.Helper()
	s, err := cache.Open(fast(t))
	if err != nil {
		t.Fatal(err)
	}
	return Importer{Store: s}
}

// fast returns a temporary directory in memory where there is one: the content
// store syncs what it writes, which on a busy disk takes longer than the tests.
func fast(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kscratch-images-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// member is a tar member in a test: "path" is a file, "path/" a directory.
type member struct {
	name, body string
	mode       int64
	typ        byte
	link       string
	xattr      map[string]string
}

func tarOf(t testing.TB, ms ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, m := range ms {
		h := &tar.Header{Name: m.name, Mode: cmp.Or(m.mode, 0o644), Size: int64(len(m.body)), Typeflag: m.typ, Linkname: m.link, ModTime: epoch}
		if strings.HasSuffix(m.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, cmp.Or(m.mode, 0o755)
		} else if m.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		for k, v := range m.xattr {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, m.body)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func compress(t testing.TB, format string, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "zstd":
		w, err = zstd.NewWriter(&buf)
	case "xz":
		w, err = xz.NewWriter(&buf)
	default:
		return b
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// config returns an image configuration for layers' tars.
func config(arch string, tars ...[]byte) []byte {
	var ds []string
	for _, b := range tars {
		ds = append(ds, fmt.Sprintf("%q", layers.DigestOf(b)))
	}
	return fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Entrypoint":["/app"]},"rootfs":{"type":"layers","diff_ids":[%s]}}`, arch, strings.Join(ds, ","))
}

// archive returns a docker-archive of one image.
func archive(t testing.TB, tag string, cfg []byte, ls ...[]byte) []byte {
	t.Helper()
	ms := []member{{name: "config.json", body: string(cfg)}}
	var names []string
	for i, l := range ls {
		n := fmt.Sprintf("%d.tar", i)
		names = append(names, fmt.Sprintf("%q", n))
		ms = append(ms, member{name: n, body: string(l)})
	}
	tags := "null"
	if tag != "" {
		tags = fmt.Sprintf("[%q]", tag)
	}
	ms = append(ms, member{name: "manifest.json", body: fmt.Sprintf(`[{"Config":"config.json","RepoTags":%s,"Layers":[%s]}]`, tags, strings.Join(names, ","))})
	return tarOf(t, ms...)
}

// image loads an image of layers' tars.
func image(t testing.TB, m Importer, tag string, ls ...[]byte) Image {
	t.Helper()
	img, err := m.Load(context.Background(), write(t, "i.tar", archive(t, tag, config("amd64", ls...), ls...)), Pick{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// checked bakes images and checks the laws of the store.
func checked(t testing.TB, imgs ...Image) *layers.Tree {
	t.Helper()
	l, err := Store(context.Background(), imgs, "usr/lib/kscratch/docker")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := layers.Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{tree.Check(), Check(tree, "usr/lib/kscratch/docker")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func wantErr(t testing.TB, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("error: %v", err)
	case want != "" && err == nil:
		t.Fatalf("no error, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("error %q, want %q in it", err, want)
	}
}

// sized returns a tar whose first member says that it has another size: 12
// bytes as they stand in the header, in octal or in base 256.
func sized(b []byte, size string) []byte {
	b = bytes.Clone(b)
	copy(b[124:136], size)
	copy(b[148:156], "        ") // the checksum is over spaces in its place
	var sum int
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// sizedLayer returns an archive with a layer whose one file says that it has
// 2^63-1 bytes.
func sizedLayer(t testing.TB) []byte {
	t.Helper()
	l := sized(tarOf(t, member{name: "x", body: "x"}), "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")
	return archive(t, "x:1", config("amd64", l), l)
}

// hungry makes the first block of an xz stream ask for a dictionary of 4 GiB
// (https://tukaani.org/xz/xz-file-format.txt, sections 3.1 and 5.3.1).
func hungry(b []byte) []byte {
	b = bytes.Clone(b)
	block := b[12:][:(int(b[12])+1)*4]
	block[4] = 40
	binary.LittleEndian.PutUint32(block[len(block)-4:], crc32.ChecksumIEEE(block[:len(block)-4]))
	return b
}
