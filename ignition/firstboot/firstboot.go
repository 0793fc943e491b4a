// Package firstboot is the contract between the image and its first boot: how
// a pod CIDR is written and when it is acceptable, which name a node gets from
// it, and what /etc/kscratch/node.json tells the node. The builder renders
// with it, the node (cmd/kscratch-node) obeys it, and the command line checks
// a user's value with it, so that all three agree.
//
// It is pure: it reads no file and knows no time. It imports nothing of ours.
// It does not support IPv6 pod CIDRs: docker's own addressing on a bridge
// without a CNI plugin gives pods IPv4 addresses only.
package firstboot

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// CredentialName is the systemd credential that carries the pod CIDR.
const CredentialName = "kscratch.pod-cidr"

// KernelArgument is the kernel argument that carries the pod CIDR.
const KernelArgument = "kscratch.pod_cidr"

// Bounds of a pod CIDR's prefix length in bits. A /30 has two host addresses:
// the bridge's own and one pod's. Nobody routes more than a /8 to one node.
const (
	MinBits = 8
	MaxBits = 30
)

// ParsePodCIDR reads a pod CIDR such as "10.244.1.0/24". White space around it
// is ignored. The error says what is wrong with the text and what to write
// instead; the caller adds where the text came from.
func ParsePodCIDR(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return netip.Prefix{}, errors.New("it is empty: write a range such as 10.244.1.0/24, or remove it")
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is not a range of addresses: %s", quote(s), malformedFix(s))
	}
	if !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("%s is not IPv4: write an IPv4 range such as 10.244.1.0/24", quote(s))
	}
	if p.Bits() < MinBits || p.Bits() > MaxBits {
		return netip.Prefix{}, fmt.Errorf("%s has a prefix of %d bits: write one of /%d to /%d, such as /24", quote(s), p.Bits(), MinBits, MaxBits)
	}
	if net := p.Masked(); net != p {
		return netip.Prefix{}, fmt.Errorf("%s has host bits set: write the network address, %s", quote(s), net)
	}
	return p, nil
}

// malformedFix returns what to do about a text that is no prefix.
func malformedFix(s string) string {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return fmt.Sprintf("add the number of network bits, as in %s", netip.PrefixFrom(a, 24).Masked())
	}
	return "write an IPv4 network address, a slash and the number of its bits, such as 10.244.1.0/24"
}

// quoted bounds how much of a foreign text a message repeats, in bytes.
const quoted = 48

// quote returns s for a message: control bytes escaped, long texts cut.
func quote(s string) string {
	if len(s) > quoted {
		return fmt.Sprintf("%q…", s[:quoted])
	}
	return fmt.Sprintf("%q", s)
}

// Networks is the cluster's address plan.
type Networks struct {
	Cluster netip.Prefix // every node's pod CIDR is a part of it
	Service netip.Prefix // addresses of services; shares none with pods
}

// Check reports whether the address plan has room for a pod CIDR; the error
// says what to choose instead.
func (n Networks) Check(pod netip.Prefix) error {
	switch {
	case pod.Overlaps(n.Service):
		return fmt.Errorf("%s overlaps the service range %s: choose a range inside %s, such as %s", pod, n.Service, n.Cluster, n.Example())
	case pod.Bits() < n.Cluster.Bits() || !n.Cluster.Contains(pod.Addr()):
		return fmt.Errorf("%s is not inside the cluster range %s: choose a part of it, such as %s", pod, n.Cluster, n.Example())
	}
	return nil
}

// Example returns a pod CIDR that suits the plan, for messages: the second
// /24 of the cluster range, or all of a range too small for that.
func (n Networks) Example() netip.Prefix {
	if n.Cluster.Bits() > 23 {
		return n.Cluster
	}
	a := n.Cluster.Addr().As4()
	a[2]++ // even for every prefix up to /23, so this cannot carry
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// BridgeAddress returns the address of the pod bridge: the first one of the
// pod CIDR, with the CIDR's prefix length.
func BridgeAddress(pod netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(pod.Masked().Addr().Next(), pod.Bits())
}

// NodeName returns the name that a node gets from its role and pod CIDR, such
// as "master-10-244-1-0". It is unique in a cluster as the CIDR is.
func NodeName(role string, pod netip.Prefix) string {
	return role + "-" + strings.ReplaceAll(pod.Masked().Addr().String(), ".", "-")
}

// maxNodeName is the length of a node name in bytes: Linux keeps host names of
// up to 64 bytes, Kubernetes keeps labels with the name of up to 63.
const maxNodeName = 63

// CheckNodeName reports whether a name can be a node's: a DNS subdomain (RFC
// 1123, lower case) of at most 63 bytes, so that it also is a host name.
func CheckNodeName(name string) error {
	if len(name) > maxNodeName {
		return fmt.Errorf("node name %s has %d bytes: use at most %d", quote(name), len(name), maxNodeName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return fmt.Errorf("node name %s is not a DNS name: use lower-case letters, digits and inner hyphens, in parts joined by dots", quote(name))
		}
	}
	return nil
}

func isLabel(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && s[0] != '-' && s[len(s)-1] != '-'
}
