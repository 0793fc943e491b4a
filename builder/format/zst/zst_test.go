package zst

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/test/formattest"
)

func image(t testing.TB) []byte {
	t.Helper()
	in := formattest.Temp(t)
	if _, err := in.WriteAt(bytes.Repeat([]byte("content."), 100), 3000); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(t.Context(), &out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadErrors(t *testing.T) {
	var wide bytes.Buffer
	z, err := zstd.NewWriter(&wide, zstd.WithWindowSize(2*maxWindow), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(z, zeros{}, 3*maxWindow); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	good := image(t)
	for _, tt := range []struct {
		name string
		body []byte
		want error
	}{
		{"whole", good, nil},
		{"two, one after the other", append(bytes.Clone(good), good...), nil},
		{"cut off", good[:len(good)-1], io.ErrUnexpectedEOF},
		{"text behind", append(bytes.Clone(good), "text"...), zstd.ErrMagicMismatch},
		{"a large window", wide.Bytes(), zstd.ErrWindowSizeExceeded},
	} {
		r, err := NewReader(bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func FuzzReader(f *testing.F) {
	f.Add(image(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		io.CopyN(io.Discard, r, 4<<20)
	})
}
