//go:build foreign

package vm

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm/lan"
)

// TestCable: iPXE, the boot program of QEMU's network cards, is given its
// address through the cable of a machine, with the options that a machine has.
func TestCable(t *testing.T) {
	mac := "52:54:00:6b:73:07"
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lan.New(lan.Config{Hosts: []lan.Host{{Name: "node-7", MAC: hw, IP: netip.MustParseAddr("192.168.76.17")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cable, err := l.Plug()
	if err != nil {
		t.Fatal(err)
	}
	defer cable.Close()

	card := Machine{Cable: cable, MAC: mac}.netArgs()
	for i := range card {
		card[i] = strings.Replace(card[i], ",romfile=", "", 1) // iPXE is in there
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemuProgram, slices.Concat([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
		"-machine", "q35,graphics=off", "-m", "128", "-boot", "n",
	}, card)...)
	cmd.ExtraFiles = []*os.File{nil, nil, cable} // where a machine has its console and monitor
	out := &limited{max: maxStderr}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	want := regexp.MustCompile(`net0: 192\.168\.76\.17/255\.255\.255\.0 gw 192\.168\.76\.1`)
	for !want.MatchString(out.String()) {
		select {
		case <-ctx.Done():
			t.Fatalf("no lease; iPXE said %q", out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
