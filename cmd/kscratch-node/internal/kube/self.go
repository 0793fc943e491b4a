package kube

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// Paths below the root of the file system.
const (
	envPath       = "run/kscratch/node.env"
	machineIDPath = "etc/machine-id"
	uuidPath      = "sys/class/dmi/id/product_uuid" // where the kubelet looks
)

// Self is what a machine knows of itself.
type Self struct {
	Config    firstboot.Config
	Name      string       // of its node
	Pod       netip.Prefix // its pod CIDR; invalid if the cluster gives it
	MachineID string       // machine-id(5)
	UUID      string       // of the system, by its firmware; empty where that has none
	Addrs     []netip.Addr // of its interfaces
}

// ReadSelf reads the configuration of the image and what pod-cidr left.
func ReadSelf(root *os.Root) (Self, error) {
	text, err := root.ReadFile(firstboot.ConfigPath)
	if err != nil {
		return Self{}, fmt.Errorf("reading configuration: %w", err)
	}
	s := Self{}
	if s.Config, err = firstboot.ParseConfig(text); err != nil {
		return s, err
	}
	env, err := root.ReadFile(envPath)
	if err != nil {
		return s, fmt.Errorf("reading what the node is called: %w; kscratch-pod-cidr.service comes first", err)
	}
	for line := range strings.Lines(string(env)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k {
		case "KSCRATCH_NODE_NAME":
			s.Name = v
		case "KSCRATCH_POD_CIDR":
			if s.Pod, err = netip.ParsePrefix(v); err != nil {
				return s, fmt.Errorf("reading /%s: %w", envPath, err)
			}
		}
	}
	if s.Name == "" {
		return s, fmt.Errorf("reading /%s: it has no node name", envPath)
	}
	if s.MachineID, err = word(root, machineIDPath); err != nil {
		return s, err
	}
	if s.UUID, err = word(root, uuidPath); err != nil {
		return s, err
	}
	s.Addrs, err = Addresses()
	return s, err
}

// word returns what a file holds; nothing if there is no such file.
func word(root *os.Root, name string) (string, error) {
	b, err := root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading /%s: %w", name, err)
	}
	return string(bytes.TrimSpace(b)), nil
}

// Addresses returns the machine's IPv4 addresses that others may reach.
func Addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading this machine's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

// Is says whether a node object was last written by this machine, perhaps
// under another image: it has the same address, or, as DHCP may have given
// another one, the same machine ID and system UUID. Copies of a disk share the
// former, machines of careless makers the latter.
func (s Self) Is(n *corev1.Node) bool {
	id, uuid := n.Status.NodeInfo.MachineID, n.Status.NodeInfo.SystemUUID
	if s.MachineID != "" && id == s.MachineID && s.UUID != "" && strings.EqualFold(uuid, s.UUID) {
		return true
	}
	return slices.ContainsFunc(InternalIPs(n), func(ip netip.Addr) bool { return slices.Contains(s.Addrs, ip) })
}
