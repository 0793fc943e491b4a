package lint

import (
	"fmt"
	"maps"
	"path"
	"strings"

	"github.com/kscratch/kscratch/ignition"
)

const kernelConfigs = "/usr/lib/modules/*/config"

// kernelNeeds are options of the kernel, and what wants them. A module is named
// where it may be one; the others have to be built in.
var kernelNeeds = []struct{ option, module, why string }{
	{"EFI_STUB", "", "firmware starts the kernel as a part of the unified kernel image"},
	{"DM_VERITY", "dm-verity", "the root is checked while it is read"},
	{"EROFS_FS", "erofs", "it is the root file system"},
	{"EXT4_FS", "ext4", "it is the state partition's file system"},
	{"OVERLAY_FS", "overlay", "/etc and docker's images are overlays"},
	{"CGROUPS", "", "the kubelet and docker keep pods apart by control groups"},
	{"MEMCG", "", "pods have limits of memory"},
	{"CGROUP_PIDS", "", "pods have limits of processes"},
	{"CFS_BANDWIDTH", "", "pods have limits of processor time"},
	{"NAMESPACES", "", "containers are made of them"},
	{"NET_NS", "", "each pod has a network of its own"},
	{"PID_NS", "", "each container has processes of its own"},
	{"SECCOMP_FILTER", "", "static pods run with a profile of system calls"},
	{"VETH", "veth", "it connects a pod with the bridge"},
	{"BRIDGE", "bridge", "pods are on one"},
	{"BRIDGE_NETFILTER", "br_netfilter", "services are reached through the bridge"},
	{"NF_CONNTRACK", "nf_conntrack", "kube-proxy follows connections"},
	{"NF_NAT", "nf_nat", "kube-proxy translates addresses of services"},
	{"NF_TABLES", "nf_tables", "kube-proxy and filter.nft write rules of nftables"},
	{"NFT_COMPAT", "nft_compat", "iptables-nft needs it for kube-proxy's rules"},
	{"NETFILTER_XT_MATCH_COMMENT", "xt_comment", "kube-proxy's rules have comments"},
	{"NETFILTER_XT_MATCH_CONNTRACK", "xt_conntrack", "kube-proxy's rules look at connections"},
	{"NETFILTER_XT_MATCH_STATISTIC", "xt_statistic", "kube-proxy spreads load by chance"},
	{vxlanOption, "vxlan", "flannel wraps packets with it"},
}

// vxlanOption is needed by flannel's VXLAN alone.
const vxlanOption = "VXLAN"

// KernelOptions returns the options that a kernel for all kinds of nodes has,
// without CONFIG_.
func KernelOptions() []string {
	out := make([]string, len(kernelNeeds))
	for i, need := range kernelNeeds {
		out[i] = need.option
	}
	return out
}

func kernelConfig(n *node) []Finding {
	vxlan := n.Network.Mode == ignition.Flannel && n.Network.Backend != ignition.HostGW
	var out []Finding
	modules := map[string]bool{}
	var configs []string
	for p := range maps.Keys(n.Files) {
		if ok, err := path.Match(kernelConfigs, p); ok && err == nil {
			configs = append(configs, p)
		}
		if name, _, ok := strings.Cut(path.Base(p), ".ko"); ok && strings.HasPrefix(p, "/usr/lib/modules/") {
			modules[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	const fix = "use base.kernel: cloud or generic, whose kernels have it"
	if len(configs) == 0 {
		return found(Warning, kernelConfigs, "is not there, so the kernel cannot be judged", fix)
	}
	for _, p := range configs {
		set := options(n.Files[p].Body)
		for _, need := range kernelNeeds {
			switch v := set[need.option]; {
			case need.option == vxlanOption && !vxlan:
			case v == "y", v == "m" && modules[strings.ReplaceAll(need.module, "-", "_")]:
			case v == "m":
				out = append(out, Finding{Severity: Error, Where: p, What: fmt.Sprintf("CONFIG_%s is a module that is not in the image; %s", need.option, need.why), Fix: fix})
			default:
				out = append(out, Finding{Severity: Error, Where: p, What: fmt.Sprintf("CONFIG_%s is off; %s", need.option, need.why), Fix: fix})
			}
		}
	}
	return out
}

// options reads a kernel's configuration: lines of CONFIG_NAME=value.
func options(b []byte) map[string]string {
	out := map[string]string{}
	for l := range strings.SplitSeq(string(b), "\n") {
		if name, v, ok := strings.Cut(l, "="); ok && strings.HasPrefix(name, "CONFIG_") {
			out[strings.TrimPrefix(name, "CONFIG_")] = v
		}
	}
	return out
}
