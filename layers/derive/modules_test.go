package derive

import (
	"bytes"
	"io"
	"sync/atomic"
	"testing"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// emptyModule is an ELF64 file without sections.
var emptyModule = append([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x3e\x00\x01\x00\x00\x00"),
	append(make([]byte, 28), "\x40\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00"...)...)

func TestModulesAreCached(t *testing.T) {
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions
	o.Cache = store
	var opened atomic.Int32
	counted := func(path string, content []byte) layers.File {
		f := layers.Regular("usr/lib/modules/6.1/kernel/"+path, 0o644, "deb:linux", content)
		f.Open = func() (io.ReadCloser, error) {
			opened.Add(1)
			return io.NopCloser(bytes.NewReader(content)), nil
		}
		return f
	}
	for _, tt := range []struct {
		name  string
		files []layers.File
		opens int32 // once for the key, once more to build
		dep   string
	}{
		{"built", []layers.File{counted("a.ko", emptyModule)}, 2, "kernel/a.ko:\n"},
		{"from the cache", []layers.File{counted("a.ko", emptyModule)}, 1, "kernel/a.ko:\n"},
		{"other content", []layers.File{counted("a.ko", append(emptyModule, 0))}, 2, "kernel/a.ko:\n"},
		{"other name", []layers.File{counted("b.ko", emptyModule)}, 2, "kernel/b.ko:\n"},
	} {
		opened.Store(0)
		in, err := layers.Merge(layers.Of("linux", "", tt.files...))
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := run(t.Context(), in, o, []Step{stepModules})
		if err != nil {
			t.Fatal(err)
		}
		b, err := got.ReadFile("usr/lib/modules/6.1/modules.dep")
		if err != nil || string(b) != tt.dep || opened.Load() != tt.opens {
			t.Errorf("%s: modules.dep %q, %v, opened %d times; want %q, %d", tt.name, b, err, opened.Load(), tt.dep, tt.opens)
		}
		if _, ok := got.Lookup("usr/lib/modules/6.1/modules.dep.bin"); !ok {
			t.Errorf("%s: no modules.dep.bin", tt.name)
		}
	}
}
