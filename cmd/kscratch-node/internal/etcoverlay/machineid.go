package etcoverlay

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
)

// machineIDPath, below the root of the system to be, keeps the machine's id
// from one image to the next.
const machineIDPath = "var/lib/kscratch/machine-id"

// machineID writes /etc/machine-id (machine-id(5)), the same for every image
// on this machine. systemd takes a valid one as it is, and so does not treat
// the first boot of each image as the first boot of the machine.
func (e *etc) machineID() error {
	id, err := e.rememberedID()
	if err != nil {
		return err
	}
	if id == "" {
		if id, err = e.newID(); err != nil {
			return err
		}
		if err := atomicfile.Write(e.sysroot, machineIDPath, []byte(id+"\n"), 0o444); err != nil {
			return err
		}
	}
	if b, err := e.sysroot.ReadFile("etc/machine-id"); err == nil && string(b) == id+"\n" {
		return nil
	}
	return atomicfile.Write(e.sysroot, "etc/machine-id", []byte(id+"\n"), 0o444)
}

// rememberedID returns the id of an earlier boot; empty if there is none. A
// broken one is an error: a node that changes its identity by itself is worse
// than one that waits for a decision.
func (e *etc) rememberedID() (string, error) {
	b, err := e.sysroot.ReadFile(machineIDPath)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading machine id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !validMachineID(id) {
		return "", fmt.Errorf("machine id %.80q in /%s: want 32 lower-case hex digits that are not all the same; remove the file to get a new one", id, machineIDPath)
	}
	return id, nil
}

// newID makes an id as systemd does: on a virtual machine its UUID in the
// firmware's tables, so that the machine stays the same for whoever knows it by
// its id (logs, DHCPv6) even when its disk is written anew; else, or if that
// is a placeholder, a random one. On hardware the UUID is not used, because vendors repeat it.
func (e *etc) newID() (string, error) {
	if id := e.firmwareID(); id != "" && e.isVirtual() {
		e.log.Info("machine id is the virtual machine's UUID", "id", id)
		return id, nil
	}
	var b [16]byte
	if _, err := io.ReadFull(e.random, b[:]); err != nil {
		return "", fmt.Errorf("making a machine id: %w", err)
	}
	// The marks of a random UUID (RFC 9562, version 4), as systemd has them.
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	id := hex.EncodeToString(b[:])
	e.log.Info("machine id is new and random", "id", id)
	return id, nil
}

// firmwareID returns the UUID in the firmware's tables as a machine id; empty
// if there is none that means anything.
func (e *etc) firmwareID() string {
	b, err := e.root.ReadFile("sys/class/dmi/id/product_uuid")
	if err != nil {
		return ""
	}
	id := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if !validMachineID(id) {
		return ""
	}
	return id
}

// isVirtual reports whether the processor says that a hypervisor runs it
// (CPUID leaf 1, ECX bit 31).
func (e *etc) isVirtual() bool {
	b, err := e.root.ReadFile("proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if key, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			return strings.Contains(" "+strings.TrimSpace(flags)+" ", " hypervisor ")
		}
	}
	return false
}

// validMachineID also refuses the placeholders of firmware: all zeros, all f
// and the like.
func validMachineID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16 && strings.ToLower(id) == id && strings.Trim(id, id[:1]) != ""
}
