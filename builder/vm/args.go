package vm

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// plan is a machine whose files are in place: what the command line says.
type plan struct {
	kvm        bool
	code, vars string   // firmware
	disk       string   // of the boot disk, "" without one
	extra      []string // further disks
	strings    []string // files with an SMBIOS type 11 string each
	fwCfg      []item
}

// item is a fw_cfg item and the file that holds its content.
type item struct{ name, file string }

// firstFD is the number that the first inherited socket has in QEMU.
const firstFD = 3

// args returns QEMU's command line. The console is inherited as descriptor 3,
// QMP as 4, and the ports of m and its cable after them.
//
// The console is a pipe. QEMU writes it a byte at a time, and drops bytes when
// it cannot: a socket's buffer is full after a few hundred such writes, a pipe
// counts bytes.
func (m Machine) args(p plan) ([]string, error) {
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny",
		"-machine", "q35,vmport=off,usb=off,sata=off,smbus=off", "-boot", "strict=on", "-rtc", "base=utc",
		"-m", strconv.Itoa(or(m.Memory, defaultMemory)), "-smp", strconv.Itoa(or(m.CPUs, defaultCPUs)),
		"-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng",
		"-add-fd", fmt.Sprintf("fd=%d,set=1", firstFD), "-chardev", "file,id=console,append=on,path=/dev/fdset/1",
		"-serial", "chardev:console",
		"-chardev", socket("qmp", firstFD+1), "-mon", "chardev=qmp,mode=control",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + escape(p.code),
		"-drive", "if=pflash,format=raw,unit=1,file=" + escape(p.vars),
	}
	a = append(a, accelArgs(p.kvm)...)
	disks, err := m.diskArgs(p)
	if err != nil {
		return nil, err
	}
	a = append(a, disks...)
	a = append(a, m.kernelArgs()...)
	a = append(a, m.netArgs()...)
	a = append(a, m.portArgs()...)
	for _, s := range p.strings {
		a = append(a, "-smbios", "type=11,path="+escape(s))
	}
	for _, i := range p.fwCfg {
		a = append(a, "-fw_cfg", "name="+escape(i.name)+",file="+escape(i.file))
	}
	return a, nil
}

// accelArgs: TCG with several CPUs faults in cmpxchg16b, so that feature is
// taken away; a large translation cache saves it from translating twice.
//
// Tried and left out: -svm, without which QEMU 7.2 no longer reports CPUID leaf
// 0x80000008, so that Linux with five-level paging takes its own addresses for
// non-canonical ones; -erms,-fsrm, which made no measurable difference.
func accelArgs(kvm bool) []string {
	if kvm {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,-cx16"}
}

// diskArgs: boot index 0 is taken by -kernel, 1 by a CD.
func (m Machine) diskArgs(p plan) ([]string, error) {
	var a []string
	if m.CD != "" {
		a = append(a,
			"-device", "virtio-scsi-pci,id=scsi",
			"-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file="+escape(m.CD),
			"-device", "scsi-cd,bus=scsi.0,drive=cd,bootindex=1")
	}
	for i, path := range slices.Concat([]string{p.disk}, p.extra) {
		if path == "" {
			continue
		}
		im, err := inspect(path)
		if err != nil {
			return nil, err
		}
		id := "disk" + strconv.Itoa(i)
		a = append(a,
			"-drive", fmt.Sprintf("if=none,id=%s,format=%s,cache=%s,discard=unmap,detect-zeroes=unmap,file=%s",
				id, im.format, m.cacheMode(), escape(path)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,bootindex=%d", id, id, i+2))
	}
	return a, nil
}

func (m Machine) cacheMode() string {
	if m.Unsafe {
		return "unsafe"
	}
	return "writeback"
}

func (m Machine) kernelArgs() []string {
	var a []string
	for _, o := range [][2]string{{"-kernel", m.Kernel}, {"-initrd", m.Initrd}, {"-append", m.Cmdline}} {
		if o[1] != "" {
			a = append(a, o[0], o[1])
		}
	}
	return a
}

func (m Machine) netArgs() []string {
	restrict := "on"
	if m.Outbound {
		restrict = "off"
	}
	card := "virtio-net-pci,netdev=net,romfile="
	if m.MAC != "" {
		card += ",mac=" + m.MAC
	}
	if m.Cable != nil {
		cable := fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", firstFD+2+len(m.Ports))
		return []string{"-netdev", cable, "-device", card}
	}
	net := "user,id=net,ipv6=off,restrict=" + restrict
	for _, f := range m.Forwards {
		net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return []string{"-netdev", net, "-device", card}
}

func (m Machine) portArgs() []string {
	if len(m.Ports) == 0 {
		return nil
	}
	a := []string{"-device", "virtio-serial-pci,id=ports"}
	for i, name := range m.Ports {
		id := "port" + strconv.Itoa(i)
		a = append(a, "-chardev", socket(id, firstFD+2+i),
			"-device", fmt.Sprintf("virtserialport,bus=ports.0,chardev=%s,name=%s", id, name))
	}
	return a
}

func socket(id string, fd int) string { return fmt.Sprintf("socket,id=%s,fd=%d", id, fd) }

// escape doubles commas, as QEMU's option lists want it.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func or(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// writeStrings puts each SMBIOS type 11 string into a file of its own, so
// that no credential is on a command line that other users can read.
func (m Machine) writeStrings() ([]string, error) {
	var all []string
	creds := m.smbios()
	for _, name := range slices.Sorted(maps.Keys(creds)) {
		all = append(all, "io.systemd.credential.binary:"+name+"="+base64.StdEncoding.EncodeToString([]byte(creds[name])))
	}
	if m.KernelArgs != "" {
		all = append(all, "io.systemd.stub.kernel-cmdline-extra="+m.KernelArgs)
	}
	var files []string
	for i, s := range all {
		f := filepath.Join(m.Dir, "smbios-"+strconv.Itoa(i))
		if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
			return nil, fmt.Errorf("writing SMBIOS string: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// writeItems puts the fw_cfg items of m into files.
func (m Machine) writeItems() ([]item, error) {
	var items []item
	if m.Ignition != "" {
		items = append(items, item{ignitionItem, m.Ignition})
	}
	for i, name := range slices.Sorted(maps.Keys(m.FwCfg)) {
		f := filepath.Join(m.Dir, "fw_cfg-"+strconv.Itoa(i))
		if err := os.WriteFile(f, []byte(m.FwCfg[name]), 0o600); err != nil {
			return nil, fmt.Errorf("writing fw_cfg item %s: %w", name, err)
		}
		items = append(items, item{name, f})
	}
	return items, nil
}
