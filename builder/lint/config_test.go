package lint_test

import (
	"net/netip"
	"testing"

	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/ignition"
)

// daemon is another daemon.json.
func daemon(text string) string { return "-- config/etc/docker/daemon.json --\n" + text + "\n" }

func TestDrivers(t *testing.T) {
	const docker = "/etc/docker/daemon.json (butane[0] a.bu): "
	run(t, []each{
		{"docker's own default", daemon(`{}`), nil, ""},
		{"another of docker", daemon(`{"exec-opts": ["native.cgroupdriver=cgroupfs"]}`), nil, "cgroup-driver error " + docker + "docker has the cgroup driver cgroupfs, and the kubelet systemd"},
		{"another of the kubelet", "-- config/etc/kubernetes/kubelet.yaml --\ncontainerRuntimeEndpoint: unix:///run/cri.sock\n", nil,
			"cgroup-driver error /etc/docker/daemon.json: docker has the cgroup driver systemd, and the kubelet cgroupfs"},
		{"a broken daemon.json", daemon(`{`), nil, "cgroup-driver error " + docker + "cannot be read: "},
		{"a broken kubelet.yaml", "-- config/etc/kubernetes/kubelet.yaml --\n[\n", nil, "cgroup-driver error /etc/kubernetes/kubelet.yaml (butane[0] a.bu): cannot be read: "},
		{"another socket", "-- config/etc/kubernetes/kubelet.yaml --\ncgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/containerd.sock\n", nil,
			`cri-socket error /etc/kubernetes/kubelet.yaml (butane[0] a.bu): containerRuntimeEndpoint is "unix:///run/containerd.sock", and cri-dockerd listens at "unix:///run/cri.sock"`},
		{"another DNS server", "-- config/etc/kubernetes/kubelet.yaml --\ncgroupDriver: systemd\ncontainerRuntimeEndpoint: /run/cri.sock\nclusterDNS: [10.96.0.11]\n", nil,
			"cluster-dns error /etc/kubernetes/kubelet.yaml (butane[0] a.bu): clusterDNS is 10.96.0.11, and the DNS service has 10.96.0.10"},
	})
}

func TestState(t *testing.T) {
	etcd := func(mounts, volumes string) string {
		return "-- config/etc/kubernetes/manifests/etcd.yaml --\nkind: Pod\nspec: {containers: [{image: 'registry.k8s.io/etcd:3.6.8-0', command: [etcd, --data-dir=/data/a], volumeMounts: " +
			mounts + "}], volumes: " + volumes + "}\n"
	}
	const at = "state-dirs error /etc/kubernetes/manifests/etcd.yaml (butane[0] a.bu): spec.containers[0]: "
	run(t, []each{
		{"docker", daemon(`{"data-root": "/srv/docker"}`), nil, "state-dirs error /etc/docker/daemon.json (butane[0] a.bu): data-root is /srv/docker, outside of /var"},
		{"out again", daemon(`{"data-root": "/var/../srv"}`), nil, "state-dirs error /etc/docker/daemon.json (butane[0] a.bu): data-root is "},
		{"kubelet", "-- config/etc/systemd/system/kubelet.service.d/a.conf --\n[Service]\nExecStart=\nExecStart=/bin/kubelet --root-dir /opt/k\n", nil,
			"state-dirs error /etc/systemd/system/kubelet.service: --root-dir is /opt/k, outside of /var"},
		{"etcd", etcd("[{name: d, mountPath: /data}]", "[{name: d, hostPath: {path: /var/lib/e}}]"), nil, ""},
		{"etcd elsewhere", etcd("[{name: d, mountPath: /data}]", "[{name: d, hostPath: {path: /srv}}]"), nil, at + "etcd's data is /srv/a, outside of /var"},
		{"etcd in memory", etcd("[{name: d, mountPath: /data}]", "[{name: d, emptyDir: {}}]"), nil, at + "etcd's data in /data/a goes away with the container"},
		{"etcd in the container", etcd("[]", "[]"), nil, at + "etcd's data in /data/a goes away with the container"},
	})
}

func TestModes(t *testing.T) {
	run(t, []each{
		{"below /etc and /var", "-- config/etc/a/b --\n-- config/var/lib/a --\n", nil, ""},
		{"elsewhere", "-- config/usr/local/bin/a 0755 --\n-- config/opt/b --\n-- config/data d0755 --\n", nil, `
			config-path error /data (butane[0] a.bu): lies in the read-only part of a node
			config-path error /opt/b (butane[0] a.bu): lies in the read-only part of a node
			config-path error /usr/local/bin/a (butane[0] a.bu): lies in the read-only part of a node`},
		{"by a link", "-- root/media --\n-> var/media\n-- config/media/a --\n", nil, ""},
		{"writable", "-- root/usr/share/a 0666 --\n-- root/usr/share/b d0777 --\n-- config/etc/c 0602 --\n-- root/usr/share/l --\n-> a\n", nil, `
			file-writable error /etc/c (butane[0] a.bu): is writable for everybody: it has mode -rw-----w-
			file-writable error /usr/share/a: is writable for everybody: it has mode -rw-rw-rw-
			file-writable error /usr/share/b: is writable for everybody: it has mode drwxrwxrwx`},
		{"rights of others", "-- root/usr/bin/sudo 4755 --\n-- root/usr/bin/su 6755 --\n-- root/usr/share/d d2755 --\n", nil, `
			file-setuid warning /usr/bin/su: is a set-group-ID program that a node does not need
			file-setuid warning /usr/bin/sudo: is a set-user-ID program that a node does not need`},
	})
}

func TestKernel(t *testing.T) {
	const config = "-- root/usr/lib/modules/6/config --\n"
	vxlan := func(in *lint.Input) { in.Network.Mode, in.Network.Backend = ignition.Flannel, ignition.VXLAN }
	all := func(more string, without string) func(*lint.Input) {
		return func(in *lint.Input) {
			body := more
			for _, o := range lint.KernelOptions() {
				if o != without && o != "VXLAN" {
					body += "CONFIG_" + o + "=y\n"
				}
			}
			in.Files["/usr/lib/modules/6/config"] = lint.File{Body: []byte(body)}
		}
	}
	const at = "kernel-config error /usr/lib/modules/6/config: "
	run(t, []each{
		{"a module that flannel needs", "", vxlan, ""},
		{"not without flannel", "", all("", ""), ""},
		{"not in the image", "", func(in *lint.Input) { vxlan(in); delete(in.Files, "/usr/lib/modules/6/kernel/vxlan.ko.xz") }, at + "CONFIG_VXLAN is a module that is not in the image"},
		{"off", "", all("# CONFIG_EROFS_FS is not set\n", "EROFS_FS"), at + "CONFIG_EROFS_FS is off"},
		{"a module that has to be built in", "", all("CONFIG_CGROUPS=m\n", "CGROUPS"), at + "CONFIG_CGROUPS is a module that is not in the image"},
		{"host-gw", "", func(in *lint.Input) {
			all("", "")(in)
			in.Network.Mode, in.Network.Backend = ignition.Flannel, ignition.HostGW
		}, ""},
		{"no configuration", config, func(in *lint.Input) { delete(in.Files, "/usr/lib/modules/6/config") }, "kernel-config warning /usr/lib/modules/*/config: is not there"},
	})
}

func TestNetwork(t *testing.T) {
	net := func(edit func(*ignition.Network)) func(*lint.Input) {
		return func(in *lint.Input) { edit(&in.Network) }
	}
	route := func(to, via string) func(*lint.Input) {
		return net(func(w *ignition.Network) {
			w.Routes = []ignition.Route{{To: cidr(to), Via: netip.MustParseAddr(via)}}
			w.Nodes = []netip.Prefix{cidr("192.168.1.0/24")}
		})
	}
	const docker = "cidr-overlap error /etc/docker/daemon.json (butane[0] a.bu): "
	run(t, []each{
		{"nodes", "", net(func(w *ignition.Network) {
			w.Nodes = []netip.Prefix{cidr("192.168.0.0/16"), cidr("10.244.7.0/24"), cidr("10.0.0.0/8")}
		}), `
			cidr-overlap error network.nodeCIDRs[1]: 10.244.7.0/24 for nodes overlaps 10.244.0.0/16 for pods
			cidr-overlap error network.nodeCIDRs[2]: 10.0.0.0/8 for nodes overlaps 10.244.0.0/16 for pods
			cidr-overlap error network.nodeCIDRs[2]: 10.0.0.0/8 for nodes overlaps 10.96.0.0/12 for services`},
		{"pods and services", "", net(func(w *ignition.Network) {
			w.ServiceCIDR = cidr("10.240.0.0/12")
			w.DNS = netip.MustParseAddr("10.240.0.10")
		}), `
			cidr-overlap error network.serviceCIDR: 10.240.0.0/12 for services overlaps 10.244.0.0/16 for pods
			cluster-dns error /etc/kubernetes/kubelet.yaml: clusterDNS is 10.96.0.10, and the DNS service has 10.240.0.10`},
		{"special addresses", "", net(func(w *ignition.Network) { w.ClusterCIDR = cidr("127.5.0.0/16") }), "cidr-overlap error network.clusterCIDR: 127.5.0.0/16 for pods overlaps 127.0.0.0/8 for loopback addresses"},
		{"docker's default networks", "", net(func(w *ignition.Network) { w.ClusterCIDR = cidr("172.18.0.0/16") }),
			"cidr-overlap warning /etc/docker/daemon.json: 172.18.0.0/16 for docker's own networks overlaps 172.18.0.0/16 for pods"},
		{"others of docker", daemon(`{"default-address-pools": [{"base": "172.30.0.0/16", "size": 24}]}`), net(func(w *ignition.Network) { w.ClusterCIDR = cidr("172.18.0.0/16") }), ""},
		{"wrong ones of docker", daemon(`{"default-address-pools": [{"base": "10.244.3.1/24", "size": 24}, {"base": "192.168.0.0/16", "size": 24}]}`), route("10.244.3.0/24", "192.168.1.3"), `
			` + docker + `10.244.3.0/24 for docker's own networks overlaps 10.244.0.0/16 for pods
			` + docker + `192.168.0.0/16 for docker's own networks overlaps 192.168.1.0/24 for nodes`},
		{"no ranges", daemon(`{"default-address-pools": "172.30.0.0/16"}`), nil, docker + "default-address-pools is no list of base and size"},
		{"a route to pods", "", route("10.244.3.0/24", "192.168.1.3"), ""},
		{"a default route", "", route("0.0.0.0/0", "192.168.1.1"), ""},
		{"a wider route", "", route("10.0.0.0/8", "192.168.1.1"), ""},
		{"a route by itself", "", route("172.16.0.0/12", "172.16.0.1"), "cidr-overlap error network.routes[0]: the way to 172.16.0.0/12 is by 172.16.0.1, which is a part of it"},
		{"a route to services", "", route("10.97.0.0/16", "192.168.1.1"), "cidr-overlap warning network.routes[0]: 10.97.0.0/16 lies in 10.96.0.0/12 for services"},
		{"a route by a service", "", route("172.16.0.0/12", "10.96.0.1"), "cidr-overlap error network.routes[0]: the next hop 10.96.0.1 is an address for services"},
		{"a route to nodes", "", route("192.168.1.128/25", "192.168.1.1"), "cidr-overlap warning network.routes[0]: 192.168.1.128/25 lies in 192.168.1.0/24 for nodes"},
		{"DNS outside", "", net(func(w *ignition.Network) { w.DNS = netip.MustParseAddr("10.95.0.10") }), "cluster-dns error network.clusterDNS: 10.95.0.10 is outside of 10.96.0.0/12 for services"},
		{"DNS where the API server is", "", net(func(w *ignition.Network) { w.DNS = netip.MustParseAddr("10.96.0.1") }), "cluster-dns error network.clusterDNS: 10.96.0.1 is taken"},
	})
}

func TestVersions(t *testing.T) {
	set := func(name, version string) func(*lint.Input) {
		return func(in *lint.Input) { in.Versions[name] = version }
	}
	pod := func(image, version string) (string, func(*lint.Input)) {
		ref := "registry.k8s.io/" + image + ":" + version
		return static("{image: '" + ref + "', command: [" + image + "]}"), func(in *lint.Input) {
			in.Images = append(in.Images, lint.Image{Name: ref, OS: "linux", Arch: "amd64"})
		}
	}
	of := func(name, image, version, want string) each {
		files, edit := pod(image, version)
		return each{name, files, edit, want}
	}
	const at = "/etc/kubernetes/manifests/a.yaml (butane[0] a.bu): spec.containers[0]: "
	etcd := func(version, want string) each {
		e := of("etcd "+version, "etcd", version, want)
		e.files += "-- config/etc/kubernetes/manifests/etcd.yaml --\nkind: Pod\n"
		return e
	}
	run(t, []each{
		{"an old kubelet", "", set("kubelet", "v1.33.9"), ""},
		{"too old a kubelet", "", set("kubelet", "v1.32.0"), `
			version-skew error kube-proxy: kube-proxy v1.36.3 and kubelet v1.32.0 are more than three minor versions apart
			version-skew error kubelet: kubelet v1.32.0 does not go with kube-apiserver v1.36.3: it may be 3 minor versions older and 0 newer`},
		{"too new a kubelet", "", set("kubelet", "v1.37.0"), "version-skew error kubelet: kubelet v1.37.0 does not go with"},
		{"a newer kubectl", "", set("kubectl", "v1.37.0-rc.1"), ""},
		{"too new a kubectl", "", set("kubectl", "v1.38.0"), "version-skew error kubectl: "},
		{"too old a kube-proxy", "", set("kube-proxy", "v1.30.1"), `
			version-skew error kube-proxy: kube-proxy v1.30.1 and kubelet v1.36.3 are more than
			version-skew error kube-proxy: kube-proxy v1.30.1 does not go with`},
		{"a version that is none", "", set("kubelet", "unknown"), ""},
		of("an old scheduler", "kube-scheduler", "v1.35.0", ""),
		of("too old a scheduler", "kube-scheduler", "v1.34.0", "version-skew error "+at+"kube-scheduler v1.34.0 does not go with kube-apiserver v1.36.3: it may be 1 minor versions older and 0 newer"),
		of("too new a controller manager", "kube-controller-manager", "v1.37.1", "version-skew error "+at),
		of("another major version", "kube-scheduler", "v2.36.0", "version-skew error "+at),
		etcd("3.6.0-0", ""), etcd("3.5.24-0", ""),
		etcd("3.5.16-0", "version-etcd warning "+at+"etcd 3.5.16-0 is older than 3.5.24, the least that Kubernetes v1.36.3 supports"),
		etcd("3.4.30-0", "version-etcd error "+at+"etcd 3.4.30-0"),
		of("a good CoreDNS", "coredns", "v1.11.1", ""),
		of("a bad CoreDNS", "coredns", "v1.11.0", "version-coredns warning "+at+"CoreDNS v1.11.0 is known to be bad: "),
		{"docker 20", "", set("docker", "20.10.5"), ""},
		{"docker 1", "", set("docker", "1.6.0"), "docker-api error docker.io: docker 1.6.0 and cri-dockerd v0.3.17: docker is too old for an API of 1.26"},
		{"docker 29", "", set("docker", "29.1.0"), ""},
		{"docker 29 with an old cri-dockerd", "", func(in *lint.Input) { set("docker", "29.1.0")(in); set("cri-dockerd", "v0.3.9")(in) },
			"docker-api warning docker.io: docker 29.1.0 and cri-dockerd v0.3.9: docker serves its API from 1.44 on, and it is not known"},
		{"no docker", "", func(in *lint.Input) { delete(in.Versions, "docker") }, ""},
		{"nothing known", "", func(in *lint.Input) {
			in.Versions = nil
			delete(in.Files, "/etc/kubernetes/manifests/kube-apiserver.yaml")
		}, ""},
	})
}
