package verity

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// mem is a file in memory.
type mem struct{ b []byte }

func (m *mem) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *mem) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, off) }

func noise(blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

var testSalt = bytes.Repeat([]byte{0xa5}, 32)

func TestWriteAndVerify(t *testing.T) {
	for _, blocks := range []int{1, 2, 127, 128, 129, 300, 128*128 + 1} {
		data := noise(blocks)
		var hash mem
		o := Options{Salt: testSalt, UUID: [16]byte{1, 2, 3}}
		root, n, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), &hash, o)
		if err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		if n != int64(len(hash.b)) || n != HashSize(int64(len(data))) {
			t.Errorf("%d blocks: size %d, written %d, HashSize %d", blocks, n, len(hash.b), HashSize(int64(len(data))))
		}
		if err := Verify(context.Background(), bytes.NewReader(data), &hash, root); err != nil {
			t.Errorf("%d blocks: %v", blocks, err)
		}
		streamed, sh := stream(t, data, o)
		if streamed != root || !bytes.Equal(sh.b, hash.b) {
			t.Errorf("%d blocks: a Hasher gives another tree than Write", blocks)
		}
	}
}

// stream hashes data in odd portions and, as a file system writer does, writes
// block 0 last.
func stream(t *testing.T, data []byte, o Options) (Hash, *mem) {
	t.Helper()
	h := NewHasher(o)
	h.Write(make([]byte, BlockSize))
	for at := BlockSize; at < len(data); {
		n := min(1000003, len(data)-at)
		h.Write(data[at : at+n])
		at += n
	}
	if _, err := h.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	h.Write(data[:BlockSize])
	var hash mem
	root, _, err := h.Tree(&hash)
	if err != nil {
		t.Fatal(err)
	}
	return root, &hash
}

func TestVerifyFindsCorruption(t *testing.T) {
	data := noise(300)
	var hash mem
	root, _, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), &hash, Options{Salt: testSalt})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		data int
		hash int
		want string
	}{
		{"first byte of the data", 1, 0, "corrupt data block at byte 0"},
		{"last byte of the data", len(data), 0, "corrupt data block at byte 1224704"},
		{"root block", 0, BlockSize + 1, "corrupt hash block at byte 4096"},
		{"second block over the data", 0, 3*BlockSize + 5, "corrupt hash block at byte 12288"},
		{"signature", 0, 1, "no verity signature"},
		{"salt", 0, 89, "corrupt hash block at byte 4096"},
	} {
		d, h := bytes.Clone(data), bytes.Clone(hash.b)
		if tc.data > 0 {
			d[tc.data-1] ^= 1
		}
		if tc.hash > 0 {
			h[tc.hash-1] ^= 1
		}
		err := Verify(context.Background(), bytes.NewReader(d), bytes.NewReader(h), root)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	err = Verify(context.Background(), bytes.NewReader(data), bytes.NewReader(hash.b[:len(hash.b)-1]), root)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated tree: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	ctx := context.Background()
	for _, tc := range []struct {
		name string
		size int64
		o    Options
		want string
	}{
		{"nothing", 0, Options{}, "not a positive multiple"},
		{"half a block", 100, Options{}, "not a positive multiple"},
		{"long salt", BlockSize, Options{Salt: make([]byte, 257)}, "salt of 257 bytes"},
		{"short data", 4 * BlockSize, Options{}, "reading data at byte 4096: unexpected EOF"},
	} {
		_, _, err := Write(ctx, bytes.NewReader(make([]byte, BlockSize)), tc.size, &mem{}, tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := Write(cancelled, bytes.NewReader(noise(8)), 8*BlockSize, &mem{}, Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	h := NewHasher(Options{})
	h.Write(make([]byte, 5))
	if _, err := h.Seek(0, io.SeekStart); err == nil {
		t.Error("seeking from within a block: no error")
	}
	if _, _, err := h.Tree(&mem{}); err == nil {
		t.Error("tree over 5 bytes: no error")
	}
	if _, err := h.Write([]byte{1}); err == nil {
		t.Error("writing to a closed hasher: no error")
	}
}

func FuzzReadSuperblock(f *testing.F) {
	var hash mem
	data := noise(130)
	root, _, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), &hash, Options{Salt: testSalt})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hash.b)
	f.Add(hash.b[:superblockSize])
	f.Add([]byte("verity\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Verify(context.Background(), bytes.NewReader(data), bytes.NewReader(b), root)
		if err == nil && !bytes.Equal(b[4096:min(len(b), len(hash.b))], hash.b[4096:]) {
			t.Error("accepted another tree")
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	data := noise(16384)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Write(context.Background(), bytes.NewReader(data), int64(len(data)), &mem{}, Options{Salt: testSalt})
	}
}

// TestUnordered: blocks in any order, zeros left out, give the same tree.
func TestUnordered(t *testing.T) {
	data := make([]byte, 300*BlockSize)
	for i := range data {
		data[i] = byte(i * i >> 9)
	}
	clear(data[7*BlockSize : 40*BlockSize])
	o := Options{Salt: []byte("salt"), UUID: [16]byte{1}}
	in := NewHasher(o)
	if _, err := in.Write(data); err != nil {
		t.Fatal(err)
	}
	var want, got writerAt
	wantHash, _, err := in.Tree(&want)
	if err != nil {
		t.Fatal(err)
	}
	u := NewUnordered(o, int64(len(data)))
	for i := 299; i >= 0; i-- {
		if i >= 7 && i < 40 {
			continue
		}
		if err := u.Add(data[i*BlockSize:(i+1)*BlockSize], int64(i)*BlockSize); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []struct {
		n   int
		off int64
	}{{BlockSize, 1}, {1, 0}, {BlockSize, int64(len(data))}, {BlockSize, -BlockSize}} {
		if err := u.Add(make([]byte, bad.n), bad.off); err == nil {
			t.Errorf("%d bytes at %d were taken", bad.n, bad.off)
		}
	}
	gotHash, n, err := u.Tree(&got)
	if err != nil || gotHash != wantHash || n != int64(len(got.b)) || !bytes.Equal(got.b, want.b) {
		t.Errorf("hash %s, %d bytes, %v, want %s", gotHash, n, err, wantHash)
	}
}

type writerAt struct{ b []byte }

func (w *writerAt) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.b) {
		w.b = append(w.b, make([]byte, need-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}
