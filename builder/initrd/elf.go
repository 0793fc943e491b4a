package initrd

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// triplets are Debian's names for the machines that we know.
var triplets = map[elf.Machine]struct{ triplet, platform string }{
	elf.EM_X86_64:  {"x86_64-linux-gnu", "x86_64"},
	elf.EM_AARCH64: {"aarch64-linux-gnu", "aarch64"},
}

// object is what matters of an ELF file.
type object struct {
	file     layers.File
	class    elf.Class
	machine  elf.Machine
	needed   []string
	search   []string // DT_RUNPATH or else DT_RPATH
	interp   string
	dlopened []dlopen
}

// elf adds what an ELF file needs. Kernel modules and other objects that are
// not loaded by ld.so need nothing.
func (s *selector) elf(f layers.File, r io.ReaderAt) error {
	o, err := parseELF(f, r)
	if err != nil || o == nil {
		return err
	}
	if o.interp != "" {
		s.add(o.interp, by(f))
	}
	for _, lib := range o.needed {
		if !s.library(o, lib) {
			s.unfound(o, []string{lib}, "")
		}
	}
	for _, d := range o.dlopened {
		if d.Priority == "suggested" && !s.o.Suggested {
			continue
		}
		found := slices.ContainsFunc(d.Soname, func(lib string) bool { return s.library(o, lib) })
		if !found && d.Priority == "required" {
			s.unfound(o, d.Soname, " for "+d.Feature)
		}
	}
	return nil
}

// unmet is a need of a library that was not found where it would be searched
// for. It is met nevertheless if the program that loads the library brings one
// of that name: ld.so takes what it has loaded already. systemd's private
// libraries need each other in this way.
type unmet struct {
	o     *object
	names []string
	what  string // the library is for, if known
}

// unfound notes a need that was not met; what a program needs must be found.
func (s *selector) unfound(o *object, names []string, what string) {
	u := unmet{o, names, what}
	if o.interp != "" {
		s.failUnmet(u)
		return
	}
	s.unmet = append(s.unmet, u)
}

func (s *selector) failUnmet(u unmet) {
	s.fail("library %s is missing; %s wants it%s", strings.Join(u.names, " or "), by(u.o.file), u.what)
}

// settle checks the needs of libraries against all that was chosen.
func (s *selector) settle() {
	if len(s.unmet) == 0 {
		return
	}
	kept := map[string][]string{}
	for f := range s.root.Files() {
		if s.keep[f.Path] {
			kept[path.Base(f.Path)] = append(kept[path.Base(f.Path)], f.Path)
		}
	}
	for _, u := range s.unmet {
		met := slices.ContainsFunc(u.names, func(n string) bool {
			return slices.ContainsFunc(kept[n], func(p string) bool { return s.fits(u.o, p) })
		})
		if !met {
			s.failUnmet(u)
		}
	}
}

// parseELF returns nil for files that are not linked dynamically.
func parseELF(file layers.File, r io.ReaderAt) (*object, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, nil
	}
	o := &object{file: file, class: f.Class, machine: f.Machine}
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_INTERP:
			b, err := readSegment(p)
			if err != nil {
				return nil, err
			}
			o.interp = string(bytes.TrimRight(b, "\x00"))
		case elf.PT_NOTE:
			b, err := readSegment(p)
			if err != nil {
				return nil, err
			}
			d, err := parseNotes(b, f.ByteOrder)
			if err != nil {
				return nil, err
			}
			o.dlopened = append(o.dlopened, d...)
		}
	}
	return o, o.dynamic(f)
}

// maxSegment bounds the segments that are read: an interpreter, some notes.
const maxSegment = 1 << 20

func readSegment(p *elf.Prog) ([]byte, error) {
	if p.Filesz > maxSegment {
		return nil, fmt.Errorf("segment %s of %d bytes is too large", p.Type, p.Filesz)
	}
	return io.ReadAll(p.Open())
}

func (o *object) dynamic(f *elf.File) error {
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil
	}
	var err error
	if o.needed, err = f.DynString(elf.DT_NEEDED); err != nil {
		return err
	}
	runpath, err := f.DynString(elf.DT_RUNPATH)
	if err != nil {
		return err
	}
	if len(runpath) == 0 {
		if runpath, err = f.DynString(elf.DT_RPATH); err != nil {
			return err
		}
	}
	for _, p := range runpath {
		o.search = append(o.search, strings.Split(p, ":")...)
	}
	return nil
}

// library adds the first library of a name that fits o, and reports whether
// there is one.
func (s *selector) library(o *object, name string) bool {
	if strings.Contains(name, "/") {
		ok := s.there(name)
		if ok {
			s.add(name, by(o.file))
		}
		return ok
	}
	for _, dir := range o.search {
		if s.fits(o, path.Join(o.expand(dir), name)) {
			return true
		}
	}
	for _, dir := range o.standard() {
		if s.fits(o, path.Join(dir, name)) {
			return true
		}
	}
	for _, dir := range s.configured() {
		if !s.fits(o, path.Join(dir, name)) {
			continue
		}
		// ld.so finds these by its cache alone.
		s.add("etc/ld.so.cache", fmt.Sprintf("library %s in /%s, for %s,", name, dir, by(o.file)))
		return true
	}
	return false
}

// expand replaces the variables of ld.so(8).
func (o *object) expand(dir string) string {
	t := triplets[o.machine]
	for _, v := range []struct{ name, value string }{
		{"ORIGIN", "/" + path.Dir(o.file.Path)}, {"LIB", "lib/" + t.triplet}, {"PLATFORM", t.platform},
	} {
		dir = strings.ReplaceAll(dir, "${"+v.name+"}", v.value)
		dir = strings.ReplaceAll(dir, "$"+v.name, v.value)
	}
	return strings.TrimPrefix(path.Clean("/"+dir), "/")
}

// standard lists the directories that Debian's ld.so searches by itself.
func (o *object) standard() []string {
	dirs := []string{"usr/lib", "lib"} // usr first: with a merged /usr it is the real one
	if o.class == elf.ELFCLASS64 {
		dirs = []string{"usr/lib64", "lib64", "usr/lib", "lib"}
	}
	if t := triplets[o.machine].triplet; t != "" {
		dirs = append([]string{"usr/lib/" + t, "lib/" + t}, dirs...)
	}
	return dirs
}

// fits adds the file at p if it is an ELF file for o's machine.
func (s *selector) fits(o *object, p string) bool {
	f, err := s.root.Resolve(p)
	if err != nil || !f.Mode.IsRegular() {
		return false
	}
	r, err := f.Open()
	if err != nil {
		s.fail("reading %s: %v", by(f), err)
		return false
	}
	defer r.Close()
	head := make([]byte, 20)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) != "\x7fELF" {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if elf.Class(head[elf.EI_CLASS]) != o.class || elf.Machine(order.Uint16(head[18:])) != o.machine {
		return false
	}
	_, ok := s.add(p, by(o.file))
	return ok
}

// configured returns the directories of ld.so.conf.
func (s *selector) configured() []string {
	if !s.confRead {
		s.confRead = true
		s.confDirs = s.readConf("etc/ld.so.conf", 0)
	}
	return s.confDirs
}

// maxInclude bounds how deep configuration files include each other.
const maxInclude = 8

func (s *selector) readConf(p string, depth int) []string {
	b, err := s.root.ReadFile(p)
	if err != nil || depth > maxInclude {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "include":
			pattern := words[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(p), pattern)
			}
			found, err := s.root.Glob(strings.TrimPrefix(path.Clean(pattern), "/"))
			if err != nil {
				s.fail("reading /%s: %v", p, err)
			}
			for _, f := range found {
				dirs = append(dirs, s.readConf(f.Path, depth+1)...)
			}
		case len(words) == 1 && path.IsAbs(words[0]):
			dirs = append(dirs, strings.TrimPrefix(path.Clean(words[0]), "/"))
		}
	}
	return dirs
}

// dlopen is an entry of the ELF dlopen metadata.
type dlopen struct {
	Feature  string   `json:"feature"`
	Priority string   `json:"priority"` // required, recommended or suggested
	Soname   []string `json:"soname"`   // the first that is there is taken
}

// noteDlopen is the type of a note with such metadata; its owner is "FDO".
const noteDlopen = 0x407c0c0a

// parseNotes returns the dlopen metadata of a segment of notes. What is not one
// is passed over; so is what follows a note with impossible sizes.
func parseNotes(b []byte, order binary.ByteOrder) ([]dlopen, error) {
	var out []dlopen
	for len(b) >= 12 {
		name, desc, kind := uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint32(b[8:])
		descAt := 12 + (name+3)&^3
		end := descAt + desc
		if end > uint64(len(b)) {
			return out, nil
		}
		if kind == noteDlopen && string(b[12:12+name]) == "FDO\x00" {
			d, err := parseDlopen(b[descAt:end])
			if err != nil {
				return nil, fmt.Errorf("dlopen note: %w", err)
			}
			out = append(out, d...)
		}
		b = b[min((end+3)&^3, uint64(len(b))):]
	}
	return out, nil
}

func parseDlopen(b []byte) ([]dlopen, error) {
	var out []dlopen
	if err := json.Unmarshal(bytes.TrimRight(b, "\x00"), &out); err != nil {
		return nil, err
	}
	for i, d := range out {
		switch d.Priority {
		case "":
			out[i].Priority = "recommended"
		case "required", "recommended", "suggested":
		default:
			return nil, fmt.Errorf("priority %q is not known", d.Priority)
		}
		if len(d.Soname) == 0 {
			return nil, errors.New("entry without soname")
		}
	}
	return out, nil
}
