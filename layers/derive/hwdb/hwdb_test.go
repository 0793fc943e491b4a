package hwdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const sample = `# comment
evdev:input:b0003*        # trailing
evdev:input:b0005*
 KEYBOARD_KEY_70039=leftctrl
 ID_X==a b 

usb:v1234*
   ID_VENDOR=Acme
`

const later = `usb:v1234*
 ID_VENDOR=Other

usb:v1*
 ID_SHORT=
`

func TestCompile(t *testing.T) {
	b, err := Compile(257, []Source{{"/usr/lib/udev/hwdb.d/20-a.hwdb", []byte(sample)}, {"/etc/udev/hwdb.d/60-b.hwdb", []byte(later)}})
	if err != nil {
		t.Fatal(err)
	}
	want := `evdev:input:b0003*  ID_X==a b (/usr/lib/udev/hwdb.d/20-a.hwdb:5, 1)
evdev:input:b0003*  KEYBOARD_KEY_70039=leftctrl (/usr/lib/udev/hwdb.d/20-a.hwdb:4, 1)
evdev:input:b0005*  ID_X==a b (/usr/lib/udev/hwdb.d/20-a.hwdb:5, 1)
evdev:input:b0005*  KEYBOARD_KEY_70039=leftctrl (/usr/lib/udev/hwdb.d/20-a.hwdb:4, 1)
usb:v1*  ID_SHORT= (/etc/udev/hwdb.d/60-b.hwdb:5, 2)
usb:v1234*  ID_VENDOR=Other (/etc/udev/hwdb.d/60-b.hwdb:2, 2)
`
	if got := list(t, b); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if v := binary.LittleEndian.Uint64(b[8:]); v != 257 {
		t.Errorf("version %d, want 257", v)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"property first", " A=b\n", "/x.hwdb:1: match expected"},
		{"match without property", "a\nb\n\n", "/x.hwdb:3: match \"a\" without properties"},
		{"match at the end", "a\n", "match \"a\" without properties"},
		{"no equals sign", "a\n B\n", "/x.hwdb:2: \"KEY=value\" expected"},
		{"no key", "a\n  =b\n", "/x.hwdb:2: \"KEY=value\" expected"},
		{"match after property", "a\n B=c\nd\n", "/x.hwdb:3: property or empty line expected"},
		{"NUL", "a\x00b\n", "NUL"},
		{"long line", strings.Repeat("x", maxLine+1), "line of 1048577 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(257, []Source{{"/x.hwdb", []byte(tt.text)}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestStrbufSharesTails(t *testing.T) {
	s := newStrbuf()
	for _, tt := range []struct {
		str  string
		want int
	}{{"abc", 1}, {"bc", 2}, {"abc", 1}, {"", 0}, {"xbc", 5}, {"c", 3}, {"d", 9}} {
		if got := s.add(tt.str); got != tt.want {
			t.Errorf("%q is at %d, want %d", tt.str, got, tt.want)
		}
	}
	if got := string(s.b); got != "\x00abc\x00xbc\x00d\x00" {
		t.Errorf("strings %q", got)
	}
}

// list reads a database back, in order of match and key.
func list(t testing.TB, b []byte) string {
	t.Helper()
	le := binary.LittleEndian
	if string(b[:8]) != "KSLPHHRH" || le.Uint64(b[16:]) != uint64(len(b)) {
		t.Fatalf("header %q of %d bytes", b[:24], len(b))
	}
	str := func(off uint64) string {
		s := b[off:]
		return string(s[:bytes.IndexByte(s, 0)])
	}
	var out []string
	var walk func(off uint64, key string)
	walk = func(off uint64, key string) {
		key += str(le.Uint64(b[off:]))
		children, values := uint64(b[off+8]), le.Uint64(b[off+16:])
		at := off + nodeSize
		for i := range children {
			walk(le.Uint64(b[at+i*childSize+8:]), key+string([]byte{b[at+i*childSize]}))
		}
		at += children * childSize
		for i := range values {
			v := b[at+i*valueSize:]
			out = append(out, fmt.Sprintf("%s %s=%s (%s:%d, %d)\n", key, str(le.Uint64(v)), str(le.Uint64(v[8:])),
				str(le.Uint64(v[16:])), le.Uint32(v[24:]), le.Uint16(v[28:])))
		}
	}
	walk(le.Uint64(b[56:]), "")
	slices.Sort(out)
	return strings.Join(out, "")
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(sample), []byte(later))
	f.Add([]byte("a\n b=c"), []byte("ab\n b=d\n\na*\n c=d"))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		b, err := Compile(1, []Source{{"/x", x}, {"/y", y}})
		if err != nil {
			return
		}
		again, err := Compile(1, []Source{{"/x", x}, {"/y", y}})
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("compiled twice, differently: %v", err)
		}
		list(t, b)
	})
}
