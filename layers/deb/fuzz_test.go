package deb

import (
	"bytes"
	"io"
	"testing"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/test/aptfake"
)

// FuzzPackage reads packages as Layer does, but without a store on disk.
func FuzzPackage(f *testing.F) {
	for _, c := range []string{"", ".gz", ".xz", ".zst"} {
		b, err := aptfake.Deb{
			Name: "hello", Compress: c, Scripts: map[string]string{"postinst": "exit"}, Conffiles: []string{"/a"}, Triggers: "interest x",
			Files: []layers.File{layers.Regular("a", 0o644, "t", []byte("x")), layers.Symlink("b", "a", "t")},
		}.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("!<arch>\n"))
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, b []byte) {
		control, data, err := parts(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if _, err := readControl(t.Context(), control); err != nil {
			return
		}
		var content []byte
		err = decompress(t.Context(), data, limit, func(r io.Reader) (err error) {
			content, err = io.ReadAll(r)
			return err
		})
		if len(content) > limit {
			t.Errorf("read %d bytes, more than the limit", len(content))
		}
		if err != nil {
			return
		}
		l := layers.Tar{Title: "x", Owner: "x", Size: int64(len(content)), Open: func() (layers.ReaderAtCloser, error) { return nopCloser{bytes.NewReader(content)}, nil }}
		if checkFiles(t.Context(), l) != nil {
			return
		}
		for f, err := range l.Files() {
			if err != nil || f.Open == nil {
				continue
			}
			if b, err := f.Read(); err != nil || int64(len(b)) != f.Size {
				t.Errorf("%s: read %d of %d bytes, %v", f.Path, len(b), f.Size, err)
			}
		}
	})
}

type nopCloser struct{ io.ReaderAt }

func (nopCloser) Close() error { return nil }
