package lint

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/images"
)

// release is a version: major, minor, patch.
type release [3]int

// parseRelease reads a version such as v1.36.3, 3.6.8-0 or 26.1.5+dfsg1. What is
// left out counts as zero.
func parseRelease(s string) (r release, ok bool) {
	s = strings.TrimPrefix(s, "v")
	if i := strings.IndexFunc(s, func(c rune) bool { return c != '.' && (c < '0' || c > '9') }); i >= 0 {
		s = s[:i]
	}
	parts := strings.Split(s, ".")
	if len(parts) < 2 {
		return r, false
	}
	for i := range min(len(parts), len(r)) {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return r, false
		}
		r[i] = n
	}
	return r, true
}

func (r release) less(o release) bool { return slices.Compare(r[:], o[:]) < 0 }

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2]) }

// versions returns what programs run, by name: those of the root as they are
// locked, those in static pods by their images' tags. The second map says where
// a version is from.
func (n *node) versions() (version, where map[string]string) {
	version, where = maps.Clone(n.Versions), map[string]string{}
	if version == nil {
		version = map[string]string{}
	}
	for name := range version {
		where[name] = name
	}
	for i := range n.pods {
		for _, c := range n.pods[i].containers() {
			ref, err := images.Familiar(c.Image)
			if err != nil {
				continue
			}
			repo := repository(ref)
			tag := ref[len(repo)+1:]
			name := path.Base(repo)
			if _, ok := parseRelease(tag); ok && slices.Contains(inPods, name) {
				version[name], where[name] = tag, c.where
			}
		}
	}
	return version, where
}

// inPods are the programs that run in pods, as their images are called.
var inPods = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "coredns"}

// skews says how many minor versions a program may be older and newer than the
// API server.
var skews = []struct {
	name         string
	older, newer int
}{
	{"kube-controller-manager", 1, 0},
	{"kube-scheduler", 1, 0},
	{"kubelet", 3, 0},
	{"kube-proxy", 3, 0},
	{"kubectl", 1, 1},
}

func versionSkew(n *node) []Finding {
	version, where := n.versions()
	api, ok := parseRelease(version["kube-apiserver"])
	if !ok {
		return nil
	}
	var out []Finding
	for _, s := range skews {
		v, ok := parseRelease(version[s.name])
		d := v[1] - api[1]
		if ok && (v[0] != api[0] || d < -s.older || d > s.newer) {
			out = append(out, Finding{Severity: Error, Where: where[s.name],
				What: fmt.Sprintf("%s %s does not go with kube-apiserver %s: it may be %d minor versions older and %d newer",
					s.name, version[s.name], version["kube-apiserver"], s.older, s.newer),
				Fix: "use the version of kube-apiserver"})
		}
	}
	// The policy lets both lag, but not part from each other by more than three.
	let, proxy := version["kubelet"], version["kube-proxy"]
	a, okA := parseRelease(let)
	b, okB := parseRelease(proxy)
	if okA && okB && max(a[1]-b[1], b[1]-a[1]) > 3 {
		out = append(out, Finding{Severity: Error, Where: "kube-proxy", What: fmt.Sprintf("kube-proxy %s and kubelet %s are more than three minor versions apart", proxy, let),
			Fix: "use one version"})
	}
	return out
}

// etcds is the oldest etcd that releases of Kubernetes are meant for, by minor
// version of the API server, from that release on: MinExternalEtcdVersion in
// cmd/kubeadm/app/constants of Kubernetes.
var etcds = []struct {
	minor int
	least release
}{
	{0, release{3, 4, 13}}, // 1.29 has it
	{36, release{3, 5, 24}},
}

func versionEtcd(n *node) []Finding {
	version, where := n.versions()
	api, ok := parseRelease(version["kube-apiserver"])
	v, okE := parseRelease(version["etcd"])
	if !ok || !okE {
		return nil
	}
	least := etcds[0].least
	for _, e := range etcds {
		if api[1] >= e.minor {
			least = e.least
		}
	}
	if !v.less(least) {
		return nil
	}
	s := Warning
	if v[0] != least[0] || v[1] < least[1] {
		s = Error
	}
	return found(s, where["etcd"], fmt.Sprintf("etcd %s is older than %s, the least that Kubernetes %s supports", version["etcd"], least, version["kube-apiserver"]),
		"raise components.etcd.version")
}

// badCoreDNS are releases that their makers or Kubernetes took back.
var badCoreDNS = map[release]string{
	{1, 2, 3}:  "its kubernetes plugin is broken (https://github.com/coredns/coredns.io/pull/113)",
	{1, 8, 5}:  "its reload plugin is broken (https://github.com/kubernetes/kubernetes/pull/105251)",
	{1, 11, 0}: "1.11.1 mends a regression of it (https://github.com/coredns/helm/pull/137)",
}

func versionCoreDNS(n *node) []Finding {
	version, where := n.versions()
	v, ok := parseRelease(version["coredns"])
	if why := badCoreDNS[v]; ok && why != "" {
		return found(Warning, where["coredns"], fmt.Sprintf("CoreDNS %s is known to be bad: %s", version["coredns"], why), "change components.coreDNS.version")
	}
	return nil
}

// engines says which versions of its API docker serves, by major version: the
// oldest, and the newest of the first release
// (https://docs.docker.com/reference/api/engine/#api-version-matrix).
var engines = []struct {
	major          int
	oldest, newest release
}{
	{20, release{1, 12}, release{1, 41}},
	{23, release{1, 12}, release{1, 42}},
	{24, release{1, 12}, release{1, 43}},
	{25, release{1, 24}, release{1, 44}},
	{26, release{1, 24}, release{1, 45}},
	{27, release{1, 24}, release{1, 46}},
	{28, release{1, 24}, release{1, 48}},
	{29, release{1, 44}, release{1, 52}},
}

// cri-dockerd asks for an API of criLeast (MinimumDockerAPIVersion in its
// libdocker). It begins with the newest that its client library knows and goes
// down to docker's; since criKnown that is criMost (DefaultVersion of
// github.com/docker/docker v25.0.8, which v0.3.17 vendors).
var (
	criLeast = release{1, 26}
	criMost  = release{1, 44}
	criKnown = release{0, 3, 17}
)

func dockerAPI(n *node) []Finding {
	docker, ok := parseRelease(n.Versions["docker"])
	cri, okC := parseRelease(n.Versions["cri-dockerd"])
	if !ok || !okC {
		return nil
	}
	i := len(engines) - 1
	for i > 0 && engines[i].major > docker[0] {
		i--
	}
	e := engines[i]
	const where = "docker.io"
	what := fmt.Sprintf("docker %s and cri-dockerd %s", n.Versions["docker"], n.Versions["cri-dockerd"])
	const fix = "pin a docker.io that fits in base.packages, or change components.criDockerd.version"
	switch {
	case docker[0] < engines[0].major || e.newest.less(criLeast):
		return found(Error, where, fmt.Sprintf("%s: docker is too old for an API of %d.%d", what, criLeast[0], criLeast[1]), fix)
	case criMost.less(e.oldest):
		return found(Error, where, fmt.Sprintf("%s: docker serves its API from %d.%d on, cri-dockerd speaks up to %d.%d", what, e.oldest[0], e.oldest[1], criMost[0], criMost[1]), fix)
	case cri.less(criKnown) && criLeast.less(e.oldest):
		return found(Warning, where, fmt.Sprintf("%s: docker serves its API from %d.%d on, and it is not known whether that cri-dockerd speaks it", what, e.oldest[0], e.oldest[1]), fix)
	}
	return nil
}
