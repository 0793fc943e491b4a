package gomod

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// strip leaves symbol tables and the linker's build id out of a program: the
// first for size, the second because it says nothing that the digest does not.
const strip = "-s -w -buildid="

// sums pins the modules that kscratch uses by default, so that their keys are
// known without a download. Other versions are held to the checksum database.
var sums = map[string]string{
	"k8s.io/kubernetes@v1.36.3":               "h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=",
	"github.com/Mirantis/cri-dockerd@v0.3.17": "h1:A/z4K9wbqCrc24mBEoPHRac7MgsuSf1ACE8TJOzV/M0=",
	"go.etcd.io/etcd/server/v3@v3.6.8":        "h1:U2strdSEy1U8qcSzRIdkYpvOPtBy/9i/IfaaCI9flZ4=",
	"go.etcd.io/etcd/etcdctl/v3@v3.6.8":       "h1:iO3zX9xuY/X2Y+fnt6mUR7o/18iBGYpd/lhs/4FqHCc=",
	"go.etcd.io/etcd/etcdutl/v3@v3.6.8":       "h1:5YolVcLplhVwSR7IXemN7kBpx/L4qHAmyNc+iW+PL/k=",
	"github.com/coredns/coredns@v1.14.7":      "h1:UPDkn4QN+xyNfjz3U5ldgoLszDYpMZEJoy3+ze9au4Q=",
	"github.com/flannel-io/flannel@v0.28.0":   "h1:epGv3HCi62bafyBhfpgHBl5y/yMZo9WmaKYauMFy4ug=",
}

func recipe(module, version, ldflags string, packages ...Package) Recipe {
	return Recipe{Module: module, Version: version, Sum: sums[module+"@"+version], Packages: packages, Ldflags: strip + ldflags}
}

// KubernetesPrograms are the programs of [Kubernetes], in order of name.
var KubernetesPrograms = []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"}

// Kubernetes builds the six programs of a node and its control plane, with the
// tags and the version stamps of upstream's hack/lib/golang.sh and version.sh.
// The commit is left empty: a module does not tell it, and client-go calls an
// empty one "unknown". The build date is epoch; a zero epoch means 1970, which
// is also what the source says by itself. A new epoch links everything anew,
// so give one only to people who ask for it.
func Kubernetes(version string, epoch time.Time) (Recipe, error) {
	var packages []Package
	for _, name := range KubernetesPrograms {
		packages = append(packages, Package{Path: "k8s.io/kubernetes/cmd/" + name, Name: name})
	}
	return kubernetes(version, epoch, packages)
}

// KubernetesTests builds e2e.test, upstream's end-to-end suite, and agnhost,
// the program that most of the suite's pods run. It compiles little more than
// [Kubernetes] does, if that was built before it with the same tags.
func KubernetesTests(version string) (Recipe, error) {
	return kubernetes(version, time.Time{}, []Package{
		{Path: "k8s.io/kubernetes/test/e2e", Name: "e2e.test", Test: true},
		{Path: "k8s.io/kubernetes/test/images/agnhost", Name: "agnhost"},
	})
}

func kubernetes(version string, epoch time.Time, packages []Package) (Recipe, error) {
	if semver.Canonical(version) != version || semver.Major(version) != "v1" {
		return Recipe{}, fmt.Errorf("reading Kubernetes version %q: want one such as v1.36.3", version)
	}
	if epoch.IsZero() {
		epoch = time.Unix(0, 0)
	}
	_, minor, _ := strings.Cut(semver.MajorMinor(version), ".")
	if semver.Prerelease(version) != "" {
		minor += "+"
	}
	stamps := [][2]string{
		{"buildDate", epoch.UTC().Format(time.RFC3339)},
		{"gitCommit", ""},
		{"gitTreeState", "clean"},
		{"gitVersion", version},
		{"gitMajor", "1"},
		{"gitMinor", minor},
	}
	var ldflags strings.Builder
	for _, s := range stamps {
		for _, p := range []string{"k8s.io/client-go/pkg/version", "k8s.io/component-base/version"} {
			fmt.Fprintf(&ldflags, " -X %s.%s=%s", p, s[0], s[1])
		}
	}
	r := recipe("k8s.io/kubernetes", version, ldflags.String(), packages...)
	r.Tags = []string{"selinux", "notest", "grpcnotrace"}
	// The staging modules are published as v0 beside each v1 of Kubernetes.
	r.Pins = []Pin{{"k8s.io/", "v0" + strings.TrimPrefix(version, "v1")}}
	return r, nil
}

// CRIDockerd builds cri-dockerd, by which the kubelet reaches docker.
func CRIDockerd(version string) Recipe {
	const m = "github.com/Mirantis/cri-dockerd"
	const v = m + "/cmd/version"
	return recipe(m, version,
		fmt.Sprintf(" -X %s.Version=%s -X %s.PreRelease= -X %s.GitCommit=unknown", v, strings.TrimPrefix(version, "v"), v, v),
		Package{Path: m, Name: "cri-dockerd"})
}

const etcdStamp = " -X go.etcd.io/etcd/api/v3/version.GitSHA=unknown"

// Etcd builds the etcd server.
func Etcd(version string) Recipe {
	const m = "go.etcd.io/etcd/server/v3"
	return recipe(m, version, etcdStamp, Package{Path: m, Name: "etcd"})
}

// Etcdctl builds the client of etcd.
func Etcdctl(version string) Recipe {
	const m = "go.etcd.io/etcd/etcdctl/v3"
	return recipe(m, version, etcdStamp, Package{Path: m, Name: "etcdctl"})
}

// Etcdutl builds the tool for etcd's files: snapshots, defragmentation.
func Etcdutl(version string) Recipe {
	const m = "go.etcd.io/etcd/etcdutl/v3"
	return recipe(m, version, etcdStamp, Package{Path: m, Name: "etcdutl"})
}

// CoreDNS builds the cluster's DNS server with its default plugins.
func CoreDNS(version string) Recipe {
	const m = "github.com/coredns/coredns"
	r := recipe(m, version, " -X "+m+"/coremain.GitCommit=unknown", Package{Path: m, Name: "coredns"})
	r.Tags = []string{"grpcnotrace"}
	return r
}

// Flannel builds flanneld, which makes one network of the pods of all nodes.
// The udp backend is left out: on amd64 it needs cgo, and upstream means it
// for debugging only.
func Flannel(version string) Recipe {
	const m = "github.com/flannel-io/flannel"
	r := recipe(m, version, " -X "+m+"/pkg/version.Version="+version, Package{Path: m, Name: "flanneld"})
	r.Unimport = []string{m + "/pkg/backend/udp"}
	return r
}
