package lint

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

const kubeletYAML = "/etc/kubernetes/kubelet.yaml"

// daemon is the part of daemon.json that rules look at.
type daemon struct {
	ExecOpts []string        `json:"exec-opts"`
	DataRoot string          `json:"data-root"`
	Pools    json.RawMessage `json:"default-address-pools"`
}

func (n *node) daemon() (daemon, error) {
	var d daemon
	b, ok := n.Files.read(daemonJSON)
	if !ok {
		return d, nil
	}
	err := json.Unmarshal(b, &d)
	return d, err
}

func (n *node) kubelet() (kubeletv1.KubeletConfiguration, error) {
	var c kubeletv1.KubeletConfiguration
	b, _ := n.Files.read(kubeletYAML)
	err := yaml.Unmarshal(b, &c)
	return c, err
}

// cgroupDriver knows what both programs take where they are told nothing: on a
// machine with cgroup v2 and systemd, docker takes systemd and the kubelet
// cgroupfs.
func cgroupDriver(n *node) []Finding {
	for _, p := range []string{daemonJSON, kubeletYAML} {
		if _, ok := n.Files.read(p); !ok {
			return nil // nothing is known of it
		}
	}
	d, err := n.daemon()
	if err != nil {
		return found(Error, n.Files.where(daemonJSON), "cannot be read: "+err.Error(), "write JSON")
	}
	k, err := n.kubelet()
	if err != nil {
		return found(Error, n.Files.where(kubeletYAML), "cannot be read: "+err.Error(), "write a KubeletConfiguration")
	}
	docker, kubelet := "systemd", k.CgroupDriver
	for _, o := range d.ExecOpts {
		if v, ok := strings.CutPrefix(o, "native.cgroupdriver="); ok {
			docker = v
		}
	}
	if flag, ok := n.units.flag("kubelet.service", "cgroup-driver"); ok {
		kubelet = flag
	}
	if kubelet == "" {
		kubelet = "cgroupfs"
	}
	if docker != kubelet {
		return found(Error, n.Files.where(daemonJSON), fmt.Sprintf("docker has the cgroup driver %s, and the kubelet %s", docker, kubelet),
			"leave exec-opts and cgroupDriver as kscratch writes them")
	}
	return nil
}

func criSocket(n *node) []Finding {
	const unit = "cri-docker.service"
	listens, ok := n.units.flag(unit, "container-runtime-endpoint")
	_, known := n.Files.read(kubeletYAML)
	k, err := n.kubelet()
	if !ok || !known || err != nil {
		return nil
	}
	asks := k.ContainerRuntimeEndpoint
	if flag, ok := n.units.flag("kubelet.service", "container-runtime-endpoint"); ok {
		asks = flag
	}
	if strings.TrimPrefix(asks, "unix://") != strings.TrimPrefix(listens, "unix://") {
		return found(Error, n.Files.where(kubeletYAML), fmt.Sprintf("containerRuntimeEndpoint is %q, and cri-dockerd listens at %q", asks, listens),
			"leave containerRuntimeEndpoint as kscratch writes it")
	}
	return nil
}

// stateDirs looks for directories that must outlive an image, and be writable.
func stateDirs(n *node) []Finding {
	var out []Finding
	outside := func(where, what, dir, fix string) {
		if dir != "" && !strings.HasPrefix(path.Clean(dir), "/var/") {
			out = append(out, Finding{Severity: Error, Where: where, What: fmt.Sprintf("%s is %s, outside of /var", what, dir), Fix: fix})
		}
	}
	if d, err := n.daemon(); err == nil {
		outside(n.Files.where(daemonJSON), "data-root", d.DataRoot, "set docker.dataRoot to a path below /var")
	}
	if dir, ok := n.units.flag("kubelet.service", "root-dir"); ok {
		outside(n.Files.where(etcUnits+"kubelet.service"), "--root-dir", dir, "set kubelet.rootDir to a path below /var")
	}
	for i := range n.pods {
		p := &n.pods[i]
		for _, c := range p.containers() {
			for _, word := range slices.Concat(c.Command, c.Args) {
				dir, ok := strings.CutPrefix(word, "--data-dir=")
				if !ok || !p.static || !isEtcd(c.Image) {
					continue
				}
				const fix = "keep etcd's data at a hostPath below /var"
				if host, mounted := p.onHost(c, dir); mounted {
					outside(c.where, "etcd's data", host, fix)
				} else {
					out = append(out, Finding{Severity: Error, Where: c.where, What: "etcd's data in " + dir + " goes away with the container", Fix: fix})
				}
			}
		}
	}
	return out
}

func isEtcd(image string) bool {
	name, _, _ := strings.Cut(path.Base(image), ":")
	return name == "etcd"
}

// onHost returns the path on the node of one in a container.
func (p *pod) onHost(c container, dir string) (string, bool) {
	for _, m := range c.VolumeMounts {
		rest, below := strings.CutPrefix(path.Clean(dir)+"/", path.Clean(m.MountPath)+"/")
		for _, v := range p.Spec.Volumes {
			if below && v.Name == m.Name && v.HostPath != nil {
				return path.Join(v.HostPath.Path, m.SubPath, rest), true
			}
		}
	}
	return "", false
}

// configPath knows what of a node Ignition can write to: /etc, an overlay, and
// /var, the state partition.
func configPath(n *node) []Finding {
	var out []Finding
	for p, f := range n.Files {
		if !f.Config || p == "/etc" || p == "/var" {
			continue
		}
		at, _, _ := n.Files.find(path.Dir(p))
		if !strings.HasPrefix(at+"/", "/etc/") && !strings.HasPrefix(at+"/", "/var/") {
			out = append(out, Finding{Severity: Error, Where: n.Files.where(p), What: "lies in the read-only part of a node, so that its first boot fails",
				Fix: "write below /etc or /var, or put it into a package of base.packages"})
		}
	}
	return out
}
