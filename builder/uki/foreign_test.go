//go:build foreign

package uki

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestForeign lets binutils read a UKI and sbsigntool sign and verify it. With
// KSCRATCH_STUB naming a real systemd-stub, that one is used, too.
func TestForeign(t *testing.T) {
	stubs := map[string][]byte{"ours": stub(false)}
	if p := os.Getenv("KSCRATCH_STUB"); p != "" {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		stubs["systemd"] = b
	}
	for name, s := range stubs {
		dir := t.TempDir()
		efi, signed, key, cert := filepath.Join(dir, "a.efi"), filepath.Join(dir, "signed.efi"), filepath.Join(dir, "key"), filepath.Join(dir, "cert")
		i := sample()
		i.Stub = s
		if err := os.WriteFile(efi, write(t, i), 0o600); err != nil {
			t.Fatal(err)
		}
		out := run(t, "objdump", "-h", efi)
		for _, section := range []string{".text", ".sbat", ".osrel", ".cmdline", ".uname", ".ucode", ".linux", ".initrd"} {
			if !strings.Contains(out, " "+section+" ") {
				t.Errorf("%s: objdump shows no %s:\n%s", name, section, out)
			}
		}
		cmdline := filepath.Join(dir, "cmdline")
		run(t, "objcopy", "-O", "binary", "--dump-section", ".cmdline="+cmdline, efi, filepath.Join(dir, "copy"))
		if b, err := os.ReadFile(cmdline); err != nil || string(b[:len(i.Cmdline)]) != i.Cmdline {
			t.Errorf("%s: objcopy finds the command line %q (%v)", name, b, err)
		}
		run(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", key, "-out", cert)
		if out := run(t, "sbsign", "--key", key, "--cert", cert, "--output", signed, efi); strings.Contains(out, "warning") {
			t.Errorf("%s: sbsign says %s", name, out)
		}
		if out := run(t, "sbverify", "--cert", cert, signed); !strings.Contains(out, "Signature verification OK") {
			t.Errorf("%s: sbverify says %s", name, out)
		}
		run(t, "sbverify", "--list", signed)
		b, err := os.ReadFile(signed)
		if err != nil {
			t.Fatal(err)
		}
		i.Stub = b
		if _, err := Size(i); err == nil || !strings.Contains(err.Error(), "is signed") {
			t.Errorf("%s: a signed program as stub: %v", name, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
