package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// qemuProgram is QEMU's emulator of a whole x86-64 machine.
const qemuProgram = "qemu-system-x86_64"

// firmwares lists where distributions keep OVMF without Secure Boot: code and
// variables, 4 MiB of flash.
var firmwares = []Firmware{
	{Code: "/usr/share/OVMF/OVMF_CODE_4M.fd", Template: "/usr/share/OVMF/OVMF_VARS_4M.fd"},         // Debian, Ubuntu
	{Code: "/usr/share/edk2/x64/OVMF_CODE.4m.fd", Template: "/usr/share/edk2/x64/OVMF_VARS.4m.fd"}, // Arch
}

// findQEMU returns the path of QEMU.
func (m Machine) findQEMU() (string, error) {
	name := m.QEMU
	if name == "" {
		name = qemuProgram
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("looking for QEMU: %w; on Debian: apt-get install qemu-system-x86", err)
	}
	return p, nil
}

// findFirmware fills in what f leaves out.
func findFirmware(f Firmware) (Firmware, error) {
	if f.Code != "" && f.Template != "" {
		return f, nil
	}
	if f.Code != "" || f.Template != "" {
		return f, errors.New("looking for firmware: code and variable template belong together: name both or none")
	}
	var tried []string
	for _, c := range firmwares {
		if exists(c.Code) && exists(c.Template) {
			c.Vars = f.Vars
			return c, nil
		}
		tried = append(tried, c.Code)
	}
	return f, fmt.Errorf("looking for UEFI firmware: none of %s is there; on Debian: apt-get install ovmf", strings.Join(tried, ", "))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// prepareVars returns the machine's own variable store, a copy of the template
// when it is new.
func (m Machine) prepareVars(f Firmware) (string, error) {
	vars := f.Vars
	if vars == "" {
		vars = filepath.Join(m.Dir, "vars.fd")
	} else if exists(vars) {
		return vars, nil
	}
	if err := copyFile(vars, f.Template); err != nil {
		return "", fmt.Errorf("making firmware variables: %w", err)
	}
	return vars, nil
}

func copyFile(to, from string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := w.Close(); err == nil {
			err = e
		}
	}()
	_, err = io.Copy(w, r)
	return err
}

// prepare puts every file in place that QEMU will open.
func (m Machine) prepare(ctx context.Context, program string) (plan, error) {
	var p plan
	fw, err := findFirmware(m.Firmware)
	if err != nil {
		return p, err
	}
	p.code, p.extra = fw.Code, m.ExtraDisks
	if p.kvm, err = chooseKVM(ctx, m.Accel, program, m.Dir); err != nil {
		return p, err
	}
	if p.vars, err = m.prepareVars(fw); err != nil {
		return p, err
	}
	if p.disk, err = m.prepareDisk(); err != nil {
		return p, err
	}
	if p.strings, err = m.writeStrings(); err != nil {
		return p, err
	}
	p.fwCfg, err = m.writeItems()
	return p, err
}
