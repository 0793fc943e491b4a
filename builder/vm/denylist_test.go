package vm

import (
	"strings"
	"testing"
)

func TestDenylist(t *testing.T) {
	d, err := NewDenylist(Rules(), []Allowed{{`sda.* I/O error`, "the test's drive is broken on purpose"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ line, want string }{ // want "" for a good line
		{"!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!", "firmware exception"},
		{"BdsDxe: No bootable option or device was found.", "firmware found nothing to boot"},
		{"Error loading \\EFI\\Linux\\kscratch.efi: image not found", "boot loader error"},
		{"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs", "kernel panic"},
		{"[    1.0] Oops: general protection fault, probably for non-canonical address", "kernel oops"},
		{"[    1.0] BUG: unable to handle page fault for address: ffff", "kernel oops"},
		{"[    1.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:12 f+0x1/0x2", "kernel warning"},
		{"[  104.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [init:1]", "kernel stall"},
		{"[   90.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "kernel stall"},
		{"[  121.0] INFO: task dockerd:12 blocked for more than 120 seconds.", "kernel stall"},
		{"[    9.0] Out of memory: Killed process 12 (kubelet)", "out of memory"},
		{"[    9.0] kubelet[12]: segfault at 0 ip 0 sp 0 error 4", "process crash"},
		{"[    9.0] device-mapper: verity: 254:2: data block 1234 is corrupted", "verity corruption"},
		{"[    9.0] Buffer I/O error on dev dm-0, logical block 7, async page read", "disk error"},
		{"[    9.0] I/O error, dev vda, sector 0 op 0x0:(READ)", "disk error"},
		{"[    9.0] EXT4-fs error (device vda6): ext4_lookup:1", "disk error"},
		{"[    9.0] sda: I/O error", ""},
		{"You are in emergency mode. After logging in, type", "emergency shell"},
		{"[    9.0] systemd[1]: sysinit.target: Found ordering cycle on x.service/start", "ordering cycle"},
		{"[FAILED] Failed to start docker.service - Docker.", "unit failed"},
		{"[    9.0] systemd[1]: docker.service: Failed with result 'exit-code'.", "unit failed"},
		{"[DEPEND] Dependency failed for kubelet.service.", "dependency failed"},
		{"[ TIME ] Timed out waiting for device /dev/x.", "unit timed out"},
		{"[    9.0] systemd[1]: Failed to put bus name to hashmap", "systemd error"},
		{"[    9.0] ignition[300]: CRITICAL : Ignition failed: no config", "ignition failed"},
		{"panic: runtime error: index out of range", "Go panic"},
		{"[    9.0] kscratch-node[99]: goroutine 1 [running]:", "Go panic"},

		{"[    0.4] ACPI: 1 ACPI AML tables successfully acquired and loaded", ""},
		{"[    0.4] EXT4-fs (vda): mounted filesystem r/w with ordered data mode. Quota mode: none.", ""},
		{"[  OK  ] Started docker.service - Docker Application Container Engine.", ""},
		{"[    0.4] PM: Magic number: 1:2:3", ""},
		{"[    0.4] pci: pci 0000:00:1f.2: quirk_error_code 0", ""},
		{"BdsDxe: starting Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0)", ""},
	} {
		r, bad := d.Scan(tc.line)
		if r.Name != tc.want || bad != (tc.want != "") {
			t.Errorf("%q: got %q, want %q", tc.line, r.Name, tc.want)
		}
	}
	if n := len(d.ScanAll([]Line{{0, "fine"}, {1, "panic: x"}})); n != 1 {
		t.Errorf("ScanAll finds %d lines, want 1", n)
	}
}

func TestDenylistNeedsReasons(t *testing.T) {
	for _, tc := range []struct {
		rules []Rule
		allow []Allowed
		want  string
	}{
		{Rules(), []Allowed{{"x", ""}}, "gives no reason"},
		{Rules(), []Allowed{{"(", "y"}}, "missing closing"},
		{[]Rule{{Name: "bad", Pattern: "("}}, nil, `"bad"`},
	} {
		if _, err := NewDenylist(tc.rules, tc.allow); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}
