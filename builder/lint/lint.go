// Package lint says what would go wrong on a node before there is an image of
// it: a static pod whose container image is not baked, units that wait for each
// other, ranges of addresses that overlap, versions that do not fit.
//
// An [Input] holds what an image will contain. [Rules] are functions from it to
// [Finding]s, in the order of the page docs/lint.md; [Run] applies them all. An
// error is something that cannot work; a warning is something that may be meant.
//
// Not judged: what a program does with its own configuration, content that a
// node fetches on its own, and units that generators make while a node boots.
package lint

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
)

// Severity is how sure a finding is to do harm.
type Severity string

// An Error stops a build. A Warning is told.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that a rule does not like.
type Finding struct {
	Rule     string   `json:"rule"` // its ID
	Severity Severity `json:"severity"`
	Where    string   `json:"where"` // a path on the node, a field of the cluster file, or a package
	What     string   `json:"what"`
	Fix      string   `json:"fix"`
}

// String renders the finding as "where: what; fix (rule)".
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s; %s (%s)", f.Where, f.What, f.Fix, f.Rule)
}

// Input is what an image will contain.
type Input struct {
	Files    Files             // what a node has after its first boot; see [Root]
	Images   []Image           // baked container images
	Versions map[string]string // of programs: kubelet, kube-proxy, kubectl, kube-apiserver, cri-dockerd, docker
	Network  ignition.Network  // the address plan
}

// Image is a baked container image.
type Image struct {
	Name          string        // name:tag, as docker shows it
	Digest, Index layers.Digest // that docker also knows it by; may be empty
	OS, Arch      string        // as in its configuration
	Entrypoint    []string
	Cmd           []string
	Env           []string // NAME=value

	Programs Files // what can be executed in it, and symbolic links; nil: not known
}

// Rule is one thing that is looked at.
type Rule struct {
	ID  string
	Doc string // one sentence for docs/lint.md

	check func(*node) []Finding
}

// Rules is every rule.
var Rules = []Rule{
	{"pod-manifest", "The kubelet can read every static pod, and kubectl every bootstrap manifest.", podManifest},
	{"pod-api-objects", "Static pods refer to no object of the API: the kubelet refuses those that do.", podObjects},
	{"image-baked", "Every image that a static pod names is baked under that very name, after docker's rules for names; " +
		"for a bootstrap manifest, whose pods may pull, it is a warning.", imageBaked},
	{"image-pull", "No pod asks for a baked image to be pulled, as `imagePullPolicy: Always` does, and the tag `latest` without a policy.", imagePull},
	{"image-pause", "The pause image that cri-dockerd is told of is baked, and the kubelet is told of no other.", imagePause},
	{"image-platform", "Container images are for linux/amd64.", imagePlatform},
	{"image-command", "A pod's container has a command, its own or its image's, and the program is in the image or mounted from the node.", imageCommand},
	{"version-skew", "Kubernetes' programs keep to its version skew policy, <https://kubernetes.io/releases/version-skew-policy/>.", versionSkew},
	{"version-etcd", "etcd is one that the API server's release supports: an older minor version is an error, an older patch a warning.", versionEtcd},
	{"version-coredns", "CoreDNS is no release that is known to be bad.", versionCoreDNS},
	{"docker-api", "docker and cri-dockerd share a version of docker's API.", dockerAPI},
	{"cri-socket", "The kubelet looks for cri-dockerd where it listens.", criSocket},
	{"cgroup-driver", "The kubelet and docker have the same cgroup driver.", cgroupDriver},
	{"cidr-overlap", "Pods, services, nodes, static routes and docker's own networks have ranges of their own.", cidrOverlap},
	{"cluster-dns", "The cluster's DNS server has an address of the service range, not that of the API server, and pods are told this one.", clusterDNS},
	{"unit-cycle", "No units wait for each other; systemd would leave one of them out.", unitCycle},
	{"unit-missing", "A unit that another one of the configuration requires is there.", unitMissing},
	{"unit-program", "The programs of units are there and can be executed.", unitProgram},
	{"config-path", "The first boot writes below /etc and /var only; the rest of a node is read-only.", configPath},
	{"state-dirs", "etcd's data, the kubelet's root directory and docker's are below /var, on the state partition.", stateDirs},
	{"file-writable", "Nothing is writable for everybody, but directories with the sticky bit.", fileWritable},
	{"file-setuid", "Set-user-ID and set-group-ID programs are on the list below.", fileSetuid},
	{"kernel-config", "The kernel has what a node needs, built in or as a module that is in the image.", kernelConfig},
}

// Run applies every rule. The findings are in the order of the rules, and by
// place for each.
func Run(in Input) []Finding {
	n := look(in)
	var out []Finding
	for _, r := range Rules {
		found := r.check(n)
		for i := range found {
			found[i].Rule = r.ID
		}
		slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.What, b.What)) })
		out = append(out, slices.Compact(found)...)
	}
	return out
}

// Errors returns the findings that stop a build.
func Errors(all []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool { return f.Severity != Error })
}

// Text writes findings, a line for each.
func Text(w io.Writer, all []Finding) error {
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%s: %s\n", f.Severity, f); err != nil {
			return err
		}
	}
	return nil
}

// node is an input with what several rules make of it.
type node struct {
	Input
	pods   []pod     // of static pods and bootstrap manifests
	broken []Finding // manifests that are no such thing
	units  units
}

func look(in Input) *node {
	n := &node{Input: in, units: newUnits(in.Files)}
	n.pods, n.broken = in.Files.pods()
	return n
}

// found returns a list of one finding, without its rule.
func found(s Severity, where, what, fix string) []Finding {
	return []Finding{{Severity: s, Where: where, What: what, Fix: fix}}
}
