package qcow2

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/test/formattest"
)

// metadata is an output that keeps the tables alone: content is written as
// zeros here.
type metadata struct{ *os.File }

func (m metadata) WriteAt(b []byte, off int64) (int, error) {
	if blocks.IsZero(b) {
		return len(b), nil
	}
	return m.File.WriteAt(b, off)
}

// large writes the tables of an image with more clusters than two blocks of
// refcounts cover. Content has the length that length says, 0 for none.
func large(t *testing.T, o Options, length func(rnd *rand.Rand) int) *os.File {
	t.Helper()
	const clusters = 100000
	f := formattest.Temp(t)
	w, err := newWriter(metadata{f}, clusters*clusterSize, o)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, clusterSize)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range int64(clusters) {
		n := length(rnd)
		if n == 0 {
			continue
		}
		c := &blocks.Chunk{Off: i * clusterSize, Data: zeros}
		if o.Compress {
			c.Out = zeros[:n]
		}
		if err := w.put(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return f
}

var larges = []struct {
	name   string
	o      Options
	length func(*rand.Rand) int
}{
	{"plain", Options{}, func(rnd *rand.Rand) int { return rnd.IntN(5) }},
	{"compressed", Options{Compress: true}, func(rnd *rand.Rand) int { return rnd.IntN(clusterSize) }},
	{"not compressible", Options{Compress: true}, func(*rand.Rand) int { return clusterSize }},
	{"one byte over", Options{Compress: true}, func(rnd *rand.Rand) int { return clusterSize - rnd.IntN(3) }},
	{"half", Options{Compress: true}, func(rnd *rand.Rand) int { return clusterSize/2 + rnd.IntN(2)*clusterSize/2 }},
}

// Each cluster of a file has as many references as its refcount says.
func TestRefcounts(t *testing.T) {
	for _, tt := range larges {
		t.Run(tt.name, func(t *testing.T) {
			f := large(t, tt.o, tt.length)
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if st.Size()%clusterSize != 0 {
				t.Errorf("the file has %d bytes, no whole clusters", st.Size())
			}
			r := table{t, f}
			want := r.references(st.Size())
			for i := range st.Size() / clusterSize {
				block := r.entry(clusterSize, i/refsLen)
				got := 0
				if block != 0 {
					got = int(r.entry(int64(block), i%refsLen/4) >> (48 - 16*(i%4)) & 0xffff)
				}
				if got != want[i] {
					t.Fatalf("cluster %d of %d has refcount %d, want %d", i, st.Size()/clusterSize, got, want[i])
				}
			}
		})
	}
}

// table reads tables of 8-byte entries.
type table struct {
	t *testing.T
	r io.ReaderAt
}

func (r table) entry(at, i int64) uint64 {
	var b [8]byte
	if _, err := r.r.ReadAt(b[:], at+i*8); err != nil {
		r.t.Fatal(err)
	}
	return binary.BigEndian.Uint64(b[:])
}

// references counts who refers to each cluster of a file, as the specification
// has it.
func (r table) references(size int64) map[int64]int {
	refs := map[int64]int{0: 1, 1: 1} // header, refcount table
	for i := range size/clusterSize/refsLen + 1 {
		if at := r.entry(clusterSize, i); at != 0 {
			refs[int64(at/clusterSize)]++
		}
	}
	entries := int64(r.entry(36, 0) >> 32)
	for i := range (entries*8 + clusterSize - 1) / clusterSize {
		refs[2+i]++
	}
	for i := range entries {
		l2 := int64(r.entry(2*clusterSize, i) &^ copied)
		if l2 == 0 {
			continue
		}
		refs[l2/clusterSize]++
		for j := range int64(tableLen) {
			switch e := r.entry(l2, j); {
			case e&compressed != 0:
				at := int64(e & (1<<sectorsShift - 1))
				end := at/sector*sector + int64(e&(compressed-1)>>sectorsShift+1)*sector
				for c := at / clusterSize; c <= (end-1)/clusterSize; c++ {
					refs[c]++
				}
			case e != 0:
				refs[int64(e&^copied)/clusterSize]++
			}
		}
	}
	return refs
}

// image is a small one with content of all kinds, for reading.
func image(t testing.TB, o Options) []byte {
	t.Helper()
	in, out := formattest.Temp(t), formattest.Temp(t)
	if _, err := in.WriteAt(bytes.Repeat([]byte("content"), 30000), 0); err != nil {
		t.Fatal(err)
	}
	if err := in.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), out, formattest.Source(t, in), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenErrors(t *testing.T) {
	be := binary.BigEndian
	l1 := 2 * clusterSize
	l2 := 3 * clusterSize
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "there is no header"},
		{"short", func(b []byte) []byte { return b[:100] }, "there is no header"},
		{"version", func(b []byte) []byte { b[7] = 4; return b }, "version 4 is not supported"},
		{"backing", func(b []byte) []byte { b[15] = 1; return b }, "backing file; make one image of both"},
		{"encrypted", func(b []byte) []byte { b[35] = 1; return b }, "it is encrypted"},
		{"tiny clusters", func(b []byte) []byte { b[23] = 8; return b }, "clusters of 1<<8 bytes"},
		{"huge clusters", func(b []byte) []byte { b[23] = 22; return b }, "clusters of 1<<22 bytes"},
		{"huge", func(b []byte) []byte { b[24] = 1; return b }, "a disk of 72057594038976512 bytes"},
		{"negative", func(b []byte) []byte { b[24] = 255; return b }, "a disk of -"},
		{"no L1", func(b []byte) []byte { be.PutUint32(b[36:], 0); return b }, "L1 table of 0 entries"},
		{"L1 far out", func(b []byte) []byte { be.PutUint64(b[40:], 1<<63); return b }, "L1 table of 1 entries at byte 9223372036854775808"},
		{"L1 in the header", func(b []byte) []byte { be.PutUint64(b[40:], 0); return b }, "L1 table of 1 entries at byte 0"},
		{"L1 askew", func(b []byte) []byte { b[47] = 1; return b }, "L1 table"},
		{"features", func(b []byte) []byte { b[79] = 2; return b }, "incompatible features 0x2"},
		{"header length", func(b []byte) []byte { b[100] = 1; return b }, "header length"},
		{"compression", func(b []byte) []byte { b[79], b[104] = 8, 2; return b }, "compression type 2"},
		{"L2 far out", func(b []byte) []byte { b[l1+2] = 1; return b }, "L2 table: byte"},
		{"L2 askew", func(b []byte) []byte { b[l1+6] |= 2; return b }, "not at the start of a cluster"},
		{"cluster far out", func(b []byte) []byte { b[l2+2] = 1; return b }, "the 65536 bytes at byte 0 of the disk: byte"},
		{"cluster askew", func(b []byte) []byte { b[l2+6] |= 2; return b }, "not at the start of a cluster"},
		{"compressed far out", func(b []byte) []byte { be.PutUint64(b[l2:], compressed|1<<50); return b }, "unexpected EOF"},
		{"compressed nonsense", func(b []byte) []byte { be.PutUint64(b[l2:], compressed|1<<sectorsShift); return b }, "decompressing"},
		{"cut off", func(b []byte) []byte { return b[:l2+clusterSize] }, "unexpected EOF"},
	} {
		b := tt.change(image(t, Options{}))
		im, err := Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = io.Copy(io.Discard, blocks.NewReader(im))
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// tiny has clusters of 512 bytes: header, L1 table, L2 table, content, and a
// compressed cluster.
func tiny(t testing.TB, compression byte) []byte {
	t.Helper()
	be := binary.BigEndian
	b := make([]byte, 5*512)
	copy(b, header(4096, 1, Options{Compress: compression == zstdID}))
	be.PutUint32(b[20:], 9)
	be.PutUint64(b[40:], 512)
	be.PutUint64(b[512:], 1024|copied)
	be.PutUint64(b[1024:], 1536|copied)
	be.PutUint64(b[1024+16:], compressed|2048)
	be.PutUint64(b[1024+32:], noContent)
	copy(b[1536:], "content")
	var packed bytes.Buffer
	var z io.WriteCloser
	var err error
	if compression == zstdID {
		z, err = zstd.NewWriter(&packed)
	} else {
		z, err = flate.NewWriter(&packed, 6)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(bytes.Repeat([]byte("packed.."), 64)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	copy(b[2048:], packed.Bytes())
	return b
}

func TestTiny(t *testing.T) {
	for _, compression := range []byte{0, zstdID} {
		b := tiny(t, compression)
		im, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4096)
		if _, err := im.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 4096)
		copy(want, "content")
		copy(want[1024:], bytes.Repeat([]byte("packed.."), 64))
		if !bytes.Equal(got, want) {
			t.Errorf("compression type %d: read other than written", compression)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(tiny(f, 0))
	f.Add(tiny(f, zstdID))
	f.Fuzz(func(t *testing.T, b []byte) {
		if im, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
			formattest.Drain(t, im)
		}
	})
}
