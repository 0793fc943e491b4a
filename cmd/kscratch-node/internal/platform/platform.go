// Package platform tells Ignition which platform it runs on, before it runs.
//
// Ignition's units read PLATFORM_ID from [EnvPath], which on other systems a
// generator fills from the kernel argument ignition.platform.id. kscratch's
// images are the same file everywhere, so the platform is looked up on the
// machine instead; the argument still has the last word.
//
// The initrd has no network. So only platforms whose user config needs none
// are chosen: "qemu" (fw_cfg opt/com.coreos/config) and "metal" (kernel
// argument ignition.config.url with a data: URL, or nothing). On a cloud,
// whose metadata service is behind a network, the platform is "metal" too and
// user data is not read; the base config in the initrd is applied everywhere.
//
// Platform names: https://coreos.github.io/ignition/supported-platforms/
package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// EnvPath is the file that Ignition's units read, below the root.
const EnvPath = "run/ignition.env"

// argument is the kernel argument that names the platform.
const argument = "ignition.platform.id"

// Below /sys/firmware: the directory is there once the module qemu_fw_cfg has
// found the device; systemd loads it early under QEMU.
const (
	fwCfg       = "sys/firmware/qemu_fw_cfg"
	fwCfgConfig = fwCfg + "/by_name/opt/com.coreos/config"
)

// offline lists the platforms that need no network.
var offline = []string{"metal", "qemu"}

// Platform is a decision.
type Platform struct {
	ID     string // for Ignition
	Vendor string // what the firmware calls the machine: "Amazon EC2", …; may be empty
	Why    string // the reason, for the log
}

// Write decides on a platform and writes it to [EnvPath] below the directory
// dir.
func Write(dir string) (p Platform, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Platform{}, fmt.Errorf("opening root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if p, err = detect(root); err != nil {
		return Platform{}, fmt.Errorf("detecting platform: %w", err)
	}
	return p, atomicfile.Write(root, EnvPath, []byte("PLATFORM_ID="+p.ID+"\n"), 0o644)
}

func detect(root *os.Root) (Platform, error) {
	vendor, err := dmi(root, "sys_vendor")
	if err != nil {
		return Platform{}, err
	}
	line, err := root.ReadFile("proc/cmdline")
	if err != nil {
		return Platform{}, err
	}
	if id, ok := firstboot.Lookup(firstboot.ParseCommandLine(string(line)), argument); ok {
		return named(id, vendor)
	}
	return fromMachine(root, vendor)
}

// named is the platform that the kernel argument asks for.
func named(id, vendor string) (Platform, error) {
	if !slices.Contains(offline, id) {
		return Platform{}, fmt.Errorf("kernel argument %s=%.40q: the initrd has no network to fetch a config with; use one of %s, or remove it",
			argument, id, strings.Join(offline, ", "))
	}
	return Platform{ID: id, Vendor: vendor, Why: "kernel argument " + argument}, nil
}

// fromMachine chooses qemu if there is a config in fw_cfg, or if there may be
// one that only Ignition, which loads the module, can find.
func fromMachine(root *os.Root, vendor string) (Platform, error) {
	has, err := exists(root, fwCfgConfig)
	if err != nil {
		return Platform{}, err
	}
	if has {
		return Platform{"qemu", vendor, "fw_cfg has opt/com.coreos/config"}, nil
	}
	loaded, err := exists(root, fwCfg)
	if err != nil {
		return Platform{}, err
	}
	if !loaded && vendor == "QEMU" {
		return Platform{"qemu", vendor, "this is QEMU, and fw_cfg has not been looked at"}, nil
	}
	return Platform{"metal", vendor, "no config in fw_cfg"}, nil
}

func exists(root *os.Root, name string) (bool, error) {
	_, err := root.Stat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil, nil
	}
	return false, err
}

// dmi returns a field of the firmware's tables; empty where there are none.
func dmi(root *os.Root, field string) (string, error) {
	b, err := root.ReadFile("sys/class/dmi/id/" + field)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}
