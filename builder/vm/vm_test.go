package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// valid is a machine that passes Check.
func valid() Machine {
	return Machine{Dir: "/dir", Clock: time.Now, Disk: "disk.raw"}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Machine)
		want   string // part of the error; "" for none
	}{
		{"valid", func(m *Machine) {}, ""},
		{"CD alone", func(m *Machine) { m.Disk, m.CD = "", "cd.iso" }, ""},
		{"kernel alone", func(m *Machine) { m.Disk, m.Kernel = "", "vmlinuz" }, ""},
		{"no directory", func(m *Machine) { m.Dir = "" }, "no directory"},
		{"no clock", func(m *Machine) { m.Clock = nil }, "no clock"},
		{"nothing to boot", func(m *Machine) { m.Disk = "" }, "nothing to boot"},
		{"two overlays", func(m *Machine) { m.Overlay, m.Snapshot = "o", true }, "both an overlay"},
		{"overlay of nothing", func(m *Machine) { m.Disk, m.Kernel, m.Snapshot = "", "k", true }, "no disk"},
		{"grown image", func(m *Machine) { m.DiskSize = 1 << 30 }, "use an overlay"},
		{"odd size", func(m *Machine) { m.DiskSize, m.Snapshot = 1000, true }, "multiple of 512"},
		{"negative memory", func(m *Machine) { m.Memory = -1 }, "positive"},
		{"accelerator", func(m *Machine) { m.Accel = "xen" }, `"xen"`},
		{"credential name", func(m *Machine) { m.Credentials = map[string]string{"a b": "c"} }, `"a b"`},
		{"fw_cfg name", func(m *Machine) { m.FwCfg = map[string]string{"etc/x": ""} }, "below opt/"},
		{"cable and forwards", func(m *Machine) { m.Cable, m.Forwards = os.Stdin, []Forward{{Guest: 22}} }, "its switch has those"},
		{"hardware address", func(m *Machine) { m.MAC = "52:54:00" }, "52:54:00:12:34:56"},
		{"port range", func(m *Machine) { m.Forwards = []Forward{{Guest: 70000}} }, "out of range"},
		{"port name", func(m *Machine) { m.Ports = []string{"a,b"} }, `"a,b"`},
	} {
		m := valid()
		tc.change(&m)
		err := m.Check()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestArgs shows the whole command line once, an option a line.
func TestArgs(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "a,b.raw")
	if err := os.WriteFile(disk, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Machine{
		Forwards: []Forward{{Guest: 6443}, {Host: 2222, Guest: 22}}, Ports: []string{"test"},
		Kernel: "vmlinuz", Cmdline: "a=b,c", Unsafe: true, CD: "cd,1.iso",
	}
	args, err := m.args(plan{
		code: "code.fd", vars: "vars.fd", disk: disk, strings: []string{"s0"},
		fwCfg: []item{{ignitionItem, "i,gn"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(strings.Join(args, " "), " -", "\n-")
	got = strings.ReplaceAll(got, dir, "DIR")
	want := `-nodefaults
-no-user-config
-display none
-S
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny
-machine q35,vmport=off,usb=off,sata=off,smbus=off
-boot strict=on
-rtc base=utc
-m 3072
-smp 2
-object rng-builtin,id=rng
-device virtio-rng-pci,rng=rng
-add-fd fd=3,set=1
-chardev file,id=console,append=on,path=/dev/fdset/1
-serial chardev:console
-chardev socket,id=qmp,fd=4
-mon chardev=qmp,mode=control
-drive if=pflash,format=raw,unit=0,readonly=on,file=code.fd
-drive if=pflash,format=raw,unit=1,file=vars.fd
-accel tcg,thread=multi,tb-size=1024
-cpu max,-cx16
-device virtio-scsi-pci,id=scsi
-drive if=none,id=cd,media=cdrom,format=raw,readonly=on,file=cd,,1.iso
-device scsi-cd,bus=scsi.0,drive=cd,bootindex=1
-drive if=none,id=disk0,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file=DIR/a,,b.raw
-device virtio-blk-pci,drive=disk0,serial=disk0,bootindex=2
-kernel vmlinuz
-append a=b,c
-netdev user,id=net,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:0-:6443,hostfwd=tcp:127.0.0.1:2222-:22
-device virtio-net-pci,netdev=net,romfile=
-device virtio-serial-pci,id=ports
-chardev socket,id=port0,fd=5
-device virtserialport,bus=ports.0,chardev=port0,name=test
-smbios type=11,path=s0
-fw_cfg name=opt/com.coreos/config,file=i,,gn`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStrings(t *testing.T) {
	m := Machine{Dir: t.TempDir(), PodCIDR: "10.244.1.0/24", Credentials: map[string]string{"a": "x\ny"}, KernelArgs: "q=1,2"}
	files, err := m.writeStrings()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	want := "io.systemd.credential.binary:a=eAp5\n" +
		"io.systemd.credential.binary:kscratch.pod-cidr=MTAuMjQ0LjEuMC8yNA==\n" +
		"io.systemd.stub.kernel-cmdline-extra=q=1,2"
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
}

func TestMissingTools(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Machine)
		want   string
	}{
		{"no QEMU", func(m *Machine) { m.QEMU = "/nowhere/qemu" }, "apt-get install qemu-system-x86"},
		{"half a firmware", func(m *Machine) { m.QEMU, m.Code = "/bin/true", "code.fd" }, "belong together"},
	} {
		m := valid()
		tc.change(&m)
		if _, err := Start(t.Context(), m); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.raw")
	if err := os.WriteFile(base, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.raw")
	if err := os.Link(base, other); err != nil {
		t.Fatal(err)
	}
	m := Machine{Dir: dir, Disk: base, Overlay: filepath.Join(dir, "o.qcow2"), DiskSize: 64 << 30}
	for range 2 { // made, then found
		p, err := m.prepareDisk()
		if err != nil {
			t.Fatal(err)
		}
		got, err := inspect(p)
		if err != nil {
			t.Fatal(err)
		}
		build, err := stamp(base)
		if err != nil {
			t.Fatal(err)
		}
		if want := (diskImage{"qcow2", 64 << 30, base, build}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	m.Disk = other
	if _, err := m.prepareDisk(); err == nil || !strings.Contains(err.Error(), "belongs to the image") {
		t.Errorf("overlay of another image: got %v", err)
	}
	m.Disk = base
	if err := os.Chtimes(base, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.prepareDisk(); err == nil || !strings.Contains(err.Error(), "another build of") {
		t.Errorf("overlay of another build: got %v", err)
	}
	if err := CreateOverlay(filepath.Join(dir, "small"), base, 512); err == nil {
		t.Error("an overlay smaller than its image was made")
	}
	if err := CreateOverlay(m.Overlay, base, 0); err == nil {
		t.Error("an existing overlay was replaced")
	}
}

func TestParseImage(t *testing.T) {
	qcow2, _, err := overlayHeader(diskImage{"raw", 1 << 20, "/base", "1 2"})
	if err != nil {
		t.Fatal(err)
	}
	with := func(off int, b ...byte) []byte {
		c := bytes.Clone(qcow2)
		copy(c[off:], b)
		return c
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"qcow2", qcow2, "qcow2 1048576 /base"},
		{"raw", make([]byte, 512), "raw 512 "},
		{"empty", nil, "size 0 "},
		{"odd", make([]byte, 513), "size 513 "},
		{"vmdk", []byte("KDMV"), "VMware"},
		{"truncated", qcow2[:50], "unexpected EOF"},
		{"version 1", with(7, 1), "version 1"},
		{"long name", with(16, 0xff), "out of range"},
		{"far name", with(8, 0xff), "out of range"},
		{"negative size", with(24, 0xff), "out of range"},
	} {
		im, err := parseImage(bytes.NewReader(tc.b), int64(len(tc.b)))
		got := im.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	qcow2, _, err := overlayHeader(diskImage{"raw", 1 << 20, "/base", "1 2"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(qcow2[:200])
	f.Add([]byte("KDMV"))
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := parseImage(bytes.NewReader(b), int64(len(b)))
		if err == nil && (im.size < 0 || im.format == "" || len(im.backing) > maxBackingName) {
			t.Errorf("accepted %v", im)
		}
	})
}

// TestMonitor speaks QMP with a peer that answers out of order.
func TestMonitor(t *testing.T) {
	ours, theirs := net.Pipe()
	events := make(chan Event, 1)
	q := newMonitor(ours, func(e Event) { events <- e })
	go func() {
		io.WriteString(theirs, `{"QMP": {"version": {}}}`+"\n")
		r := bufio.NewScanner(theirs)
		for r.Scan() {
			var c command
			if json.Unmarshal(r.Bytes(), &c) != nil {
				return
			}
			id := string(json.RawMessage(mustJSON(c.ID)))
			switch c.Execute {
			case "fail":
				io.WriteString(theirs, `{"error": {"class": "GenericError", "desc": "no such thing"}, "id": `+id+`}`)
			case "die":
				theirs.Close()
			default:
				io.WriteString(theirs, `{"event": "RESET", "data": {"guest": true}} {"return": "`+c.Execute+`", "id": `+id+`}`)
			}
		}
	}()
	ctx := t.Context()
	if err := q.hello(ctx); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Name != "RESET" || string(e.Data) != `{"guest": true}` {
		t.Errorf("got event %s %s", e.Name, e.Data)
	}
	if _, err := q.do(ctx, "fail", nil); err == nil || !strings.Contains(err.Error(), "GenericError: no such thing") {
		t.Errorf("got %v", err)
	}
	if _, err := q.do(ctx, "die", nil); !errors.Is(err, errGone) {
		t.Errorf("got %v, want errGone", err)
	}
	if _, err := q.do(ctx, "more", nil); !errors.Is(err, errGone) {
		t.Errorf("got %v, want errGone", err)
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func TestConsole(t *testing.T) {
	var raw, log strings.Builder
	var now time.Duration
	c := newConsole(func() time.Duration { now += 1500 * time.Millisecond; return now }, &raw, &log)
	in := "\x1b[2J\x1b[01;01HBdsDxe: starting\r\n[\x1b[0;32m  OK  \x1b[0m] Started \xff.\r\nhalf" + "\x1b]0;title\x07 a line\npartial"
	for _, b := range []byte(in) {
		c.Write([]byte{b})
	}
	if err := c.end(); err != nil {
		t.Fatal(err)
	}
	want := "[   1.500] BdsDxe: starting\n[   3.000] [  OK  ] Started \ufffd.\n[   4.500] half a line\n[   6.000] partial\n"
	if log.String() != want || raw.String() != in || c.Tail(10) != want {
		t.Errorf("got\n%s\nwant\n%s", log.String(), want)
	}
	if c.Tail(1) != "[   6.000] partial\n" {
		t.Errorf("tail: got %q", c.Tail(1))
	}
	c.Write([]byte(strings.Repeat("x", 3*maxLine)))
	if n := len(c.Lines()); n != 4+3 {
		t.Errorf("a long line makes %d lines, want 3", n-4)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	c := newConsole(func() time.Duration { return 0 }, nil, nil)
	c.Write(bytes.Repeat([]byte("y\n"), maxLines+10))
	ls, next, _, _ := c.since(0)
	if len(ls) > maxLines || next != maxLines+10 {
		t.Errorf("%d lines are kept, next is %d", len(ls), next)
	}
	if ls, _, _, _ = c.since(next - 2); len(ls) != 2 {
		t.Errorf("got %d lines, want 2", len(ls))
	}
}

func TestWaitFor(t *testing.T) {
	c := newConsole(func() time.Duration { return time.Second }, nil, nil)
	re := regexp.MustCompile("needle")
	go func() { c.Write([]byte("hay\nneedle\n")) }()
	if l, err := c.WaitFor(t.Context(), re); err != nil || l.Text != "needle" {
		t.Errorf("got %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.WaitAfter(ctx, 2*time.Second, re); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "hay") {
		t.Errorf("got %v, want cancelled with the console", err)
	}
	c.end()
	if _, err := c.WaitAfter(t.Context(), 2*time.Second, re); err == nil || !strings.Contains(err.Error(), "machine ended") {
		t.Errorf("got %v", err)
	}
}
