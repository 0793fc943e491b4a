package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A probe machine is firmware that goes from the reset vector to protected mode,
// as all firmware does (Intel SDM volume 3, "First Instruction Executed",
// "Switching to Protected Mode"), sets up the floating point unit, and leaves
// through QEMU's debug exit device. QEMU's status is then the value written,
// doubled, plus one.
//
// That is where KVM without hardware paging of guests fails: it emulates code
// in these modes, and does not know all of it.
const (
	probeSize   = 64 << 10 // ends at 4 GiB
	probeStart  = 0xff80
	probeReset  = 0xfff0
	probeValue  = 0x31
	probePort   = 0xf4
	probeStatus = probeValue<<1 | 1
)

// probeCode lies at probeStart.
var probeCode = []byte{
	0xfa,                                     // ff80: cli
	0x2e, 0x66, 0x0f, 0x01, 0x16, 0x98, 0xff, // ff81: lgdtl %cs:0xff98
	0x0f, 0x20, 0xc0, // ff88: mov %cr0, %eax
	0x0c, 0x01, // ff8b: or $1, %al
	0x0f, 0x22, 0xc0, // ff8d: mov %eax, %cr0
	0x66, 0xea, 0xb6, 0xff, 0xff, 0xff, 0x08, 0x00, // ff90: ljmpl $8, $0xffffffb6
	0x17, 0x00, 0x9e, 0xff, 0xff, 0xff, // ff98: GDT: limit, base
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // ff9e: no segment
	0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00, // ffa6: code, flat, 32 bits
	0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, // ffae: data, flat
	0x66, 0xb9, 0x10, 0x00, // ffb6: mov $16, %cx
	0x8e, 0xd9, // ffba: mov %cx, %ds
	0x8e, 0xd1, // ffbc: mov %cx, %ss
	0x9b, 0xdb, 0xe3, // ffbe: finit
	0xb0, probeValue, // ffc1: mov $probeValue, %al
	0xe6, probePort, // ffc3: out %al, $probePort
	0xf4, // ffc5: hlt
}

// probeJump lies at probeReset: jmp probeStart.
var probeJump = []byte{0xeb, 0x8e}

// probeLimit bounds the run of a probe machine, which takes 0.1 s.
const probeLimit = 10 * time.Second

func probeFirmware() []byte {
	b := make([]byte, probeSize)
	copy(b[probeStart:], probeCode)
	copy(b[probeReset:], probeJump)
	return b
}

// chooseKVM says whether hardware virtualisation is to be used. That /dev/kvm
// can be opened does not mean that it works: on a host that is a guest itself,
// QEMU may die of a CPU feature that is announced and missing. So a machine of
// the CPU that the real one will have is run first.
func chooseKVM(ctx context.Context, a Accel, program, dir string) (bool, error) {
	if a == AccelTCG {
		return false, nil
	}
	err := openKVM()
	if err == nil {
		err = probeKVM(ctx, program, dir)
	}
	if err == nil {
		return true, nil
	}
	if a == AccelAuto && ctx.Err() == nil {
		return false, nil
	}
	return false, err
}

func openKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("opening KVM: %w; add yourself to the group kvm", err)
	}
	return fmt.Errorf("opening KVM: %w", err)
}

// probeKVM runs the probe machine under KVM, with its firmware in dir.
func probeKVM(ctx context.Context, program, dir string) error {
	firmware := filepath.Join(dir, "probe.bin")
	defer os.Remove(firmware)
	if err := os.WriteFile(firmware, probeFirmware(), 0o600); err != nil {
		return fmt.Errorf("trying KVM: %w", err)
	}
	if err := probe(ctx, program, firmware, accelArgs(true)); err != nil {
		return fmt.Errorf("trying KVM: %w", err)
	}
	return nil
}

// probe runs the probe machine with an accelerator.
func probe(ctx context.Context, program, firmware string, accel []string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	args := append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-m", "16", "-bios", firmware,
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", probePort),
	}, accel...)
	cmd := exec.CommandContext(ctx, program, args...)
	said := &limited{max: maxStderr}
	// QEMU stops a guest that KVM gave up, and does not end.
	cmd.Stderr = writerFunc(func(p []byte) (int, error) {
		n, err := said.Write(p)
		if strings.Contains(said.String(), "KVM internal error") {
			cancel()
		}
		return n, err
	})
	err := cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == probeStatus {
		return nil
	}
	if err == nil {
		err = ctx.Err()
	}
	first, _, _ := strings.Cut(said.String(), "\n")
	return fmt.Errorf("a machine that only exits with status %d: %v: %s", probeStatus, err, first)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
