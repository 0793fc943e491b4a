// Package kubernetes reads and writes the Kubernetes server tarball, the file
// kubernetes-server-linux-<arch>.tar.gz of a release
// (https://kubernetes.io/releases/download/, made by build/lib/release.sh in
// the Kubernetes source).
//
//	kubernetes/version                        "v1.36.3\n"
//	kubernetes/server/bin/kubelet             a program
//	kubernetes/server/bin/kube-apiserver.tar  its image, a docker-archive
//	kubernetes/server/bin/kube-apiserver.docker_tag  the image's tag, "v1.36.3\n"
//
// [Get] finds a tarball: in the content store, at a path, in a release, or
// built from Go modules by [Write]. [Extract] takes members out of one.
// [CRIDockerd] finds the one program of a node that Kubernetes' tarball lacks.
//
// A tarball by Write holds the six programs that a cluster runs, not kubeadm,
// kube-log-runner, the aggregator, the mounter, the licence texts of the
// dependencies (kubernetes/LICENSES) or kubernetes-src.tar.gz: nothing reads
// these. Its images hold one static program and no base: kube-apiserver lacks
// the file capability for ports below 1024 as another user than root, and
// kube-proxy lacks iptables and nft (kscratch runs it outside containers).
// Instead of the entrypoint /go-runner they have the program as their command,
// so that both a pod's command and its args: ["kube-apiserver", …] work.
package kubernetes

import (
	"maps"
	"slices"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Images are the programs that a tarball also holds as container images.
var Images = []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"}

// Layer returns a layer with programs in usr/bin, mode 0755, by file name. The
// owner is said to bring all of them.
func Layer(name, owner string, programs map[string]cache.Blob) layers.Layer {
	parts := []string{"kubernetes.Layer", "1", name, owner}
	var files []layers.File
	for _, n := range slices.Sorted(maps.Keys(programs)) {
		b := programs[n]
		parts = append(parts, n, string(b.Digest))
		files = append(files, layers.File{Path: "usr/bin/" + n, Mode: 0o755, Size: b.Size, Owner: owner, Open: b.ReadCloser})
	}
	return layers.Of(name, layers.DigestOfParts(parts...), files...)
}
