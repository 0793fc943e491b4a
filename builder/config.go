package builder

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/pki"
)

// ignitionConfig renders what a node of the role is told, with the user's
// Butane files over it, and lists what the result puts where.
func ignitionConfig(s *Spec, l *Lock, role Role, o Options) ([]byte, ignition.Report, error) {
	n, err := ignitionNode(s, l, role, o)
	if err != nil {
		return nil, ignition.Report{}, err
	}
	base, report, err := ignition.Ignition(n)
	if err != nil || len(s.Butane) == 0 {
		return base, report, err
	}
	var snippets []ignition.Snippet
	for _, name := range s.Butane {
		b, err := os.ReadFile(under(o.Dir, name))
		if err != nil {
			return nil, ignition.Report{}, fmt.Errorf("reading Butane file: %w", err)
		}
		snippets = append(snippets, ignition.Snippet{Name: name, Data: b, Dir: filepath.Dir(under(o.Dir, name))})
	}
	merged, err := ignition.Merge(base, snippets...)
	if err != nil {
		return nil, ignition.Report{}, err
	}
	report, err = ignition.List(merged)
	return merged, report, err
}

func ignitionNode(s *Spec, l *Lock, role Role, o Options) (ignition.Node, error) {
	set, err := pki.Load(under(o.Dir, s.PKI))
	if err != nil {
		return ignition.Node{}, err
	}
	network, err := ignitionNetwork(s.Network)
	if err != nil {
		return ignition.Node{}, err
	}
	return ignition.Node{
		Role: ignition.Role(role), Cluster: s.Name, Security: ignition.Security(s.Security),
		Endpoint: s.ControlPlane.Endpoint, Network: network, PKI: set,
		Docker: ignition.Docker{
			InsecureRegistries: s.Docker.InsecureRegistries, IPMasq: s.Docker.IPMasq,
			NoFile: s.Docker.NoFile, Options: s.Docker.Options,
		},
		Kubelet:      ignition.Kubelet{RootDir: s.Kubelet.RootDir, RegisterNode: &s.Kubelet.RegisterNode},
		Proxy:        ignition.Proxy{Mode: s.KubeProxy.Mode},
		ControlPlane: ignition.ControlPlane{Unschedulable: !s.ControlPlane.Schedulable},
		Images: ignition.Images{
			Pause: componentRef("pause", s.Components.Pause), Etcd: componentRef("etcd", s.Components.Etcd),
			APIServer: kubeRef("kube-apiserver", s), ControllerManager: kubeRef("kube-controller-manager", s),
			Scheduler: kubeRef("kube-scheduler", s), CoreDNS: componentRef("coredns", s.Components.CoreDNS),
		},
	}, nil
}

func ignitionNetwork(n Network) (ignition.Network, error) {
	cluster, err := netip.ParsePrefix(n.ClusterCIDR)
	if err != nil {
		return ignition.Network{}, fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
	service, err := netip.ParsePrefix(n.ServiceCIDR)
	if err != nil {
		return ignition.Network{}, fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
	dns, err := netip.ParseAddr(n.ClusterDNS)
	if err != nil {
		return ignition.Network{}, fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
	return ignition.Network{
		ClusterCIDR: cluster, ServiceCIDR: service, DNS: dns, Domain: n.ClusterDomain, MTU: n.MTU,
	}, nil
}

// kernelArgs returns the kernel command line of an image without its root
// hash. A panic restarts the node, so that the boot loader can count it.
func kernelArgs(s *Spec) string {
	args := []string{"root=/dev/mapper/root", "rootfstype=erofs", "ro", "panic=30", "console=tty0", "console=ttyS0,115200n8"}
	return strings.Join(append(args, s.Disk.KernelArgs...), " ")
}
