package deb_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/test/aptfake"
)

// hello is a package with one of everything.
func hello(compress string) aptfake.Deb {
	ping := layers.Regular("usr/bin/ping", 0o755|fs.ModeSetuid, "t", []byte("PING"))
	ping.GID = 5
	ping.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02"}
	return aptfake.Deb{
		Name: "hello", Version: "1:2.0-1", Section: "net", Compress: compress,
		Files: []layers.File{
			ping,
			layers.Regular("etc/hello.conf", 0o644, "t", []byte("greeting=hi\n")),
			layers.Symlink("usr/bin/p", "ping", "t"),
			layers.Dir("var/lib/hello", 0o700, "t"),
		},
		Scripts:   map[string]string{"postinst": "#!/bin/sh\nexit 0\n", "prerm": "#!/bin/sh\n"},
		Conffiles: []string{"/etc/hello.conf", "remove-on-upgrade /etc/old"},
		Triggers:  "# comment\ninterest-noawait /usr/lib/hello  # why\nactivate-noawait ldconfig\n",
	}
}

func open(t *testing.T) *cache.Store {
	t.Helper()
	s, err := cache.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *cache.Store, b []byte) cache.Blob {
	t.Helper()
	blob, err := s.Put(t.Context(), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func bytesOf(t *testing.T, d aptfake.Deb) []byte {
	t.Helper()
	b, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listing shows the files of a layer, one a line.
func listing(t *testing.T, l layers.Layer) string {
	t.Helper()
	var b strings.Builder
	for f, err := range l.Files() {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v %d:%d %s", f.Mode, f.UID, f.GID, f.Path)
		if f.Link != "" {
			fmt.Fprintf(&b, " -> %s", f.Link)
		}
		if f.Mode.IsRegular() {
			body, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, " %q", body)
		}
		for k, v := range f.Xattrs {
			fmt.Fprintf(&b, " %s=%q", k, v)
		}
		fmt.Fprintf(&b, " (%s)\n", f.Owner)
	}
	return b.String()
}

const helloFiles = `drwxr-xr-x 0:0 . (deb:hello=1:2.0-1)
drwxr-xr-x 0:0 etc (deb:hello=1:2.0-1)
-rw-r--r-- 0:0 etc/hello.conf "greeting=hi\n" (deb:hello=1:2.0-1)
drwxr-xr-x 0:0 usr (deb:hello=1:2.0-1)
drwxr-xr-x 0:0 usr/bin (deb:hello=1:2.0-1)
Lrwxrwxrwx 0:0 usr/bin/p -> ping (deb:hello=1:2.0-1)
urwxr-xr-x 0:5 usr/bin/ping "PING" security.capability="\x01\x00\x00\x02" (deb:hello=1:2.0-1)
drwxr-xr-x 0:0 var (deb:hello=1:2.0-1)
drwxr-xr-x 0:0 var/lib (deb:hello=1:2.0-1)
drwx------ 0:0 var/lib/hello (deb:hello=1:2.0-1)
`

func TestLayer(t *testing.T) {
	for _, compress := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("compression "+compress, func(t *testing.T) {
			s := open(t)
			blob := put(t, s, bytesOf(t, hello(compress)))
			p, err := deb.Layer(t.Context(), s, blob, "hello=1:2.0-1", deb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, p.Layer); got != helloFiles {
				t.Errorf("files:\n%s\nwant:\n%s", got, helloFiles)
			}
			var scripts []string
			for _, s := range p.Scripts {
				scripts = append(scripts, fmt.Sprintf("%s %q", s.Name, s.Body))
			}
			for _, c := range []struct{ what, got, want string }{
				{"name", p.Name, "hello"}, {"version", p.Version, "1:2.0-1"}, {"arch", p.Arch, "amd64"},
				{"section", p.Control.Get("sEction"), "net"},
				{"scripts", strings.Join(scripts, ", "), `postinst "#!/bin/sh\nexit 0\n", prerm "#!/bin/sh\n"`},
				{"conffiles", strings.Join(p.Conffiles, ", "), "etc/hello.conf"},
				{"triggers", strings.Join(p.Triggers, ", "), "interest-noawait /usr/lib/hello, activate-noawait ldconfig"},
				{"layer", p.Layer.Name(), "deb:hello=1:2.0-1"},
			} {
				if c.got != c.want {
					t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
				}
			}
		})
	}
}

// The digest of the layer is the package's, known without reading a file, and
// the content is unpacked once.
func TestLayerDigest(t *testing.T) {
	s := open(t)
	blob := put(t, s, bytesOf(t, hello("")))
	first, err := deb.Layer(t.Context(), s, blob, "", deb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := deb.Layer(t.Context(), s, blob, "", deb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := deb.Layer(t.Context(), s, put(t, s, bytesOf(t, hello(".gz"))), "", deb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if first.Layer.Digest() != again.Layer.Digest() || first.Layer.Digest() == other.Layer.Digest() {
		t.Errorf("digests: %s, again %s, of another .deb %s", first.Layer.Digest(), again.Layer.Digest(), other.Layer.Digest())
	}
	if err := first.Layer.Digest().Check(); err != nil {
		t.Error(err)
	}
}

func TestLayerAtOnce(t *testing.T) {
	s := open(t)
	blob := put(t, s, bytesOf(t, hello(".xz")))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := deb.Layer(t.Context(), s, blob, "", deb.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLayerCancelled(t *testing.T) {
	s := open(t)
	blob := put(t, s, bytesOf(t, hello(".xz")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := deb.Layer(ctx, s, blob, "", deb.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
}

// arFile is a member of an ar archive.
type arFile struct {
	name string
	body []byte
}

func ar(files ...arFile) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, f := range files {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", f.name, 0, 0, 0, "100644", len(f.body), f.body)
		if len(f.body)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarOf(t *testing.T, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostile(t *testing.T) {
	good := bytesOf(t, hello(""))
	gz := bytesOf(t, hello(".gz"))
	xz := bytesOf(t, hello(".xz"))
	zst := bytesOf(t, hello(".zst"))
	magic := arFile{"debian-binary", []byte("2.0\n")}
	control := func(text string) arFile {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: "./control", Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
		w.Close()
		return arFile{"control.tar", b.Bytes()}
	}
	fine := control("Package: aa\nVersion: 1\nArchitecture: all\n")
	data := func(hs ...tar.Header) []byte { return ar(magic, fine, arFile{"data.tar", tarOf(t, hs...)}) }
	flip := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 0x40
		return b
	}
	for _, c := range []struct {
		name string
		deb  []byte
		want string // in the error
	}{
		{"empty", nil, "not an ar archive"},
		{"wrong magic", []byte("PK\x03\x04 a zip archive"), "not an ar archive"},
		{"no members", []byte("!<arch>\n"), "no debian-binary"},
		{"header cut off", good[:40], "cut off"},
		{"member cut off", good[:200], "cut off"},
		{"last byte cut off", good[:len(good)-1], "cut off"},
		{"bad end of header", flip(good, 8+58), "header ends in"},
		{"size not a number", flip(good, 8+48), "is not a number"},
		{"negative size", bytes.Replace(good, []byte("100644  4         `"), []byte("100644  -4        `"), 1), "is not a number"},
		{"huge size", bytes.Replace(good, []byte("100644  4         `"), []byte("100644  9999999999`"), 1), "cut off"},
		{"too many members", ar(slices.Repeat([]arFile{{"_x", nil}}, 17)...), "more than 16 members"},
		{"format 0.93", ar(arFile{"debian-binary", []byte("0.93\n")}, fine, arFile{"data.tar", nil}), `package format "0.93"`},
		{"no data", ar(magic, fine), "no data.tar"},
		{"wrong order", ar(magic, arFile{"data.tar", nil}, fine), `member 2 is "data.tar"`},
		{"unknown compression", ar(magic, fine, arFile{"data.tar.lz4", nil}), `compression ".lz4" is not supported`},
		{"no control file", ar(magic, arFile{"control.tar", tarOf(t)}, arFile{"data.tar", nil}), "not a package name"},
		{"control is a link", ar(magic, arFile{"control.tar", tarOf(t, tar.Header{Name: "./control", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"})}, arFile{"data.tar", nil}), "not a regular file"},
		{"bad name", ar(magic, control("Package: ../x\nVersion: 1\nArchitecture: all\n"), arFile{"data.tar", nil}), `"../x" is not a package name`},
		{"bad version", ar(magic, control("Package: aa\nVersion: 1 2\nArchitecture: all\n"), arFile{"data.tar", nil}), `"1 2" is not a version`},
		{"two paragraphs", ar(magic, control("Package: aa\n\nPackage: bb\n"), arFile{"data.tar", nil}), "more than one paragraph"},
		{"xz truncated", ar(magic, fine, arFile{"data.tar.xz", lastMember(t, xz)[:40]}), "data.tar.xz"},
		{"gzip checksum", ar(magic, fine, arFile{"data.tar.gz", flip(lastMember(t, gz), len(lastMember(t, gz))-8)}), "checksum"},
		{"zstd damaged", ar(magic, fine, arFile{"data.tar.zst", flip(lastMember(t, zst), 20)}), "data.tar.zst"},
		{"path traversal", data(tar.Header{Name: "../../etc/passwd", Mode: 0o644}), "leads out"},
		{"traversal inside", data(tar.Header{Name: "./usr/../../x", Mode: 0o644}), "leads out"},
		{"hard link out", data(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../x"}), "leads out"},
		{"hard link to nothing", data(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), "not a file before it"},
		{"tar truncated", ar(magic, fine, arFile{"data.tar", tarOf(t, tar.Header{Name: "a", Size: 4000, Mode: 0o644})[:1024]}), "unexpected EOF"},
		{"not a tar", ar(magic, fine, arFile{"data.tar", bytes.Repeat([]byte("junk"), 500)}), "invalid tar header"},
		{"bomb in data", ar(magic, fine, arFile{"data.tar.gz", bomb(t)}), "larger than 1048576 bytes"},
		{"bomb in control", ar(magic, arFile{"control.tar.gz", bomb(t)}, arFile{"data.tar", nil}), "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			_, err := deb.Layer(t.Context(), s, put(t, s, c.deb), "", deb.Options{MaxData: 1 << 20})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(s.Dir(), "tmp", "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("other package", func(t *testing.T) {
		s := open(t)
		_, err := deb.Layer(t.Context(), s, put(t, s, good), "hello=3", deb.Options{})
		if want := "unpacking hello=3: the package says that it is hello=1:2.0-1"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("further members", func(t *testing.T) {
		s := open(t)
		b := ar(magic, arFile{"_gpgorigin", []byte("sig")}, fine, arFile{"data.tar/", tarOf(t)}, arFile{"later", nil})
		if _, err := deb.Layer(t.Context(), s, put(t, s, b), "aa=1", deb.Options{}); err != nil {
			t.Error(err)
		}
	})
}

// lastMember returns the last member of a package.
func lastMember(t *testing.T, b []byte) []byte {
	t.Helper()
	i := bytes.LastIndex(b, []byte("`\n"))
	if i < 0 {
		t.Fatal("no member")
	}
	return b[i+2:]
}

// bomb returns 33 MiB of zeros, compressed.
func bomb(t *testing.T) []byte {
	t.Helper()
	b, err := aptfake.Compress(".gz", make([]byte, 33<<20))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
