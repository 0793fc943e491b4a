package xz_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	other "github.com/mikelolasagasti/xz"
	writer "github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/kscratch/kscratch/layers/xz"
)

// contents are what the model of LZMA has different parts for.
func contents() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 600<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var words bytes.Buffer
	for words.Len() < 300<<10 {
		words.WriteString(strings.Repeat("abcdefgh"[random.IntN(8):], 1+random.IntN(40)))
		words.WriteByte(byte(random.Uint32()))
	}
	far := append(append(bytes.Clone(noise[:256<<10]), make([]byte, 1<<20)...), noise[:256<<10]...)
	return map[string][]byte{
		"empty": nil, "one byte": {7}, "zeros": make([]byte, 5<<20), "noise": noise, "words": words.Bytes(), "far": far,
	}
}

func pack(t testing.TB, c writer.WriterConfig, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(b []byte) ([]byte, error) { return io.ReadAll(xz.NewReader(bytes.NewReader(b), 64<<20)) }

func TestReader(t *testing.T) {
	for name, want := range contents() {
		for _, c := range []writer.WriterConfig{
			{},
			{CheckSum: writer.CRC32, DictCap: 1 << 16},
			{CheckSum: writer.SHA256, BlockSize: 1 << 20},
			{NoCheckSum: true, DictCap: 1 << 20, BlockSize: 3 << 20},
			{Properties: &lzma.Properties{LC: 0, LP: 2, PB: 0}},
			{Properties: &lzma.Properties{LC: 1, LP: 3, PB: 4}, CheckSum: writer.CRC64},
		} {
			packed := pack(t, c, want)
			got, err := unpack(packed)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %+v: %d bytes of %d, %v", name, c, len(got), len(want), err)
			}
			// Two streams, with padding between and behind them; read byte by byte.
			twice := append(append(bytes.Clone(packed), make([]byte, 8)...), packed...)
			twice = append(twice, make([]byte, 4)...)
			if len(want) > 1<<20 {
				continue
			}
			got, err = io.ReadAll(xz.NewReader(iotest.OneByteReader(bytes.NewReader(twice)), 64<<20))
			if err != nil || len(got) != 2*len(want) {
				t.Errorf("%s, %+v: two streams: %d bytes, %v", name, c, len(got), err)
			}
		}
	}
}

func TestWriteTo(t *testing.T) {
	want := contents()["words"]
	var got bytes.Buffer
	n, err := xz.NewReader(bytes.NewReader(pack(t, writer.WriterConfig{}, want)), 64<<20).WriteTo(&got)
	if err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes of %d, %v", n, len(want), err)
	}
}

func TestMemory(t *testing.T) {
	packed := pack(t, writer.WriterConfig{DictCap: 1 << 20}, []byte("x"))
	var e *xz.MemoryError
	if _, err := io.ReadAll(xz.NewReader(bytes.NewReader(packed), 1<<16)); !errors.As(err, &e) || e.Need != 1<<20 || e.Limit != 1<<16 {
		t.Errorf("got %v", err)
	}
}

// TestDamage: no byte of a file can change, and none can be missing, unseen.
func TestDamage(t *testing.T) {
	want := []byte(strings.Repeat("all work and no play ", 40))
	packed := pack(t, writer.WriterConfig{}, want)
	for i := range packed {
		bad := bytes.Clone(packed)
		bad[i] ^= 0x40
		if _, err := unpack(bad); err == nil {
			t.Errorf("byte %d of %d changed, and nobody saw it", i, len(packed))
		}
		if _, err := unpack(packed[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at byte %d of %d: %v", i, len(packed), err)
		}
	}
	if _, err := unpack(append(bytes.Clone(packed), 1, 2, 3, 4)); err == nil {
		t.Error("there was more behind the file, and nobody saw it")
	}
	broken := errors.New("disk on fire")
	if _, err := io.ReadAll(xz.NewReader(io.MultiReader(bytes.NewReader(packed[:40]), iotest.ErrReader(broken)), 64<<20)); !errors.Is(err, broken) {
		t.Errorf("got %v, want the input's own error", err)
	}
}

// FuzzReader compares with another decoder: where both take a file, they must
// agree, and what is taken here must be taken there.
func FuzzReader(f *testing.F) {
	for _, b := range contents() {
		b = b[:min(len(b), 1<<12)]
		f.Add(pack(f, writer.WriterConfig{}, b))
		f.Add(pack(f, writer.WriterConfig{NoCheckSum: true, BlockSize: 1 << 10, Properties: &lzma.Properties{LC: 2, LP: 1, PB: 1}}, b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(io.LimitReader(xz.NewReader(bytes.NewReader(b), 1<<26), 1<<24))
		if err != nil {
			return
		}
		r, err := other.NewReader(bytes.NewReader(b), 1<<26)
		if err != nil {
			t.Fatalf("the other decoder: %v", err)
		}
		want, err := io.ReadAll(io.LimitReader(r, 1<<24))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, the other decoder has %d, %v", len(got), len(want), err)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	content := contents()["words"]
	packed := pack(b, writer.WriterConfig{}, content)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := unpack(packed); err != nil {
			b.Fatal(err)
		}
	}
}
