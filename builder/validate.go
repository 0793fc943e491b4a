package builder

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers/kubernetes"
)

// report notes a problem at a field of the spec.
type report func(path, msg, fix string)

var (
	dnsLabel    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsName     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)
	release     = regexp.MustCompile(`^v1\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)
	version     = regexp.MustCompile(`^v?\d+(\.\d+){1,2}([-+.][0-9A-Za-z.-]+)?$`)
	debName     = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(=[0-9A-Za-z.+:~-]+)?$`)
	logSize     = regexp.MustCompile(`^[1-9][0-9]*[kmg]?$`)
	linkName    = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,14}$`) // IFNAMSIZ is 16 with the NUL
	plainPath   = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
	sha256Hex   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	imageName   = regexp.MustCompile(`^[a-z0-9.:_/-]+$`)
	imageDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// validate reports every problem of a spec that its types do not show.
func validate(s *Spec, bad report) {
	oneOf(bad, "apiVersion", s.APIVersion, APIVersion)
	oneOf(bad, "kind", s.Kind, "Cluster")
	oneOf(bad, "security", s.Security, "https", "firewall")
	if s.Security == "firewall" && len(s.Network.NodeCIDRs) == 0 {
		bad("network.nodeCIDRs", "is empty, and security: firewall lets only these networks in", "name the networks that nodes and users are in")
	}
	matches(bad, "name", s.Name, dnsLabel, "a DNS label: lower-case letters, digits and dashes, at most 63")
	if s.PKI == "" {
		bad("pki", "is empty", "name the directory that kscratch init made")
	}
	validateKubernetes(s.Kubernetes, bad)
	validateComponents(s.Components, bad)
	validateControlPlane(s.ControlPlane, bad)
	validateNetwork(s.Network, bad)
	validateEtcd(s, bad)
	validateNode(s, bad)
	validateBase(s.Base, bad)
	for i, im := range s.Images {
		validateImage(fmt.Sprintf("images[%d]", i), im, bad)
	}
	atLeast(bad, "disk.esp", s.Disk.ESP, 512)
	atLeast(bad, "disk.root", s.Disk.Root, 512)
}

func oneOf(bad report, path, got string, want ...string) {
	if !slices.Contains(want, got) {
		bad(path, fmt.Sprintf("%q is not known", got), didYouMean(got, want))
	}
}

func matches(bad report, path, got string, want *regexp.Regexp, what string) {
	if !want.MatchString(got) {
		bad(path, fmt.Sprintf("%q is not %s", got, what), "")
	}
}

func atLeast(bad report, path string, got, least int) {
	if got < least {
		bad(path, fmt.Sprintf("%d is too small", got), fmt.Sprintf("use %d or more", least))
	}
}

func validateSources(bad report, path string, got []string, known ...string) {
	if len(got) == 0 {
		bad(path, "is empty", "name at least one of "+strings.Join(known, ", "))
	}
	for i, src := range got {
		at := fmt.Sprintf("%s[%d]", path, i)
		oneOf(bad, at, src, known...)
		if slices.Contains(got[:i], src) {
			bad(at, fmt.Sprintf("%q stands twice", src), "remove one")
		}
	}
}

func validateKubernetes(k Kubernetes, bad report) {
	matches(bad, "kubernetes.version", k.Version, release, "a Kubernetes release such as v1.36.3")
	validateSources(bad, "kubernetes.sources", k.Sources, "path", "cache", "release", "modules")
	if slices.Contains(k.Sources, "path") && k.Tarball == "" {
		bad("kubernetes.tarball", "is empty, but kubernetes.sources asks for a path", "name kubernetes-server-linux-amd64.tar.gz")
	}
	if k.Tarball != "" && !slices.Contains(k.Sources, "path") {
		bad("kubernetes.tarball", "is set, but kubernetes.sources does not list path", "add path to kubernetes.sources")
	}
}

func validateComponents(c Components, bad report) {
	validateProgram("components.criDockerd", c.CRIDockerd, kubernetes.CRIDockerdBase, bad)
	validateProgram("components.flannel", c.Flannel, kubernetes.FlannelBase, bad)
	for _, e := range []struct {
		name    string
		c       Component
		sources []string
	}{
		{"etcd", c.Etcd, []string{"registry", "modules", "path", "distro"}},
		{"coreDNS", c.CoreDNS, []string{"registry", "modules", "path"}},
		{"pause", c.Pause, []string{"registry", "modules", "path"}},
	} {
		at := "components." + e.name
		matches(bad, at+".version", e.c.Version, version, "a version such as v1.2.3")
		validateSources(bad, at+".sources", e.c.Sources, e.sources...)
		validatePath(at, e.c.Path, e.c.Sources, bad)
		matches(bad, at+".image", e.c.Image, imageName, "the name of a container image")
	}
}

func validatePath(at, path string, sources []string, bad report) {
	if slices.Contains(sources, "path") && path == "" {
		bad(at+".path", "is empty, but the sources ask for a path", "name the file")
	}
}

func validateProgram(at string, c Program, base string, bad report) {
	matches(bad, at+".version", c.Version, version, "a version such as v1.2.3")
	validateSources(bad, at+".sources", c.Sources, "release", "modules", "path")
	validatePath(at, c.Path, c.Sources, bad)
	released := slices.Contains(c.Sources, "release")
	if c.SHA256 != "" {
		matches(bad, at+".sha256", c.SHA256, sha256Hex, "64 lower-case hex digits")
		if !released {
			bad(at+".sha256", "is set, but the sources do not list release", "add release to the sources")
		}
	}
	u, err := url.Parse(c.Release)
	switch {
	case !released:
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		bad(at+".release", "is not a URL of releases", "write it like "+base)
	case u.Scheme == "http" && c.SHA256 == "":
		bad(at+".release", "is not https, and no sha256 says what to expect", "use https, or set "+at+".sha256")
	}
}

func validateControlPlane(c ControlPlane, bad report) {
	host, port, err := net.SplitHostPort(c.Endpoint)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || !isHost(host) {
		bad("controlPlane.endpoint", fmt.Sprintf("%q is not host:port", c.Endpoint), "write it like 10.0.0.5:6443")
	}
	for i, san := range c.ExtraSANs {
		if !isHost(san) {
			bad(fmt.Sprintf("controlPlane.extraSANs[%d]", i), fmt.Sprintf("%q is neither a DNS name nor an address", san), "")
		}
	}
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || dnsName.MatchString(s)
}

func validateNetwork(n Network, bad report) {
	cluster, okC := prefix(bad, "network.clusterCIDR", n.ClusterCIDR)
	service, okS := prefix(bad, "network.serviceCIDR", n.ServiceCIDR)
	if okC && okS && cluster.Overlaps(service) {
		bad("network.serviceCIDR", fmt.Sprintf("%s overlaps network.clusterCIDR %s", service, cluster), "choose ranges that share no address")
	}
	dns, err := netip.ParseAddr(n.ClusterDNS)
	switch {
	case err != nil:
		bad("network.clusterDNS", fmt.Sprintf("%q is not an address", n.ClusterDNS), "")
	case okS && !service.Contains(dns):
		bad("network.clusterDNS", fmt.Sprintf("%s is outside network.serviceCIDR %s", dns, service), "use the tenth address of serviceCIDR")
	}
	matches(bad, "network.clusterDomain", n.ClusterDomain, dnsName, "a DNS name")
	if n.MTU != 0 {
		inRange(bad, "network.mtu", n.MTU, 576, 9216)
	}
	inRange(bad, "network.uplinkMTU", n.UplinkMTU, 576+50, 9216)
	oneOf(bad, "network.mode", n.Mode, "routable", "flannel")
	oneOf(bad, "network.cbr0", n.CBR0, "manual", "auto")
	switch {
	case !linkName.MatchString(n.Bridge) || n.Bridge == "docker0":
		bad("network.bridge", fmt.Sprintf("%q is not the name of a bridge", n.Bridge), "use at most 15 lower-case letters, digits and . _ -, and not docker0")
	case n.CBR0 == "auto" && n.Bridge != "cbr0":
		bad("network.bridge", fmt.Sprintf("%q is set, but kubenet's is cbr0", n.Bridge), "leave it out, or set network.cbr0: manual")
	}
	oneOf(bad, "network.flannel.backend", n.Flannel.Backend, "vxlan", "host-gw")
	if most, err := podMTU(n); err == nil && n.MTU > most && n.Mode == "flannel" {
		bad("network.mtu", fmt.Sprintf("%d is more than the %d that flannel's %s leaves", n.MTU, most, n.Flannel.Backend), fmt.Sprintf("use %d or less, or 0", most))
	}
	for i, r := range n.Routes {
		at := fmt.Sprintf("network.routes[%d]", i)
		anyPrefix(bad, at+".to", r.To)
		if via, err := netip.ParseAddr(r.Via); err != nil || !via.Is4() {
			bad(at+".via", fmt.Sprintf("%q is not an IPv4 address", r.Via), "")
		}
	}
	for i, c := range n.NonMasqueradeCIDRs {
		anyPrefix(bad, fmt.Sprintf("network.nonMasqueradeCIDRs[%d]", i), c)
	}
	for i, c := range n.NodeCIDRs {
		at := fmt.Sprintf("network.nodeCIDRs[%d]", i)
		p, ok := anyPrefix(bad, at, c)
		for _, other := range []struct {
			path string
			p    netip.Prefix
			ok   bool
		}{{"network.clusterCIDR", cluster, okC}, {"network.serviceCIDR", service, okS}} {
			if ok && other.ok && p.Overlaps(other.p) {
				bad(at, fmt.Sprintf("%s overlaps %s %s", p, other.path, other.p), "choose ranges that share no address")
			}
		}
	}
}

func inRange(bad report, path string, got, least, most int) {
	if got < least || got > most {
		bad(path, fmt.Sprintf("%d is out of range", got), fmt.Sprintf("use %d to %d", least, most))
	}
}

// podMTU returns the most that the pod network carries, in bytes.
func podMTU(n Network) (int, error) {
	n.MTU = 0
	w, err := ignitionNetwork(n)
	return w.PodMTU(), err
}

// anyPrefix parses an IPv4 network of any size.
func anyPrefix(bad report, path, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is4():
		bad(path, fmt.Sprintf("%q is not an IPv4 network", s), "write it like 192.168.1.0/24")
	case p.Masked() != p:
		bad(path, fmt.Sprintf("%s has host bits set", s), fmt.Sprintf("did you mean %s?", p.Masked()))
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// prefix parses an IPv4 range, which must be in network form.
func prefix(bad report, path, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		bad(path, fmt.Sprintf("%q is not a range of addresses", s), "write it like 10.244.0.0/16")
	case !p.Addr().Is4():
		bad(path, fmt.Sprintf("%s is not IPv4", s), "use an IPv4 range")
	case p.Masked() != p:
		bad(path, fmt.Sprintf("%s has host bits set", s), fmt.Sprintf("did you mean %s?", p.Masked()))
	case p.Bits() < 8 || p.Bits() > 28:
		bad(path, fmt.Sprintf("%s has a prefix of %d bits", s, p.Bits()), "use /8 to /28")
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

func validateNode(s *Spec, bad report) {
	validateDocker(s.Docker, bad)
	validateOptions(s, bad)
	belowVar(bad, "kubelet.rootDir", s.Kubelet.RootDir)
	oneOf(bad, "kubelet.nodeNames", s.Kubelet.NodeNames, "derived", "dhcp")
	atLeast(bad, "kubelet.maxPods", s.Kubelet.MaxPods, 0)
	oneOf(bad, "kubeProxy.mode", s.KubeProxy.Mode, "iptables", "nftables")
}

func validateDocker(d Docker, bad report) {
	atLeast(bad, "docker.nofile", d.NoFile, 1024)
	belowVar(bad, "docker.dataRoot", d.DataRoot)
	oneOf(bad, "docker.logDriver", d.LogDriver, "json-file", "journald")
	matches(bad, "docker.logMaxSize", d.LogMaxSize, logSize, "a size such as 10m")
	atLeast(bad, "docker.logMaxFiles", d.LogMaxFiles, 1)
	for i, r := range d.InsecureRegistries {
		if r == "" || strings.Contains(r, "://") || strings.ContainsAny(r, " \t\n") {
			bad(fmt.Sprintf("docker.insecureRegistries[%d]", i), fmt.Sprintf("%q is not a registry", r), "write host, host:port or a network such as 10.0.0.0/8")
		}
	}
	for i, r := range d.Registries {
		at := fmt.Sprintf("docker.registries[%d]", i)
		if host, port, err := net.SplitHostPort(r.Host); err == nil && isHost(host) && port != "" {
			// host:port
		} else if !isHost(r.Host) {
			bad(at+".host", fmt.Sprintf("%q is not host or host:port", r.Host), "")
		}
		if (r.Username == "") != (r.PasswordFile == "") {
			bad(at, "has one of username and passwordFile", "set both or none")
		}
	}
}

// belowVar reports a directory that a node could not write to, or that has no
// place in a unit file.
func belowVar(bad report, at, dir string) {
	switch {
	case !strings.HasPrefix(dir, "/var/"):
		bad(at, fmt.Sprintf("%q is not below /var", dir), "only /var is writable on a node")
	case !plainPath.MatchString(dir) || path.Clean(dir) != dir:
		bad(at, fmt.Sprintf("%q is not a plain path", dir), "use letters, digits and . _ - between single slashes")
	}
}

func validateBase(b Base, bad report) {
	oneOf(bad, "base.suite", b.Suite, "trixie")
	oneOf(bad, "base.kernel", b.Kernel, "cloud", "generic")
	names := func(path string, list []string) {
		for i, name := range list {
			matches(bad, fmt.Sprintf("%s[%d]", path, i), name, debName, "a package name or name=version")
		}
	}
	names("base.packages", b.Packages)
	for _, role := range roles(bad, "base.rolePackages", b.RolePackages) {
		list := b.RolePackages[role]
		names("base.rolePackages."+role, list)
	}
	if b.SecurityMirror != "" && b.Mirror == "" {
		bad("base.securityMirror", "is set without base.mirror", "set both")
	}
}

// roles returns the keys of what is given by role, sorted, and reports those
// that are none.
func roles(bad report, path string, m map[string][]string) []string {
	keys := slices.Sorted(maps.Keys(m))
	for _, role := range keys {
		if !slices.Contains(Roles, Role(role)) {
			bad(path+"."+role, "is not a role", didYouMean(role, roleNames()))
		}
	}
	return keys
}

func roleNames() []string {
	out := make([]string, len(Roles))
	for i, r := range Roles {
		out[i] = string(r)
	}
	return out
}

// imageSchemes lists how an extra image may be named.
var imageSchemes = []string{"docker://", "docker-archive:", "oci:", "rootfs:"}

func validateImage(path string, im ExtraImage, bad report) {
	if !imageName.MatchString(im.Name) || !strings.Contains(im.Name[strings.LastIndex(im.Name, "/")+1:], ":") {
		bad(path+".name", fmt.Sprintf("%q is not name:tag", im.Name), "")
	}
	if !slices.ContainsFunc(imageSchemes, func(p string) bool { return strings.HasPrefix(im.From, p) && len(im.From) > len(p) }) {
		bad(path+".from", fmt.Sprintf("%q names no source", im.From), "start it with one of "+strings.Join(imageSchemes, ", "))
	}
	if im.Digest != "" {
		matches(bad, path+".digest", im.Digest, imageDigest, "sha256: and 64 lower-case hex digits")
	}
	if ref, ok := strings.CutPrefix(im.From, registryScheme); ok && ref != "" {
		if _, err := images.Host(ref); err != nil {
			bad(path+".from", err.Error(), "write it like docker://registry.example.org/app:v1")
		}
	}
}
