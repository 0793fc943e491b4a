package platform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	const vendor, cmdline, config = "sys/devices/virtual/dmi/id/sys_vendor", "proc/cmdline", fwCfgConfig + "/raw"
	for _, c := range []struct {
		name  string
		files []string
		want  string // platform, vendor and reason, or the error
	}{
		{"QEMU with a config", []string{vendor, "QEMU\n", config, "{}"}, "qemu|QEMU|fw_cfg has opt/com.coreos/config"},
		{"QEMU by another name", []string{vendor, "OpenStack Foundation\n", config, "{}"}, "qemu|OpenStack Foundation|fw_cfg has opt/com.coreos/config"},
		{"QEMU without a config", []string{vendor, "QEMU\n", fwCfg + "/rev", "3"}, "metal|QEMU|no config in fw_cfg"},
		{"QEMU without the module", []string{vendor, "QEMU\n"}, "qemu|QEMU|this is QEMU, and fw_cfg has not been looked at"},
		{"cloud", []string{vendor, "Amazon EC2\n"}, "metal|Amazon EC2|no config in fw_cfg"},
		{"no firmware tables", nil, "metal||no config in fw_cfg"},
		{"argument", []string{vendor, "QEMU\n", config, "{}", cmdline, "ro ignition.platform.id=metal"}, "metal|QEMU|kernel argument ignition.platform.id"},
		{"argument needs a network", []string{cmdline, "ignition.platform.id=aws"},
			`detecting platform: kernel argument ignition.platform.id="aws": the initrd has no network to fetch a config with; use one of metal, qemu, or remove it`},
		{"empty argument", []string{cmdline, "ignition.platform.id="}, `detecting platform: kernel argument ignition.platform.id=""`},
		{"argument with a newline", []string{cmdline, "ignition.platform.id=\"qemu\nX=1\""}, `detecting platform: kernel argument ignition.platform.id="qemu\nX=1"`},
	} {
		dir := t.TempDir()
		put(t, dir, cmdline, "ro")
		for i := 0; i < len(c.files); i += 2 {
			put(t, dir, c.files[i], c.files[i+1])
		}
		if err := os.MkdirAll(filepath.Join(dir, "sys/class/dmi"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../devices/virtual/dmi/id", filepath.Join(dir, "sys/class/dmi/id")); err != nil {
			t.Fatal(err)
		}
		p, err := Write(dir)
		env, rerr := os.ReadFile(filepath.Join(dir, EnvPath))
		if err != nil {
			if !strings.HasPrefix(err.Error(), c.want) || !os.IsNotExist(rerr) {
				t.Errorf("%s: got %v and file %q, want %s", c.name, err, env, c.want)
			}
			continue
		}
		if got := p.ID + "|" + p.Vendor + "|" + p.Why; got != c.want || string(env) != "PLATFORM_ID="+p.ID+"\n" {
			t.Errorf("%s: got %s and file %q, want %s", c.name, got, env, c.want)
		}
	}
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
