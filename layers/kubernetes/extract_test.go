package kubernetes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) *cache.Store {
	t.Helper()
	s, err := cache.Open(t.TempDir())
	must(t, err)
	return s
}

func put(t testing.TB, s *cache.Store, b []byte) cache.Blob {
	t.Helper()
	blob, err := s.Put(t.Context(), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	must(t, err)
	return blob
}

func content(t testing.TB, b cache.Blob) string {
	t.Helper()
	data, err := os.ReadFile(b.Path)
	must(t, err)
	return string(data)
}

// program is an ELF header followed by what makes the program its own.
func program(m elf.Machine, text string) string {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[elf.EI_CLASS], head[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	if m == elf.EM_S390 {
		head[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
		binary.BigEndian.PutUint16(head[18:], uint16(m))
	} else {
		binary.LittleEndian.PutUint16(head[18:], uint16(m))
	}
	return string(head) + text
}

// entry is a member of a test's tarball; a name that ends in a slash is a
// directory, a text "-> x" is a symbolic link to x.
type entry struct{ name, text string }

func targz(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	tw := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(e.text))}
		if target, ok := strings.CutPrefix(e.text, "-> "); ok {
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, target
		} else if strings.HasSuffix(e.name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		must(t, tw.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(tw, e.text)
			must(t, err)
		}
	}
	must(t, errors.Join(tw.Close(), z.Close()))
	return buf.Bytes()
}

// noise does not compress, so that a cut of the file is a cut in a member.
func noise(seed uint32, n int) string {
	b := make([]byte, n)
	x := seed
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

func server(t testing.TB) []byte {
	return targz(t,
		entry{"kubernetes/", ""},
		entry{"kubernetes/version", "v1.36.3\n"},
		entry{"kubernetes/server/bin/", ""},
		entry{"kubernetes/server/bin/kube-apiserver.docker_tag", "v1.36.3\n"},
		entry{"kubernetes/server/bin/kubectl", program(elf.EM_X86_64, noise(1, 10_000))},
		entry{"kubernetes/server/bin/kubelet", program(elf.EM_X86_64, noise(2, 20_000))},
		entry{"kubernetes/server/bin/mounter", program(elf.EM_AARCH64, noise(3, 20_000))},
		entry{"kubernetes/LICENSES/LICENSE", "licence"},
	)
}

func TestExtract(t *testing.T) {
	store, data := open(t), server(t)
	blob := put(t, store, data)
	got, err := Extract(t.Context(), store, blob, "", "kubelet", "kube-apiserver.docker_tag")
	must(t, err)
	want := map[string]string{"kubelet": program(elf.EM_X86_64, noise(2, 20_000)), "kube-apiserver.docker_tag": "v1.36.3\n"}
	for name, text := range want {
		if content(t, got[name]) != text || got[name].Hit {
			t.Errorf("%s: other content, or from the store (%v)", name, got[name].Hit)
		}
	}
	// What is in the store is not read again.
	must(t, os.Remove(blob.Path))
	again, err := Extract(t.Context(), store, blob, "amd64", "kubelet")
	must(t, err)
	if len(again) != 1 || !again["kubelet"].Hit || again["kubelet"].Digest != got["kubelet"].Digest {
		t.Errorf("again: %+v", again)
	}
	arm, err := Extract(t.Context(), store, put(t, store, data), "arm64", "mounter")
	if err != nil || len(arm) != 1 {
		t.Errorf("arm64: %v, %v", arm, err)
	}
}

// A tarball is read up to the last member wanted: what comes later may even be
// broken.
func TestExtractStopsEarly(t *testing.T) {
	store, data := open(t), server(t)
	clear(data[len(data)/2:])
	got, err := Extract(t.Context(), store, put(t, store, data), "", "kubectl")
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestExtractErrors(t *testing.T) {
	whole := server(t)
	damaged := bytes.Clone(whole)
	for i := len(damaged) / 2; i < len(damaged)/2+200; i++ {
		damaged[i] ^= 0x55
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string // member
		err  string
	}{
		{"missing member", whole, "kubeadm", "no kubeadm in kubernetes/server/bin, which holds kube-apiserver.docker_tag, kubectl, kubelet, mounter"},
		{"other machine", whole, "mounter", "mounter is for EM_AARCH64, want EM_X86_64"},
		{"big endian", targz(t, entry{binDir + "/kubelet", program(elf.EM_S390, "")}), "kubelet", "kubelet is for EM_S390, want EM_X86_64"},
		{"script", targz(t, entry{binDir + "/kubelet", "#!/bin/sh\necho 'I am not a program'\n"}), "kubelet", "kubelet is for no machine (it is not an ELF program)"},
		{"short program", targz(t, entry{binDir + "/kubelet", "\x7fELF"}), "kubelet", "not an ELF program"},
		{"truncated within the member", whole[:len(whole)-15_000-20_000], "kubelet", "it is truncated, in kubelet"},
		{"truncated before the member", whole[:5_000], "kubelet", "it is truncated, after kubectl"},
		{"truncated at its start", whole[:30], "kubelet", "it is truncated, after its start"},
		{"damaged", damaged, "mounter", "it is "},
		{"empty", nil, "kubelet", "not gzip"},
		{"HTML", []byte("<html><body>404</body></html>"), "kubelet", "not gzip"},
		{"no server tarball", targz(t, entry{"etc/passwd", "root"}), "kubelet", "which holds nothing; it is no Kubernetes server tarball"},
		{"parent directory", targz(t, entry{"kubernetes/../../etc/passwd", "x"}), "kubelet", `member "kubernetes/../../etc/passwd" leads out of the archive`},
		{"absolute name", targz(t, entry{"/kubernetes/server/bin/kubelet", "x"}), "kubelet", "leads out of the archive"},
		{"symbolic link", targz(t, entry{binDir + "/kubelet", "-> /bin/sh"}), "kubelet", "kubernetes/server/bin/kubelet is not a regular file"},
		{"directory", targz(t, entry{binDir + "/kubelet/", ""}), "kubelet", "kubernetes/server/bin/kubelet is not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := open(t)
			got, err := Extract(t.Context(), store, put(t, store, tt.data), "", tt.want)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, %v; want an error with %q", got, err, tt.err)
			}
		})
	}
	store := open(t)
	if _, err := Extract(t.Context(), store, put(t, store, whole), "mips", "kubelet"); err == nil || !strings.Contains(err.Error(), `unknown architecture "mips"`) {
		t.Errorf("mips: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Extract(ctx, store, put(t, store, whole), "", "kubelet"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLayer(t *testing.T) {
	store := open(t)
	a, b := put(t, store, []byte("a")), put(t, store, []byte("b"))
	l := Layer("kubernetes", "kubernetes:v1.36.3", map[string]cache.Blob{"kubelet": a, "kube-proxy": b})
	tree, err := layers.Merge(l)
	must(t, err)
	must(t, tree.Check())
	var got []string
	for f := range tree.Files() {
		got = append(got, f.Mode.String()+" "+f.Path+" "+f.Owner)
	}
	want := "drwxr-xr-x . kubernetes:v1.36.3\ndrwxr-xr-x usr kubernetes:v1.36.3\ndrwxr-xr-x usr/bin kubernetes:v1.36.3\n" +
		"-rwxr-xr-x usr/bin/kube-proxy kubernetes:v1.36.3\n-rwxr-xr-x usr/bin/kubelet kubernetes:v1.36.3"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if text, err := tree.ReadFile("usr/bin/kubelet"); string(text) != "a" {
		t.Errorf("kubelet: %q, %v", text, err)
	}
	swapped := Layer("kubernetes", "kubernetes:v1.36.3", map[string]cache.Blob{"kubelet": b, "kube-proxy": a})
	if l.Digest() == swapped.Digest() || l.Digest().Check() != nil {
		t.Errorf("digests %s and %s", l.Digest(), swapped.Digest())
	}
}

// Whatever a tarball holds, reading it gives the member or an error.
func FuzzExtract(f *testing.F) {
	whole := server(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(targz(f, entry{"../" + binDir + "/kubelet", "x"}))
	f.Add([]byte("\x1f\x8b"))
	store := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		x := &extraction{
			layout: serverLayout, store: store, tarball: cache.Blob{Digest: layers.DigestOf(data)}, name: "fuzz", arch: "amd64",
			got: map[string]cache.Blob{}, todo: map[string]bool{"kubelet": true},
		}
		err := x.read(t.Context(), bytes.NewReader(data))
		if (err == nil) != (len(x.got) == 1) {
			t.Errorf("got %v, %v", x.got, err)
		}
	})
}
