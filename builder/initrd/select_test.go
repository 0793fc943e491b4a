package initrd

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
)

// bin describes an ELF file for [elfFile].
type bin struct {
	needed  []string
	runpath string
	rpath   string
	interp  string
	note    string // JSON of a dlopen note
	machine elf.Machine
}

// elfFile makes an ELF file with headers, dynamic section and notes, and
// nothing to run.
func elfFile(b bin) []byte {
	le := binary.LittleEndian
	strs := []byte{0}
	str := func(s string) uint64 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint64(at)
	}
	var dyn []byte
	tag := func(tag elf.DynTag, v uint64) {
		dyn = le.AppendUint64(le.AppendUint64(dyn, uint64(tag)), v)
	}
	for _, n := range b.needed {
		tag(elf.DT_NEEDED, str(n))
	}
	if b.runpath != "" {
		tag(elf.DT_RUNPATH, str(b.runpath))
	}
	if b.rpath != "" {
		tag(elf.DT_RPATH, str(b.rpath))
	}
	tag(elf.DT_NULL, 0)
	var note []byte
	if b.note != "" {
		note = append(note, elfNote(1, "GNU\x00", "id")...)
		note = append(note, elfNote(noteDlopen, "FDO\x00", b.note+"\x00")...)
	}
	var progs []elf.Prog64
	body := make([]byte, 64+2*56)
	put := func(c []byte) (off uint64) {
		off = uint64(len(body))
		body = append(body, c...)
		body = append(body, make([]byte, -len(body)&7)...)
		return off
	}
	for _, p := range []struct {
		kind elf.ProgType
		b    []byte
	}{{elf.PT_INTERP, []byte(b.interp + "\x00")}, {elf.PT_NOTE, note}} {
		if len(p.b) > 1 {
			progs = append(progs, elf.Prog64{Type: uint32(p.kind), Off: put(p.b), Filesz: uint64(len(p.b))})
		}
	}
	dynAt, strAt := put(dyn), put(strs)
	shstr := []byte("\x00.dynamic\x00.dynstr\x00.shstrtab\x00")
	shstrAt := put(shstr)
	sections := []elf.Section64{{}, {
		Name: 1, Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint64(len(dyn)), Link: 2, Entsize: 16,
	}, {Name: 10, Type: uint32(elf.SHT_STRTAB), Off: strAt, Size: uint64(len(strs))},
		{Name: 18, Type: uint32(elf.SHT_STRTAB), Off: shstrAt, Size: uint64(len(shstr))}}
	machine := b.machine
	if machine == 0 {
		machine = elf.EM_X86_64
	}
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)),
		Shoff: uint64(len(body)), Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	encode := func(at int, v any) {
		var w bytes.Buffer
		binary.Write(&w, le, v)
		copy(body[at:], w.Bytes())
	}
	encode(0, h)
	for i, p := range progs {
		encode(64+56*i, p)
	}
	for _, s := range sections {
		at := len(body)
		body = append(body, make([]byte, 64)...)
		encode(at, s)
	}
	return body
}

func elfNote(kind uint32, name, desc string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = append(le.AppendUint32(b, kind), name...)
	b = append(append(b, make([]byte, -len(b)&3)...), desc...)
	return append(b, make([]byte, -len(b)&3)...)
}

func exe(p string, b bin) layers.File { return layers.Regular(p, 0o755, "deb:"+p, elfFile(b)) }
func text(p, s string) layers.File    { return layers.Regular(p, 0o755, "deb:"+p, []byte(s)) }

const lib = "usr/lib/x86_64-linux-gnu/"
const mods = "usr/lib/modules/6.12/"

// host is a small operating system.
func host(t testing.TB, more ...layers.File) *layers.Tree {
	base := []layers.File{
		layers.Symlink("bin", "usr/bin", "deb:base"),
		layers.Symlink("lib", "usr/lib", "deb:base"),
		layers.Symlink("lib64", "usr/lib64", "deb:base"),
		layers.Dir("run", 0o755, "deb:base"),
		exe(lib+"ld-linux-x86-64.so.2", bin{}),
		layers.Symlink("usr/lib64/ld-linux-x86-64.so.2", "/"+lib+"ld-linux-x86-64.so.2", "deb:libc"),
		exe(lib+"libc.so.6", bin{needed: []string{"ld-linux-x86-64.so.2"}}),
		exe("usr/bin/dash", bin{needed: []string{"libc.so.6"}, interp: "/lib64/ld-linux-x86-64.so.2"}),
		layers.Symlink("usr/bin/sh", "dash", "deb:dash"),
		text("usr/bin/env", "a program"),
		text("usr/bin/script", "#! /bin/sh -e\nexit\n"),
		text("usr/bin/python", "#!/usr/bin/env -S LANG=C dash\n"),
		exe(lib+"systemd/libshared.so", bin{needed: []string{"libc.so.6"}, runpath: "/" + lib + "systemd",
			note: `[{"feature":"a","priority":"required","soname":["libreq.so.9","libreq.so.1"]},{"feature":"b","priority":"recommended","soname":["librec.so.1"]},
				{"feature":"b","soname":["libgone.so.1"]},{"feature":"c","priority":"suggested","soname":["libsug.so.1"]}]`}),
		exe(lib+"systemd/libcore.so", bin{needed: []string{"libshared.so"}}), // which the program has loaded
		exe("usr/bin/pid1", bin{needed: []string{"libcore.so", "libshared.so"}, runpath: "/" + lib + "systemd", interp: "/lib64/ld-linux-x86-64.so.2"}),
		exe("usr/bin/systemctl", bin{needed: []string{"libshared.so"}, runpath: "/" + lib + "systemd"}),
		exe(lib+"libreq.so.1.2", bin{}), layers.Symlink(lib+"libreq.so.1", "libreq.so.1.2", "deb:req"),
		exe(lib+"librec.so.1", bin{}), exe(lib+"libsug.so.1", bin{}),
		exe("opt/app/bin/app", bin{needed: []string{"libapp.so"}, rpath: "/nowhere:${ORIGIN}/../lib"}),
		exe("opt/app/lib/libapp.so", bin{machine: elf.EM_AARCH64}), // of another machine: must be passed over
		exe("usr/lib/libapp.so", bin{}),
		text("etc/ld.so.conf", "# comment\ninclude ld.so.conf.d/*.conf\n"), text("etc/ld.so.conf.d/x.conf", "/opt/conf # ours\n"), text("etc/ld.so.cache", "cache"),
		exe("opt/conf/libconf.so", bin{}), exe("usr/bin/conf", bin{needed: []string{"libconf.so"}}),
		layers.Symlink("etc/resolv.conf", "../run/resolve/resolv.conf", "spec"),
		text(`etc/a\x2db`, "1"), text("etc/d/one.rules", "1"), text("etc/d/two.rules", "2"), text("etc/d/three.txt", "3"),
		layers.Symlink("etc/masked", "/dev/null", "deb:base"),
		text(mods+"modules.dep", "kernel/fs/erofs.ko.xz: kernel/lib/crc.ko.xz kernel/lib/lz4.ko.xz\nkernel/lib/crc.ko.xz:\nkernel/lib/lz4.ko.xz:\nkernel/dm-mod.ko.xz:\nkernel/dm-verity.ko.xz: kernel/dm-mod.ko.xz\nkernel/crc-fast.ko.xz:\n"),
		text(mods+"modules.builtin", "kernel/virtio.ko\n"),
		text(mods+"modules.softdep", "softdep crc pre: crc32c gone\n"),
		text(mods+"modules.alias", "alias crc32c crc_fast\nalias fs-erofs erofs\n"),
		text(mods+"kernel/fs/erofs.ko.xz", "x"), text(mods+"kernel/lib/crc.ko.xz", "x"), text(mods+"kernel/lib/lz4.ko.xz", "x"),
		text(mods+"kernel/dm-mod.ko.xz", "x"), text(mods+"kernel/dm-verity.ko.xz", "x"), text(mods+"kernel/crc-fast.ko.xz", "x"),
	}
	return tree(t, append(base, more...)...)
}

// paths lists what is not a directory, with short forms of the long paths.
func paths(tr *layers.Tree) string {
	var out []string
	for f := range tr.Files() {
		if !f.Mode.IsDir() {
			out = append(out, strings.NewReplacer(lib, "L/", mods, "M/").Replace(f.Path))
		}
	}
	return strings.Join(out, " ")
}

func TestSelect(t *testing.T) {
	const libc = "L/ld-linux-x86-64.so.2 L/libc.so.6"
	const dash = " usr/bin/dash lib64 usr/lib64/ld-linux-x86-64.so.2 " + libc
	const index = " M/modules.alias M/modules.builtin M/modules.dep M/modules.softdep"
	for _, tc := range []struct {
		name    string
		want    []string
		modules []string
		o       SelectOptions
		result  string
	}{
		{"a file", []string{"/etc/d/three.txt"}, nil, SelectOptions{}, "etc/d/three.txt"},
		{"a pattern", []string{"etc/d/*.rules"}, nil, SelectOptions{}, "etc/d/one.rules etc/d/two.rules"},
		{"a directory", []string{"etc/d"}, nil, SelectOptions{}, "etc/d/one.rules etc/d/three.txt etc/d/two.rules"},
		{"a pattern for a directory", []string{"etc/[d]"}, nil, SelectOptions{}, "etc/d/one.rules etc/d/three.txt etc/d/two.rules"},
		{"a link to a directory", []string{"bin"}, nil, SelectOptions{}, "bin"},
		{"backslash", []string{`etc/a\\x2d*`}, nil, SelectOptions{}, `etc/a\x2db`},
		{"link, interpreter, library", []string{"bin/sh"}, nil, SelectOptions{}, "bin usr/bin/sh" + dash},
		{"script", []string{"/usr/bin/script"}, nil, SelectOptions{}, "bin usr/bin/sh usr/bin/script" + dash},
		{"env script", []string{"/usr/bin/python"}, nil, SelectOptions{}, "usr/bin/env usr/bin/python" + dash},
		{"pattern below a link", []string{"/bin/das?"}, nil, SelectOptions{}, "bin" + dash},
		{"run path and notes", []string{"usr/bin/systemctl"}, nil, SelectOptions{}, "usr/bin/systemctl " + libc + " L/librec.so.1 L/libreq.so.1 L/libreq.so.1.2 L/systemd/libshared.so"},
		{"a library that is loaded already", []string{"usr/bin/pid1"}, nil, SelectOptions{}, "usr/bin/pid1 L/systemd/libcore.so lib64 usr/lib64/ld-linux-x86-64.so.2 " + libc + " L/librec.so.1 L/libreq.so.1 L/libreq.so.1.2 L/systemd/libshared.so"},
		{"suggested", []string{"usr/bin/systemctl"}, nil, SelectOptions{Suggested: true}, "usr/bin/systemctl " + libc + " L/librec.so.1 L/libreq.so.1 L/libreq.so.1.2 L/libsug.so.1 L/systemd/libshared.so"},
		{"wrong machine in $ORIGIN", []string{"opt/app/bin/app"}, nil, SelectOptions{}, "opt/app/bin/app usr/lib/libapp.so"},
		{"ld.so.conf", []string{"usr/bin/conf"}, nil, SelectOptions{}, "etc/ld.so.cache opt/conf/libconf.so usr/bin/conf"},
		{"links to run-time files", []string{"etc/resolv.conf", "etc/masked"}, nil, SelectOptions{}, "etc/masked etc/resolv.conf"},
		{"modules", nil, []string{"erofs"}, SelectOptions{}, "M/kernel/crc-fast.ko.xz M/kernel/fs/erofs.ko.xz M/kernel/lib/crc.ko.xz M/kernel/lib/lz4.ko.xz" + index},
		{"module by alias", nil, []string{"fs-erofs"}, SelectOptions{Kernel: "6.12"}, "M/kernel/crc-fast.ko.xz M/kernel/fs/erofs.ko.xz M/kernel/lib/crc.ko.xz M/kernel/lib/lz4.ko.xz" + index},
		{"dashes", nil, []string{"dm_verity"}, SelectOptions{}, "M/kernel/dm-mod.ko.xz M/kernel/dm-verity.ko.xz" + index},
		{"part of the kernel", nil, []string{"virtio"}, SelectOptions{}, strings.TrimSpace(index)},
	} {
		got, err := Select(host(t), tc.want, tc.modules, tc.o)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if g, w := words(paths(got)), words(tc.result); !slices.Equal(g, w) {
			t.Errorf("%s: selected\n%s\nwant\n%s", tc.name, g, w)
		}
	}
}

func words(s string) []string {
	w := strings.Fields(s)
	slices.Sort(w)
	return w
}

func TestSelectErrors(t *testing.T) {
	more := []layers.File{
		exe("usr/bin/broken", bin{needed: []string{"libnone.so.1"}, interp: "/lib/ld-none.so"}),
		exe("usr/bin/required", bin{note: `[{"feature":"crypto","priority":"required","soname":["liba.so","libb.so"]}]`}),
		exe("usr/bin/badnote", bin{note: `{`}),
		exe("usr/bin/badpriority", bin{note: `[{"priority":"vital","soname":["x"]}]`}),
		text("usr/bin/perl", "#!/usr/bin/perl5\n"),
		text("usr/bin/envperl", "#!/usr/bin/env perl6\n"),
		text("usr/bin/notelf", "\x7fELF junk"),
		layers.Symlink("etc/dangling", "nothing", "deb:x"),
		layers.Symlink("etc/loop", "loop", "deb:x"),
	}
	for _, tc := range []struct {
		want   string
		module string
		err    string
	}{
		{"usr/bin/none", "", `/usr/bin/none is missing; the selection "usr/bin/none" wants it`},
		{"usr/bin/*.none", "", `nothing matches the selection "usr/bin/*.none"`},
		{"usr/[", "", "syntax error in pattern"},
		{"usr/bin/broken", "", "/usr/lib/ld-none.so is missing, where /lib/ld-none.so leads; /usr/bin/broken of deb:usr/bin/broken wants it\nlibrary libnone.so.1 is missing; /usr/bin/broken of deb:usr/bin/broken wants it"},
		{lib + "systemd/libcore.so", "", "library libshared.so is missing; /" + lib + "systemd/libcore.so of deb:"},
		{"usr/bin/required", "", "library liba.so or libb.so is missing; /usr/bin/required of deb:usr/bin/required wants it for crypto"},
		{"usr/bin/badnote", "", "reading /usr/bin/badnote of deb:usr/bin/badnote: dlopen note: unexpected end"},
		{"usr/bin/badpriority", "", `priority "vital" is not known`},
		{"usr/bin/perl", "", "/usr/bin/perl5 is missing; /usr/bin/perl of deb:usr/bin/perl wants it"},
		{"usr/bin/envperl", "", "perl6 is missing from the directories of programs; /usr/bin/envperl"},
		{"usr/bin/notelf", "", "reading /usr/bin/notelf of deb:usr/bin/notelf: "},
		{"etc/dangling", "", `/etc/nothing is missing, where /etc/dangling leads; the selection "etc/dangling" wants it`},
		{"etc/loop", "", "/etc/loop: too many symbolic links"},
		{"etc/d", "nomodule", `kernel module nomodule is missing from /usr/lib/modules/6.12; the selection of modules "nomodule" wants it`},
	} {
		var modules []string
		if tc.module != "" {
			modules = []string{tc.module}
		}
		_, err := Select(host(t, more...), []string{tc.want}, modules, SelectOptions{})
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s%s: error %v, want %q", tc.want, tc.module, err, tc.err)
		}
	}
	if _, err := Select(host(t), nil, []string{"x"}, SelectOptions{Kernel: "7"}); err == nil || !strings.Contains(err.Error(), "usr/lib/modules/7/modules.dep") {
		t.Errorf("missing kernel: %v", err)
	}
	if _, err := Select(host(t, layers.Dir("usr/lib/modules/7", 0o755, "o")), nil, []string{"x"}, SelectOptions{}); err == nil || !strings.Contains(err.Error(), "modules for 2 kernels") {
		t.Errorf("two kernels: %v", err)
	}
}

func FuzzELF(f *testing.F) {
	f.Add(elfFile(bin{needed: []string{"libc.so.6", "/x"}, runpath: "$ORIGIN:${LIB}", interp: "/lib/ld", note: `[{"soname":["a"]}]`}))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add([]byte("#!/bin/sh"))
	root := host(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &selector{root: root, keep: map[string]bool{}, problems: map[string]bool{}}
		s.scan(layers.Regular("fuzz", 0o755, "o", b))
	})
}

func FuzzNotes(f *testing.F) {
	f.Add(elfNote(noteDlopen, "FDO\x00", `[{"feature":"a","soname":["b"]}]`))
	f.Add(elfNote(1, "GNU\x00", "id"))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseNotes(b, binary.LittleEndian)
	})
}

func FuzzModules(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n", "softdep a pre: b post: a\n", "alias x* a\nalias [ b\n", "a")
	f.Fuzz(func(t *testing.T, dep, soft, alias, name string) {
		if len(dep)+len(soft)+len(alias)+len(name) > 1<<12 {
			return
		}
		root, err := layers.Merge(layers.Of("fuzz", "", text(mods+"modules.dep", dep), text(mods+"modules.softdep", soft), text(mods+"modules.alias", alias)))
		if err != nil {
			t.Fatal(err)
		}
		Select(root, nil, []string{name}, SelectOptions{})
	})
}
