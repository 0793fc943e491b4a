package ignition

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/ignition/field"
)

// What may stand in unit files and on command lines, where systemd gives
// spaces, quotes, % and $ a meaning of their own.
var (
	plainPath   = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
	linkName    = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,14}$`) // IFNAMSIZ is 16 with the NUL
	domainName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	imageRef    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$`)
	flagName    = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	logSize     = regexp.MustCompile(`^[1-9][0-9]*[kmg]?$`)
	printable   = regexp.MustCompile(`^[[:print:]]*$`)
	hostAndPort = regexp.MustCompile(`^(\[[0-9a-f:]+\]|[a-z0-9.-]+):[0-9]{1,5}$`)
)

// check returns every problem of n, which has its defaults, as one error.
func (n Node) check() error {
	var p problems
	p.unless(n.Role == Master || n.Role == Worker, "role %q: want master or node", n.Role)
	p.unless(n.Security == HTTPS || n.Security == Firewall, "security %q: want https or firewall", n.Security)
	p.unless(!n.anonymous() || len(n.Network.Nodes) > 0, "security by firewall without networks of the nodes: whom should it let through?")
	p.unless(domainName.MatchString(n.Cluster), "cluster name %q: want a DNS name", n.Cluster)
	p.unless(n.Name == "" || len(n.Name) < 64 && domainName.MatchString(n.Name), "node name %q: want a DNS name of less than 64 characters", n.Name)
	p.unless(n.Role != Worker || hostAndPort.MatchString(n.Endpoint), "endpoint %q: want host:port of the API server", n.Endpoint)
	p.network(n.Network)
	p.docker(n.Docker)
	p.path("kubelet root directory", n.Kubelet.RootDir)
	p.address("node address", n.Kubelet.NodeIP)
	p.unless(n.Kubelet.MaxPods >= 0 && n.Kubelet.MaxPods <= math.MaxInt32, "number of pods %d: want 0 or more", n.Kubelet.MaxPods)
	p.fields("kubelet configuration", KubeletConfigProblems(n.Kubelet.Config))
	p.fields("kube-proxy configuration", ProxyConfigProblems(n.Proxy.Config))
	p.fields("flag of kubelet", FlagProblems("kubelet", n.Kubelet.Args))
	p.fields("flag of kube-proxy", FlagProblems("kube-proxy", n.Proxy.Args))
	p.unless(slices.Contains([]string{"iptables", "nftables"}, n.Proxy.Mode), "kube-proxy mode %q: want iptables or nftables", n.Proxy.Mode)
	p.images(n)
	if n.Role == Master {
		p.path("etcd data directory", n.Etcd.DataDir)
		if e := n.Etcd.onNode(); e != nil {
			p.unless(e.Check() == nil, "members of etcd: %v", e.Check())
		}
		p.controlPlane(n)
	}
	for i, patch := range n.Patches {
		p.unless(slices.Contains(PatchTargets, patch.Target), "patch %d: no static pod %q", i, patch.Target)
	}
	return errors.Join(p...)
}

type problems []error

func (p *problems) unless(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

// fields adds the problems of something that the user fills in freely.
func (p *problems) fields(what string, list []field.Problem) {
	for _, f := range list {
		*p = append(*p, fmt.Errorf("%s %q %s", what, f.Path, field.Problem{Msg: f.Msg, Fix: f.Fix}))
	}
}

func (p *problems) path(what, s string) {
	p.unless(plainPath.MatchString(s) && path.Clean(s) == s, "%s %q: want a clean absolute path of letters, digits and . _ -", what, s)
}

func (p *problems) address(what, s string) {
	_, err := netip.ParseAddr(s)
	p.unless(s == "" || err == nil, "%s %q: want an IP address", what, s)
}

func (p *problems) network(w Network) {
	for what, c := range map[string]netip.Prefix{"cluster CIDR": w.ClusterCIDR, "service CIDR": w.ServiceCIDR} {
		p.unless(c.Addr().Is4() && c == c.Masked(), "%s %s: want an IPv4 network", what, c)
	}
	slices.SortFunc(*p, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	p.unless(!w.ClusterCIDR.Overlaps(w.ServiceCIDR), "cluster CIDR %s and service CIDR %s overlap", w.ClusterCIDR, w.ServiceCIDR)
	p.unless(w.ServiceCIDR.Contains(w.DNS), "DNS address %s is outside of the service CIDR %s", w.DNS, w.ServiceCIDR)
	p.unless(w.DNS != nth(w.ServiceCIDR, 1), "DNS address %s is that of the kubernetes service", w.DNS)
	p.unless(domainName.MatchString(w.Domain), "cluster domain %q: want a DNS name", w.Domain)
	p.unless(linkName.MatchString(w.Bridge) && w.Bridge != "docker0", "bridge %q: want a name of at most 15 characters other than docker0", w.Bridge)
	p.unless(w.MTU >= 576 && w.MTU <= 9216, "MTU %d: want 576 to 9216", w.MTU)
	p.unless(w.Mode == Routable || w.Mode == Flannel, "pod network %q: want routable or flannel", w.Mode)
	p.unless(w.Backend == VXLAN || w.Backend == HostGW, "flannel backend %q: want vxlan or host-gw", w.Backend)
	p.unless(!w.Auto || w.Bridge == "cbr0", "bridge %q: kubenet's is cbr0", w.Bridge)
	for _, r := range w.Routes {
		p.unless(r.To.Addr().Is4() && r.To == r.To.Masked() && r.Via.Is4(), "route to %s via %s: want an IPv4 network and an IPv4 address", r.To, r.Via)
	}
	for _, c := range slices.Concat(w.Nodes, w.Internal) {
		p.unless(c.Addr().Is4() && c == c.Masked(), "network %s: want an IPv4 network", c)
	}
}

func (p *problems) docker(d Docker) {
	p.path("docker data root", d.DataRoot)
	p.unless(d.NoFile >= 1024 && d.NoFile <= 1<<30, "limit of open files %d: want 1024 to 2^30", d.NoFile)
	p.unless(d.LogDriver == "json-file" || d.LogDriver == "journald", "log driver %q: want json-file or journald", d.LogDriver)
	p.unless(logSize.MatchString(d.LogMaxSize), "log size %q: want a number with k, m or g", d.LogMaxSize)
	p.unless(d.LogMaxFiles >= 1, "number of logs %d: want 1 or more", d.LogMaxFiles)
	for _, r := range d.InsecureRegistries {
		p.unless(r != "" && !strings.Contains(r, "://") && !strings.ContainsAny(r, " \t\n"), "insecure registry %q: want host, host:port or a CIDR", r)
	}
	for _, r := range d.Registries {
		p.unless(hostAndPort.MatchString(r.Host) || domainName.MatchString(r.Host), "registry %q: want host or host:port", r.Host)
		p.unless(printable.MatchString(r.Username) && !strings.Contains(r.Username, ":"), "user name at registry %q: want one line without a colon", r.Host)
	}
	p.fields("docker option", DockerOptionProblems(d.Options))
}

func (p *problems) images(n Node) {
	i := n.Images
	need := []struct{ what, ref string }{{"pause", i.Pause}}
	if n.Role == Master {
		need = append(need, []struct{ what, ref string }{
			{"etcd", i.Etcd}, {"kube-apiserver", i.APIServer},
			{"kube-controller-manager", i.ControllerManager}, {"kube-scheduler", i.Scheduler},
		}...)
		if i.CoreDNS != "" {
			need = append(need, struct{ what, ref string }{"coredns", i.CoreDNS})
		}
	}
	for _, r := range need {
		p.unless(imageRef.MatchString(r.ref), "image of %s %q: want name:tag", r.what, r.ref)
	}
}

func (p *problems) controlPlane(n Node) {
	c := n.ControlPlane
	p.unless(c.Port > 0 && c.Port < 1<<16, "port of the API server %s: want 1 to 65535", strconv.Itoa(c.Port))
	p.address("advertised address", c.AdvertiseAddress)
	for _, a := range []struct {
		what string
		args map[string]string
	}{
		{"etcd", n.Etcd.Args}, {"kube-apiserver", c.APIServerArgs},
		{"kube-controller-manager", c.ControllerManagerArgs}, {"kube-scheduler", c.SchedulerArgs},
	} {
		p.fields("flag of "+a.what, FlagProblems(a.what, a.args))
	}
}
