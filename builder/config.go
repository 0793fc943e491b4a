package builder

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// told is what a node is told.
type told struct {
	config  []byte            // Ignition
	report  ignition.Report   // what config puts where
	secrets []ignition.Secret // of kscratch's own part
	butane  map[string]string // which of the user's files changed what is at a path
}

// ignitionConfig renders what a node of the role is told, with the user's
// Butane files over it, and lists what the result puts where.
func ignitionConfig(s *Spec, l *Lock, role Role, o Options) (told, error) {
	n, err := ignitionNode(s, l, role, o)
	if err != nil {
		return told{}, err
	}
	base, report, err := ignition.Ignition(n)
	if err != nil {
		return told{}, patchProblems(s, o, err)
	}
	t := told{config: base, report: report, secrets: ignition.Contract(n)}
	snippets, err := butaneFiles(s, role, o)
	if err != nil || len(snippets) == 0 {
		return t, err
	}
	// All at once first: the problems of all files come together.
	if t.config, err = ignition.Merge(base, snippets...); err != nil {
		return told{}, butaneProblems(err)
	}
	t.butane = map[string]string{}
	for i := range snippets {
		merged, err := ignition.Merge(base, snippets[:i+1]...)
		if err != nil {
			return told{}, err
		}
		before := t.report
		if t.report, err = ignition.List(merged); err != nil {
			return told{}, err
		}
		for _, p := range changed(before, t.report) {
			t.butane[p] = butaneField(s, role, i) + " " + snippets[i].Name
		}
	}
	return t, nil
}

// butaneField returns the field that names the i-th Butane file of a role.
func butaneField(s *Spec, role Role, i int) string {
	if i < len(s.Butane) {
		return field.Index("butane", i)
	}
	return field.Index("roleButane."+string(role), i-len(s.Butane))
}

// changed returns the paths at which b puts something else than a.
func changed(a, b ignition.Report) (paths []string) {
	had := map[string]string{}
	text := func(e ignition.Entry) string { return fmt.Sprint(e.Mode, e.Owner, e.Note, e.Digest) }
	for _, e := range a.Entries {
		had[e.Path] = text(e)
	}
	for _, e := range b.Entries {
		if had[e.Path] != text(e) {
			paths = append(paths, e.Path)
		}
	}
	return paths
}

// butaneFiles reads the Butane files of a role: those for every node, then its
// own.
func butaneFiles(s *Spec, role Role, o Options) ([]ignition.Snippet, error) {
	var out []ignition.Snippet
	var problems []Problem
	read := func(path string, names []string) {
		for i, name := range names {
			b, err := o.readFile(name)
			if err != nil {
				problems = append(problems, unreadable(s, field.Index(path, i), err))
			}
			out = append(out, ignition.Snippet{Name: name, Data: b, Dir: o.includes(name)})
		}
	}
	read("butane", s.Butane)
	read("roleButane."+string(role), s.RoleButane[string(role)])
	if len(problems) > 0 {
		return nil, &SpecError{problems}
	}
	return out, nil
}

// unreadable is the problem of a field that names a file.
func unreadable(s *Spec, path string, err error) Problem {
	return s.Where.Problem(path, "cannot be read: "+err.Error(), "paths are relative to the cluster file")
}

// butaneProblems returns the problems of Butane files as those of a spec.
func butaneProblems(err error) error {
	var list ignition.Problems
	if !errors.As(err, &list) {
		return err
	}
	out := &SpecError{}
	for _, p := range list {
		out.Problems = append(out.Problems, Problem{File: p.File, Line: p.Line, Col: p.Column, Msg: p.Text})
	}
	return out
}

func ignitionNode(s *Spec, l *Lock, role Role, o Options) (ignition.Node, error) {
	set, err := o.pki(s)
	if err != nil {
		return ignition.Node{}, err
	}
	network, err := ignitionNetwork(s.Network)
	if err != nil {
		return ignition.Node{}, err
	}
	registries, err := ignitionRegistries(s.Docker.Registries, o)
	if err != nil {
		return ignition.Node{}, err
	}
	patches, err := ignitionPatches(s, o)
	if err != nil {
		return ignition.Node{}, err
	}
	certificates, err := pkiOptions(s)
	if err != nil {
		return ignition.Node{}, err
	}
	members, err := s.EtcdMembers()
	if err != nil {
		return ignition.Node{}, err
	}
	c := s.ControlPlane
	return ignition.Node{
		Role: ignition.Role(role), Cluster: s.Name, Security: ignition.Security(s.Security),
		Endpoint: s.NodeEndpoint(), Network: network, PKI: set, NameFromDHCP: s.Kubelet.NodeNames == "dhcp",
		Docker: ignition.Docker{
			Registries: registries, InsecureRegistries: s.Docker.InsecureRegistries, IPMasq: s.Docker.IPMasq,
			NoFile: s.Docker.NoFile, DataRoot: s.Docker.DataRoot, LogDriver: s.Docker.LogDriver, LogMaxSize: s.Docker.LogMaxSize,
			LogMaxFiles: s.Docker.LogMaxFiles, UserlandProxy: &s.Docker.UserlandProxy, LiveRestore: s.Docker.LiveRestore,
			Options: s.Docker.Options,
		},
		Kubelet: ignition.Kubelet{
			RootDir: s.Kubelet.RootDir, RegisterNode: &s.Kubelet.RegisterNode, MaxPods: s.Kubelet.MaxPods,
			Config: s.Kubelet.ExtraConfig, Args: s.Kubelet.ExtraFlags,
		},
		Proxy: ignition.Proxy{Mode: s.KubeProxy.Mode, Config: s.KubeProxy.ExtraConfig, Args: s.KubeProxy.ExtraFlags},
		ControlPlane: ignition.ControlPlane{
			Unschedulable: !c.Schedulable, Names: certificates.APIServerSANs(), APIServerArgs: c.APIServer.ExtraFlags,
			ControllerManagerArgs: c.ControllerManager.ExtraFlags, SchedulerArgs: c.Scheduler.ExtraFlags,
		},
		Etcd:    ignition.Etcd{Members: members, Args: s.Etcd.ExtraFlags},
		Patches: patches,
		Images: ignition.Images{
			Pause: componentRef("pause", s.Components.Pause), Etcd: componentRef("etcd", s.Components.Etcd),
			APIServer: kubeRef("kube-apiserver", s), ControllerManager: kubeRef("kube-controller-manager", s),
			Scheduler: kubeRef("kube-scheduler", s), CoreDNS: componentRef("coredns", s.Components.CoreDNS),
		},
	}, nil
}

// ignitionRegistries reads what private registries need.
func ignitionRegistries(rs []Registry, o Options) ([]ignition.Registry, error) {
	var out []ignition.Registry
	for _, r := range rs {
		reg := ignition.Registry{Host: r.Host, Username: r.Username}
		if r.CA != "" {
			b, err := o.readFile(r.CA)
			if err != nil {
				return nil, fmt.Errorf("reading the authority of registry %s: %w", r.Host, err)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(b) {
				return nil, fmt.Errorf("reading the authority of registry %s: %s has no PEM certificate", r.Host, r.CA)
			}
			reg.CA = b
		}
		if r.PasswordFile != "" {
			b, err := o.readFile(r.PasswordFile)
			if err != nil {
				return nil, fmt.Errorf("reading the password of registry %s: %w", r.Host, err)
			}
			reg.Password, _, _ = strings.Cut(string(b), "\n")
		}
		out = append(out, reg)
	}
	return out, nil
}

func ignitionNetwork(n Network) (ignition.Network, error) {
	var p unchecked
	w := ignition.Network{
		ClusterCIDR: p.prefix(n.ClusterCIDR), ServiceCIDR: p.prefix(n.ServiceCIDR), DNS: p.addr(n.ClusterDNS),
		Domain: n.ClusterDomain, Bridge: n.Bridge, MTU: n.MTU, UplinkMTU: n.UplinkMTU,
		Mode: ignition.Mode(n.Mode), Auto: n.CBR0 == "auto", Backend: ignition.Backend(n.Flannel.Backend),
		NoPeers: !n.RouteController, Masquerade: n.Masquerade,
	}
	for _, c := range n.NonMasqueradeCIDRs {
		w.Internal = append(w.Internal, p.prefix(c))
	}
	for _, c := range n.NodeCIDRs {
		w.Nodes = append(w.Nodes, p.prefix(c))
	}
	for _, r := range n.Routes {
		w.Routes = append(w.Routes, ignition.Route{To: p.prefix(r.To), Via: p.addr(r.Via)})
	}
	return w, p.err
}

// EtcdMembers returns the members of etcd that a checked spec names.
func (s *Spec) EtcdMembers() ([]firstboot.EtcdMember, error) {
	var p unchecked
	var out []firstboot.EtcdMember
	for _, m := range s.Etcd.Members {
		out = append(out, firstboot.EtcdMember{Name: m.Name, Address: p.addr(m.Address)})
	}
	return out, p.err
}

// unchecked parses what a checked spec has right, and keeps the first error.
type unchecked struct{ err error }

func (u *unchecked) keep(err error) {
	if err != nil && u.err == nil {
		u.err = fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
}

func (u *unchecked) prefix(s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	u.keep(err)
	return p
}

func (u *unchecked) addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	u.keep(err)
	return a
}

// kernelArgs returns the kernel command line of an image without its root
// hash. A panic restarts the node, so that the boot loader can count it.
func kernelArgs(s *Spec) string {
	args := []string{"root=/dev/mapper/root", "rootfstype=erofs", "ro", "panic=30", "console=tty0", "console=ttyS0,115200n8"}
	return strings.Join(append(args, s.Disk.KernelArgs...), " ")
}
