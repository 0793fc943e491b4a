package kubernetes

import (
	"archive/tar"
	"bufio"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// binDir is where a tarball keeps its programs and images.
const binDir = "kubernetes/server/bin"

// maxMembers bounds what a tarball may hold.
const maxMembers = 100_000

// layout says where a kind of archive keeps what is wanted from it.
type layout struct {
	kind     string // of its members in the content store
	what     string // it is
	dir      string // that the members lie in
	limit    int64  // how large one may be, in bytes
	unpacked int64  // how large all of it may be, in bytes
	unsure   bool   // nothing but the archive's own checksum may tell that it is intact
}

var serverLayout = layout{
	kind: "kubernetes-member", what: "Kubernetes server tarball", dir: binDir, limit: 4 << 30, unpacked: 32 << 30,
}

// MissingError says that a tarball lacks a member.
type MissingError struct {
	Tarball string
	Missing []string // wanted names that are not there
	Present []string // names in Dir
	Dir     string   // where they should be, such as kubernetes/server/bin
	What    string   // the tarball should be
}

func (e *MissingError) Error() string {
	there := strings.Join(e.Present, ", ")
	if there == "" {
		there = "nothing; it is no " + e.What
	}
	return fmt.Sprintf("reading %s: no %s in %s, which holds %s", e.Tarball, strings.Join(e.Missing, ", "), e.Dir, there)
}

// ArchError says that a program is for another machine.
type ArchError struct {
	Tarball, File, Want, Found string
}

func (e *ArchError) Error() string {
	return fmt.Sprintf("reading %s: %s is for %s, want %s", e.Tarball, e.File, e.Found, e.Want)
}

// Extract returns members of a tarball by their names in kubernetes/server/bin,
// such as "kubelet" or "kube-apiserver.tar". It reads the tarball once, up to
// the last member that the store does not have yet. Programs, which are the
// names without an extension, must be for arch (a GOARCH; empty means amd64).
func Extract(ctx context.Context, store *cache.Store, tarball cache.Blob, arch string, want ...string) (map[string]cache.Blob, error) {
	return extract(ctx, store, tarball, serverLayout, arch, want...)
}

func extract(ctx context.Context, store *cache.Store, tarball cache.Blob, l layout, arch string, want ...string) (map[string]cache.Blob, error) {
	x := &extraction{
		layout: l, store: store, tarball: tarball, name: "tarball " + string(tarball.Digest), arch: arch,
		got: map[string]cache.Blob{}, todo: map[string]bool{},
	}
	if arch == "" {
		x.arch = "amd64"
	}
	if _, ok := machines[x.arch]; !ok {
		return nil, fmt.Errorf("reading %s: unknown architecture %q", x.name, arch)
	}
	for _, n := range want {
		if b, ok := store.Computed(l.kind, x.key(n)); ok {
			x.got[n] = b
		} else {
			x.todo[n] = true
		}
	}
	if len(x.todo) == 0 {
		return x.got, nil
	}
	f, err := tarball.Open()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", x.name, err)
	}
	defer f.Close()
	if l.unsure {
		if err := x.intact(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := x.read(ctx, f); err != nil {
		return nil, err
	}
	return x.got, nil
}

// extraction is one pass through a tarball.
type extraction struct {
	layout
	store   *cache.Store
	tarball cache.Blob
	name    string // for messages
	arch    string
	got     map[string]cache.Blob
	todo    map[string]bool
	present []string
}

func (x *extraction) key(name string) string {
	return strings.Join([]string{"1", string(x.tarball.Digest), x.arch, strconv.Quote(name)}, " ")
}

func (x *extraction) unzip(ctx context.Context, r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading %s: not gzip: %w", x.name, err)
	}
	return &bounded{layers.WithContext(ctx, z), x.unpacked}, nil
}

// intact reads an archive to its end, where gzip has a checksum, and goes back
// to its start.
func (x *extraction) intact(ctx context.Context, f io.ReadSeeker) error {
	z, err := x.unzip(ctx, f)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		return x.broken("before its end", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func (x *extraction) read(ctx context.Context, r io.Reader) error {
	z, err := x.unzip(ctx, r)
	if err != nil {
		return err
	}
	tr := tar.NewReader(z)
	for range maxMembers {
		h, err := tr.Next()
		if err == io.EOF {
			return x.missing()
		}
		if err != nil {
			return x.broken("after "+x.lastName(), err)
		}
		if err := x.member(ctx, h, tr); err != nil {
			return err
		}
		if len(x.todo) == 0 {
			return nil
		}
	}
	return fmt.Errorf("reading %s: more than %d members", x.name, maxMembers)
}

func (x *extraction) missing() error {
	slices.Sort(x.present)
	return &MissingError{Tarball: x.name, Missing: slices.Sorted(maps.Keys(x.todo)), Present: x.present, Dir: x.dir, What: x.what}
}

func (x *extraction) lastName() string {
	if len(x.present) == 0 {
		return "its start"
	}
	return x.present[len(x.present)-1]
}

// broken names what is wrong with a stream that cannot be read on.
func (x *extraction) broken(where string, err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("reading %s: it is truncated, %s: %w", x.name, where, io.ErrUnexpectedEOF)
	case errors.As(err, &corrupt) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("reading %s: it is damaged, %s: %w", x.name, where, err)
	}
	return fmt.Errorf("reading %s, %s: %w", x.name, where, err)
}

// member looks at one entry and stores it if it is wanted.
func (x *extraction) member(ctx context.Context, h *tar.Header, r io.Reader) error {
	clean := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if clean != "" && clean != "." && !fs.ValidPath(clean) {
		return fmt.Errorf("reading %s: member %q leads out of the archive", x.name, h.Name)
	}
	dir, name := path.Split(clean)
	if dir != x.dir+"/" {
		return nil
	}
	x.present = append(x.present, name)
	if !x.todo[name] {
		return nil
	}
	if h.Typeflag != tar.TypeReg {
		return fmt.Errorf("reading %s: %s is not a regular file", x.name, clean)
	}
	if h.Size > x.limit {
		return fmt.Errorf("reading %s: %s has %d bytes, more than %d", x.name, clean, h.Size, x.limit)
	}
	blob, err := x.keep(ctx, name, r)
	if err != nil {
		return err
	}
	x.got[name] = blob
	delete(x.todo, name)
	return nil
}

// keep stores a member that passes its checks.
func (x *extraction) keep(ctx context.Context, name string, r io.Reader) (cache.Blob, error) {
	return x.store.Compute(ctx, x.kind, x.key(name), func(ctx context.Context, w io.Writer) error {
		br := bufio.NewReader(r)
		if path.Ext(name) == "" {
			head, err := br.Peek(elfHead)
			if err != nil && err != io.EOF {
				return x.broken("in "+name, err)
			}
			if found := machine(head); found != machines[x.arch].String() {
				return &ArchError{Tarball: x.name, File: name, Want: machines[x.arch].String(), Found: found}
			}
		}
		src := &source{r: br}
		_, err := io.Copy(w, src)
		if src.err != nil {
			return x.broken("in "+name, src.err)
		}
		if err != nil {
			return fmt.Errorf("storing %s of %s: %w", name, x.name, err)
		}
		return nil
	})
}

// source remembers an error of reading, to tell it from one of writing.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// machines are the ELF machines of the architectures that Kubernetes releases.
var machines = map[string]elf.Machine{
	"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390,
}

// elfHead is the length of the part of an ELF header up to e_machine.
const elfHead = 20

// machine names the machine that a program is for, from its first bytes
// (https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html).
func machine(head []byte) string {
	if len(head) < elfHead || string(head[:4]) != elf.ELFMAG {
		return "no machine (it is not an ELF program)"
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	return elf.Machine(order.Uint16(head[18:])).String()
}

// bounded is a reader that fails after left bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("it unpacks to more than it may")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
