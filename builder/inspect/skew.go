package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/verity"
)

// Verdict says whether a node may go from image A to image B and back, its
// state partition kept. It judges by the version skew policy of Kubernetes
// (https://kubernetes.io/releases/version-skew-policy/), by how etcd changes
// versions (https://etcd.io/docs/v3.6/upgrades/ and …/downgrades/), and by what
// the cluster remembers of the cluster file. It knows nothing of workloads.
type Verdict struct {
	Upgrade  Risk     `json:"upgrade"`  // from A to B
	Rollback Risk     `json:"rollback"` // from B to A, once B has run
	Reasons  []string `json:"reasons"`  // for all that is not safe
}

// Risk is how a change of images will go.
type Risk string

// The risks, from the least.
const (
	Safe         Risk = "safe"
	Care         Risk = "with care"
	Unsafe       Risk = "unsafe"
	Incomparable Risk = "not comparable"
)

var risks = []Risk{Safe, Care, Unsafe, Incomparable}

// judge compares two images for a node that goes from a to b.
func judge(ctx context.Context, a, b *Image) (Verdict, error) {
	v := Verdict{Upgrade: Safe, Rollback: Safe, Reasons: []string{}}
	if a.Build.Role != b.Build.Role || a.Build.Cluster != b.Build.Cluster {
		return Verdict{Incomparable, Incomparable, []string{fmt.Sprintf("one is a %s of cluster %s, the other a %s of cluster %s",
			a.Build.Role, a.Build.Cluster, b.Build.Role, b.Build.Cluster)}}, nil
	}
	kube := kubelet
	if a.Build.Role == "master" {
		kube = apiServer
	}
	v.step("Kubernetes", a.version("kubernetes-server"), b.version("kubernetes-server"), kube)
	v.step("etcd", a.version("etcd"), b.version("etcd"), etcd)
	if a.Build.PKI != b.Build.PKI {
		v.both(Care, "the PKI differs: if the authority is another one, certificates and tokens that the state partition holds are refused")
	}
	v.room(a, b)
	return v, v.remembered(ctx, a, b)
}

func (i *Image) version(name string) string {
	for _, v := range i.versions() {
		if v.Name == name {
			return v.Version
		}
	}
	return ""
}

func worse(at *Risk, r Risk) {
	if slices.Index(risks, r) > slices.Index(risks, *at) {
		*at = r
	}
}

func (v *Verdict) both(r Risk, reason string) {
	worse(&v.Upgrade, r)
	worse(&v.Rollback, r)
	v.Reasons = append(v.Reasons, reason)
}

// step judges a component by a rule for going from one minor version to
// another, there and back.
func (v *Verdict) step(name, from, to string, rule func(minors int) (Risk, string)) {
	if from == to {
		return
	}
	a, okA := parseMinor(from)
	b, okB := parseMinor(to)
	if !okA || !okB || a.major != b.major {
		v.both(Unsafe, fmt.Sprintf("%s: nothing is known of going between %q and %q", name, from, to))
		return
	}
	for _, way := range []struct {
		at       *Risk
		what     string
		from, to string
		minors   int
	}{{&v.Upgrade, "upgrade", from, to, b.minor - a.minor}, {&v.Rollback, "roll back", to, from, a.minor - b.minor}} {
		r, why := rule(way.minors)
		worse(way.at, r)
		if r != Safe {
			v.Reasons = append(v.Reasons, fmt.Sprintf("%s: %s from %s to %s: %s", way.what, name, way.from, way.to, why))
		}
	}
}

type minorVersion struct{ major, minor int }

// parseMinor reads the first two numbers of a version such as v1.36.3.
func parseMinor(s string) (minorVersion, bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return minorVersion{}, false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return minorVersion{major, minor}, cmp.Or(err, err2) == nil
}

// apiServer is the rule for masters. There is one API server, so that the
// cluster has the version of its image.
func apiServer(minors int) (Risk, string) {
	switch {
	case minors < 0:
		return Unsafe, "an API server does not go back a minor version: what the newer one stored may be unknown to it; restore etcd's data from before"
	case minors > 1:
		return Unsafe, "API servers go up one minor version at a time"
	case minors == 1:
		return Care, "first see that no kubelet is more than three minor versions older, and that no client uses an API that goes away"
	}
	return Safe, ""
}

// kubelet is the rule for other nodes: a kubelet is never newer than the API
// server, and at most three minor versions older.
func kubelet(minors int) (Risk, string) {
	switch {
	case minors > 0:
		return Care, "a kubelet must not be newer than the API server: masters first"
	case minors < -3:
		return Unsafe, "a kubelet may be three minor versions older than the API server, not more"
	case minors < 0:
		return Care, "a kubelet may be three minor versions older than the API server: compare with the masters' version"
	}
	return Safe, ""
}

// etcd is the rule for the cluster's store.
func etcd(minors int) (Risk, string) {
	switch {
	case minors > 1:
		return Unsafe, "etcd goes up one minor version at a time"
	case minors == -1:
		return Care, "run `etcdctl downgrade enable` on the newer version first; the older one refuses its data otherwise"
	case minors < -1:
		return Unsafe, "etcd goes back at most one minor version"
	}
	return Safe, ""
}

// remembered judges what a running cluster remembers of the cluster file.
func (v *Verdict) remembered(ctx context.Context, a, b *Image) error {
	x, err := a.specValues(ctx)
	if err != nil {
		return err
	}
	y, err := b.specValues(ctx)
	if err != nil {
		return err
	}
	for _, k := range []struct{ key, why string }{
		{"network.clusterCIDR", "nodes keep the pod CIDRs that they have"},
		{"network.serviceCIDR", "services keep the addresses that they have"},
		{"network.clusterDNS", "pods keep the DNS server that they were started with"},
		{"network.cbr0", "a node that was told its pod CIDR keeps it"},
		{"kubelet.nodeNames", "a node under another name is another node"},
		{"kubelet.rootDir", "pods and their volumes stay below the old directory"},
		{"security", "the other nodes and all clients must change with it"},
	} {
		if x[k.key] != y[k.key] {
			v.both(Care, fmt.Sprintf("%s goes from %s to %s: %s", k.key, x[k.key], y[k.key], k.why))
		}
	}
	return nil
}

// room says whether one image fits into the slots of a disk that was divided
// by the other.
func (v *Verdict) room(a, b *Image) {
	for _, way := range []struct {
		at        *Risk
		what      string
		old, next *Image
	}{{&v.Upgrade, "upgrade", a, b}, {&v.Rollback, "roll back", b, a}} {
		slot, need := way.old.slot(), way.next.rootSize()
		if need > slot {
			worse(way.at, Unsafe)
			v.Reasons = append(v.Reasons, fmt.Sprintf("%s: the root of %s needs %s, the disk has slots of %s",
				way.what, way.next.Name, bytesText(need), bytesText(slot)))
		}
	}
}

// slot returns the size in bytes of the slots that the image gives a disk: an
// image's own root partition is as large as its content.
func (i *Image) slot() int64 {
	var spec struct {
		Disk struct {
			Root int64 `yaml:"root"` // MiB
		} `yaml:"disk"`
	}
	b, err := i.Initrd.ReadFile(record.SpecPath)
	if err == nil {
		err = yaml.Unmarshal(b, &spec)
	}
	if err != nil {
		return 0 // nothing is known to fit
	}
	return spec.Disk.Root << 20
}

// rootSize returns the bytes that the root takes, by its hash tree.
func (i *Image) rootSize() int64 {
	at := i.disk.Find(disk.RootVerity)
	if at < 0 {
		return 0
	}
	sb, err := verity.ReadSuperblock(i.disk.Reader(at))
	if err != nil {
		return 0
	}
	return sb.DataSize
}
