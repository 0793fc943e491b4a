package depmod

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestIndexRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name string
		add  []string // key value priority
		want []string
	}{
		{"empty", nil, nil},
		{"one", []string{"a x 0"}, []string{"a x 0"}},
		{"prefixes", []string{"once a 1", "on b 2", "one c 3", "ask d 4"},
			[]string{"ask d 4", "on b 2", "once a 1", "one c 3"}},
		{"priorities", []string{"k a 3", "k b 1", "k c 3", "k d 2"},
			[]string{"k b 1", "k d 2", "k c 3", "k a 3"}},
		{"split twice", []string{"abcdef a 0", "abc b 0", "abcd c 0", "x d 0"},
			[]string{"abc b 0", "abcd c 0", "abcdef a 0", "x d 0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var x Index
			for _, a := range tt.add {
				var p int
				w := strings.Fields(a)
				fmt.Sscan(w[2], &p)
				if err := x.Add(w[0], w[1], p); err != nil {
					t.Fatal(err)
				}
			}
			b, err := x.Encode()
			if err != nil {
				t.Fatal(err)
			}
			entries, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, fmt.Sprintf("%s %s %d", e.Key, e.Value, e.Priority))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestIndexRefusesWideText(t *testing.T) {
	for _, s := range []string{"é", "a\x00b"} {
		if err := new(Index).Add(s, "", 0); err == nil {
			t.Errorf("key %q was taken", s)
		}
		if err := new(Index).Add("k", s, 0); err == nil {
			t.Errorf("value %q was taken", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	var x Index
	for i, k := range []string{"on", "one", "once", "ask", "ate"} {
		if err := x.Add(k, "v"+k, i); err != nil {
			f.Fatal(err)
		}
	}
	b, err := x.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := Decode(b)
		if err != nil {
			return
		}
		var y Index
		for _, e := range entries {
			if y.Add(e.Key, e.Value, int(e.Priority)) != nil {
				return
			}
		}
		again, err := y.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil || len(back) != len(entries) {
			t.Fatalf("%d entries became %d: %v", len(entries), len(back), err)
		}
	})
}

// Entry is a key of an index with one of its values.
type Entry struct {
	Key, Value string
	Priority   uint32
}

var errTorn = errors.New("index is torn")

// Decode reads an index file back, in order of key, then of value. It visits
// no more nodes than there are bytes, so that no input makes it run forever.
func Decode(b []byte) ([]Entry, error) {
	if len(b) < 12 || binary.BigEndian.Uint32(b) != indexMagic {
		return nil, errors.New("not a kmod index")
	}
	if v := binary.BigEndian.Uint32(b[4:]); v>>16 != indexVersion>>16 {
		return nil, fmt.Errorf("index version %d.%d is not supported", v>>16, v&0xffff)
	}
	d := decoder{b: b, budget: len(b)}
	err := d.node(binary.BigEndian.Uint32(b[8:]), 0, "")
	return d.out, err
}

type decoder struct {
	b      []byte
	budget int // nodes that may still be visited
	out    []Entry
}

func (d *decoder) node(ref uint32, depth int, key string) error {
	at := ref & offsetMask
	if d.budget--; d.budget < 0 || depth > 4096 || at < 12 || int(at) > len(d.b) {
		return errTorn
	}
	r := reader{b: d.b[at:]}
	if ref&flagPrefix != 0 {
		key += r.text()
	}
	var first, last byte
	var children []uint32
	if ref&flagChildren != 0 {
		first, last = r.byte(), r.byte()
		for c := int(first); c <= int(last) && !r.torn; c++ {
			children = append(children, r.uint32())
		}
	}
	if ref&flagValues != 0 {
		for n := r.uint32(); n > 0 && !r.torn; n-- {
			p := r.uint32()
			d.out = append(d.out, Entry{key, r.text(), p})
		}
	}
	if r.torn {
		return errTorn
	}
	for i, c := range children {
		if c == 0 {
			continue
		}
		if err := d.node(c, depth+1, key+string([]byte{first + byte(i)})); err != nil {
			return err
		}
	}
	return nil
}

type reader struct {
	b    []byte
	torn bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.torn = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.torn = true
		return 0
	}
	n := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return n
}

func (r *reader) text() string {
	i := slices.Index(r.b, 0)
	if i < 0 {
		r.torn = true
		return ""
	}
	s := string(r.b[:i])
	r.b = r.b[i+1:]
	return s
}
