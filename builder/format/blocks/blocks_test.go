package blocks_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/test/formattest"
)

func TestReaderReadsLikeAFile(t *testing.T) {
	const mb = 1 << 20
	tests := []struct {
		name string
		size int64
		data map[int64]string // by offset
	}{
		{"empty", 0, nil},
		{"all hole", 3 * mb, nil},
		{"data first", 3 * mb, map[int64]string{0: "head"}},
		{"data last", 3 * mb, map[int64]string{3*mb - 4: "tail"}},
		{"in between", 9*mb + 1, map[int64]string{2 * mb: "one", 5*mb + 7: "two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			err = f.Truncate(tt.size)
			for off, s := range tt.data {
				_, werr := f.WriteAt([]byte(s), off)
				err = errors.Join(err, werr)
			}
			want, rerr := os.ReadFile(f.Name())
			if err := errors.Join(err, rerr); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(blocks.NewReader(formattest.Source(t, f)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want the %d of the file", len(got), err, len(want))
			}
		})
	}
}
