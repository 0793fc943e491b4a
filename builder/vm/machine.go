// Package vm runs a disk image in QEMU as an ordinary user: UEFI firmware
// (OVMF), virtio devices, a loopback-only network, and everything the guest
// says on its serial console with the time since power-on.
//
// A [Machine] describes the computer, [Start] powers it on and gives a [VM].
// [VM.WaitReady] polls the Kubernetes API of the guest through a forwarded
// loopback port. A [Denylist] knows the console lines that a healthy node never
// prints.
//
// KVM is used where a small machine runs to its end with it, otherwise QEMU's
// emulator (TCG). Host ports are chosen by the kernel while QEMU binds them, and
// all control channels are socket pairs that QEMU inherits, so that two machines
// started at once never meet. QEMU dies with the process that started it.
//
// Interfaces used: QEMU's command line and QMP
// (https://www.qemu.org/docs/master/interop/qmp-spec.html), systemd credentials
// in SMBIOS type 11 strings and fw_cfg (https://systemd.io/CREDENTIALS/), the
// extra kernel command line of systemd-stub(7), and qcow2 version 3 for
// overlays (https://www.qemu.org/docs/master/interop/qcow2.html).
//
// Not supported: architectures other than x86-64, Secure Boot firmware, BIOS
// boot, TPMs, bridged networks, images other than raw and qcow2, hosts other
// than Linux.
package vm

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"time"
)

// Accel says how guest instructions are executed.
type Accel string

// The accelerators. The zero value is AccelAuto.
const (
	AccelAuto Accel = ""    // KVM where it works, else TCG
	AccelKVM  Accel = "kvm" // hardware virtualisation; an error without it
	AccelTCG  Accel = "tcg" // emulation
)

// Forward is a TCP port of the host's loopback interface that leads to a port
// of the guest.
type Forward struct {
	Host  int // port on 127.0.0.1; 0 means any free one
	Guest int // port in the guest
}

// Firmware names the two halves of OVMF. The zero value means Debian's
// non-Secure-Boot build with 4 MiB flash and variables that are thrown away.
type Firmware struct {
	Code     string // read-only code volume
	Template string // variable store that a new machine starts from
	Vars     string // the machine's own variable store, made if missing and kept; empty: throw-away
}

// Machine describes a computer. Dir, Clock and a Disk, CD or Kernel are required;
// every other zero value works.
type Machine struct {
	Dir   string           // existing directory for files that end with the machine; private to it
	Clock func() time.Time // tells the time, for stamps relative to power-on: time.Now

	Disk     string // raw or qcow2 image
	DiskSize int64  // virtual size of a new overlay in bytes; 0 means that of the image
	Overlay  string // qcow2 file over Disk that takes all writes, made if missing and kept
	Snapshot bool   // writes go to an overlay that is removed when the machine ends
	Unsafe   bool   // ignore flushes: faster, loses data if the host (not the guest) goes down

	ExtraDisks []string // more raw or qcow2 images, written to directly

	CD string // image in a drive that the firmware tries before the disks

	Kernel  string // boot this kernel or UKI instead of the disk
	Initrd  string // initrd for Kernel
	Cmdline string // command line for Kernel

	Memory int // MiB; 0 means 3072
	CPUs   int // 0 means 2
	Accel  Accel
	QEMU   string // program; empty means qemu-system-x86_64 from PATH
	Firmware

	PodCIDR     string            // given as the SMBIOS credential kscratch.pod-cidr
	Credentials map[string]string // systemd system credentials, as SMBIOS type 11 strings
	FwCfg       map[string]string // fw_cfg items below opt/ by name, with their content
	KernelArgs  string            // appended to the UKI's command line by systemd-stub
	Ignition    string            // path of an Ignition configuration (fw_cfg opt/com.coreos/config)

	Forwards []Forward
	Outbound bool     // let the guest reach what the host reaches; default: loopback forwards alone
	Cable    *os.File // to a switch that speaks QEMU's frames, such as package lan's, in the place of Forwards and Outbound; Start closes it
	MAC      string   // hardware address of the network card; empty: QEMU's own choice, the same for every machine
	Ports    []string // names of virtio serial ports, see [VM.Port]

	Console    io.Writer // the serial console as it comes; may be nil
	Transcript io.Writer // the serial console, a stamped line each; may be nil
	Log        *slog.Logger
}

const (
	defaultMemory = 3072 // MiB
	defaultCPUs   = 2

	podCIDRCredential = "kscratch.pod-cidr"
	ignitionItem      = "opt/com.coreos/config"
)

// fwCfgName is what QEMU accepts: printable, below opt/, at most 55 bytes.
var fwCfgName = regexp.MustCompile(`^opt/[A-Za-z0-9._/-]{1,51}$`)

// credentialName is what systemd accepts for the name of a credential.
var macAddress = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)

var credentialName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)

// Check reports the first thing about m that no QEMU can run.
func (m Machine) Check() error {
	switch {
	case m.Dir == "":
		return fmt.Errorf("machine has no directory: set Dir")
	case m.Clock == nil:
		return fmt.Errorf("machine has no clock: set Clock")
	case m.Disk == "" && m.Kernel == "" && m.CD == "":
		return fmt.Errorf("machine has nothing to boot: set Disk, CD or Kernel")
	case m.Overlay != "" && m.Snapshot:
		return fmt.Errorf("machine has both an overlay that is kept and one that is not")
	case m.Disk == "" && (m.Overlay != "" || m.Snapshot || m.DiskSize != 0):
		return fmt.Errorf("machine has an overlay or a disk size but no disk")
	case m.DiskSize != 0 && m.Overlay == "" && !m.Snapshot:
		return fmt.Errorf("machine has a disk size but writes to %s itself: use an overlay", m.Disk)
	case m.DiskSize < 0 || m.DiskSize%sectorSize != 0:
		return fmt.Errorf("disk size %d: want a positive multiple of %d bytes", m.DiskSize, sectorSize)
	case m.Memory < 0 || m.CPUs < 0:
		return fmt.Errorf("machine with %d MiB memory and %d CPUs: want positive numbers", m.Memory, m.CPUs)
	case m.Cable != nil && (len(m.Forwards) > 0 || m.Outbound):
		return fmt.Errorf("machine on a switch with forwarded ports or a way out: its switch has those")
	case m.MAC != "" && !macAddress.MatchString(m.MAC):
		return fmt.Errorf("hardware address %q: want one such as 52:54:00:12:34:56", m.MAC)
	case m.Accel != AccelAuto && m.Accel != AccelKVM && m.Accel != AccelTCG:
		return fmt.Errorf("accelerator %q: want kvm or tcg", m.Accel)
	}
	return m.checkNames()
}

func (m Machine) checkNames() error {
	for name, value := range m.smbios() {
		if !credentialName.MatchString(name) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("credential %q: want a name of letters, digits, dots, dashes and a value without NUL", name)
		}
	}
	for name := range m.FwCfg {
		if !fwCfgName.MatchString(name) {
			return fmt.Errorf("fw_cfg item %q: want a name below opt/ of at most 55 bytes", name)
		}
	}
	for _, f := range m.Forwards {
		if f.Guest < 1 || f.Guest > 65535 || f.Host < 0 || f.Host > 65535 {
			return fmt.Errorf("forward of host port %d to guest port %d: out of range", f.Host, f.Guest)
		}
	}
	for _, p := range m.Ports {
		if !credentialName.MatchString(p) {
			return fmt.Errorf("port %q: want a name of letters, digits, dots, dashes", p)
		}
	}
	return nil
}

// smbios returns all credentials that go into SMBIOS, by name.
func (m Machine) smbios() map[string]string {
	all := maps.Clone(m.Credentials)
	if m.PodCIDR == "" {
		return all
	}
	if all == nil {
		all = map[string]string{}
	}
	all[podCIDRCredential] = m.PodCIDR
	return all
}
