package builder_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kscratch/kscratch/builder"
)

func TestDefaultFileIsTheDefault(t *testing.T) {
	got, err := builder.Parse("default.yaml", builder.DefaultYAML)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(builder.Default(), got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("default.yaml differs from Default (-Default +file):\n%s", d)
	}
	empty, err := builder.Parse("empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(builder.Default(), empty); d != "" {
		t.Errorf("an empty file differs from Default:\n%s", d)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"unknown field", "network:\n  mtuu: 3\n",
			"f:2:3: network.mtuu: unknown field; did you mean mtu?"},
		{"wrong kinds", "network: 3\ndocker:\n  nofile: many\nimages: {}\n", `
			f:1:10: network: want a mapping, found "3"
			f:3:11: docker.nofile: want a whole number, found "many"
			f:4:9: images: want a list, found a mapping`},
		{"twice", "name: a\nname: b\n", "f:2:1: name: stands twice; remove one"},
		{"host bits", "network: {clusterCIDR: 10.244.1.0/16}\n",
			"f:1:24: network.clusterCIDR: 10.244.1.0/16 has host bits set; did you mean 10.244.0.0/16?"},
		{"overlap", "network:\n  clusterCIDR: 10.0.0.0/8\n",
			"f:2:3: network.serviceCIDR: 10.96.0.0/12 overlaps network.clusterCIDR 10.0.0.0/8; choose ranges that share no address"},
		{"no range", "network:\n  clusterCIDR: ten\n  serviceCIDR: fd00::/112\n", `
			f:2:16: network.clusterCIDR: "ten" is not a range of addresses; write it like 10.244.0.0/16
			f:3:16: network.serviceCIDR: fd00::/112 is not IPv4; use an IPv4 range`},
		{"dns outside", "network:\n  clusterDNS: 10.1.0.10\n",
			"f:2:15: network.clusterDNS: 10.1.0.10 is outside network.serviceCIDR 10.96.0.0/12; use the tenth address of serviceCIDR"},
		{"sources", "kubernetes:\n  sources: [cache, cache, relase, path]\n", `
			f:2:20: kubernetes.sources[1]: "cache" stands twice; remove one
			f:2:27: kubernetes.sources[2]: "relase" is not known; did you mean release?
			f:2:3: kubernetes.tarball: is empty, but kubernetes.sources asks for a path; name kubernetes-server-linux-amd64.tar.gz`},
		{"cri-dockerd", "components:\n  criDockerd:\n    sources: [release, registry]\n    release: http://mirror.example\n    image: x\n", `
			f:5:5: components.criDockerd.image: unknown field; known here: version, sources, release, sha256, path
			f:3:24: components.criDockerd.sources[1]: "registry" is not known; known here: release, modules, path
			f:4:14: components.criDockerd.release: is not https, and no sha256 says what to expect; use https, or set components.criDockerd.sha256`},
		{"cri-dockerd's sum", "components:\n  criDockerd:\n    sources: [modules, path]\n    sha256: 12AB\n", `
			f:3:5: components.criDockerd.path: is empty, but the sources ask for a path; name the file
			f:4:13: components.criDockerd.sha256: "12AB" is not 64 lower-case hex digits
			f:4:13: components.criDockerd.sha256: is set, but the sources do not list release; add release to the sources`},
		{"cri-dockerd's release", "components: {criDockerd: {release: releases}}\n",
			"f:1:36: components.criDockerd.release: is not a URL of releases; write it like https://github.com/Mirantis/cri-dockerd/releases/download"},
		{"version", "kubernetes: {version: latest}\n",
			`f:1:23: kubernetes.version: "latest" is not a Kubernetes release such as v1.36.3`},
		{"even number of members", "etcd: {members: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}]}\n",
			"f:1:17: etcd.members: has 2 members: an even number bears no more failures than one less; name 1, 3 or 5"},
		{"seven members", "etcd:\n  members: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}, {name: c, address: 192.0.2.3}, {name: d, address: 192.0.2.4},\n" +
			"    {name: e, address: 192.0.2.5}, {name: f, address: 192.0.2.6}, {name: g, address: 192.0.2.7}]\n",
			"f:2:12: etcd.members: has 7 members, and every write waits for most of them; name 1, 3 or 5"},
		{"members", "network: {nodeCIDRs: [192.0.2.0/28]}\netcd:\n  members:\n  - {name: A, address: 10.96.0.7}\n  - {name: b, address: fd00::1}\n  - {name: b, address: 192.0.2.16}\n", `
			f:4:12: etcd.members[0].name: "A" is not a DNS label: lower-case letters, digits and dashes, at most 63
			f:4:24: etcd.members[0].address: 10.96.0.7 is inside network.serviceCIDR 10.96.0.0/12, which is for pods and services; name that of the master's own network card
			f:5:24: etcd.members[1].address: "fd00::1" is not an IPv4 address; write it like 192.168.1.10
			f:6:12: etcd.members[2].name: "b" is the name of etcd.members[1], too; give each master a name of its own
			f:6:24: etcd.members[2].address: 192.0.2.16 is outside of network.nodeCIDRs; name the masters' network there, too`},
		{"members' addresses", "etcd:\n  members:\n  - {name: a, address: 127.0.0.1}\n  - {name: b, address: 192.0.2.1}\n  - {name: c, address: 192.0.2.1}\n", `
			f:3:24: etcd.members[0].address: 127.0.0.1 is not an address that other machines reach; name that of the master's own network card
			f:5:24: etcd.members[2].address: "192.0.2.1" is the address of etcd.members[1], too; give each master an address of its own`},
		{"endpoint", "controlPlane: {endpoint: 'https://a:6443'}\n",
			`f:1:26: controlPlane.endpoint: "https://a:6443" is not host:port; write it like 10.0.0.5:6443`},
		{"image", "images:\n- {name: app, from: app.tar}\n", `
			f:2:10: images[0].name: "app" is not name:tag
			f:2:21: images[0].from: "app.tar" names no source; start it with one of docker://, docker-archive:, oci:, rootfs:`},
		{"image's registry", "images:\n- {name: a:v1, from: 'docker://Example.org/A:v1', digest: 'sha256:12'}\n- {name: b:v1, from: 'docker://'}\n", `
			f:2:59: images[0].digest: "sha256:12" is not sha256: and 64 lower-case hex digits
			f:2:22: images[0].from: parsing image name "Example.org/A:v1": repository can only contain the characters ` + "`abcdefghijklmnopqrstuvwxyz0123456789_-./`: A" + `; write it like docker://registry.example.org/app:v1
			f:3:22: images[1].from: "docker://" names no source; start it with one of docker://, docker-archive:, oci:, rootfs:`},
		{"Debian's CoreDNS", "components: {etcd: {sources: [distro]}, coreDNS: {sources: [distro]}}\n",
			`f:1:61: components.coreDNS.sources[0]: "distro" is not known; known here: registry, modules, path`},
		{"role", "base: {rolePackages: {mister: [vim]}}\n",
			"f:1:31: base.rolePackages.mister: is not a role; did you mean master?"},
		{"root dir", "kubelet: {rootDir: /opt/kubelet}\n",
			`f:1:20: kubelet.rootDir: "/opt/kubelet" is not below /var; only /var is writable on a node`},
		{"not JSON", "docker:\n  options:\n    dns: {1: x}\n    labels: .inf\n", `
			f:3:10: docker.options.dns: is not a value of JSON: json: unsupported type: map[interface {}]interface {}; use text as keys, each once, and finite numbers
			f:4:13: docker.options.labels: is not a value of JSON: json: unsupported value: +Inf; use text as keys, each once, and finite numbers`},
		{"twice below", "docker: {options: {proxies: {a: 1, a: 2}}}\n",
			`f:1:29: docker.options.proxies: is not a value of JSON: yaml: unmarshal errors: line 1: mapping key "a" already defined at line 1; use text as keys, each once, and finite numbers`},
		{"no field", "kubelet: {-: x}\n",
			"f:1:11: kubelet.-: unknown field; known here: nodeNames, rootDir, registerNode, maxPods, extraConfig, extraFlags"},
		{"docker", "docker:\n  dataRoot: /srv/docker\n  logDriver: syslog\n  logMaxSize: big\n  logMaxFiles: 0\n  insecureRegistries: [a:5000, 'http://b']\n", `
			f:2:13: docker.dataRoot: "/srv/docker" is not below /var; only /var is writable on a node
			f:3:14: docker.logDriver: "syslog" is not known; known here: json-file, journald
			f:4:15: docker.logMaxSize: "big" is not a size such as 10m
			f:5:16: docker.logMaxFiles: 0 is too small; use 1 or more
			f:6:32: docker.insecureRegistries[1]: "http://b" is not a registry; write host, host:port or a network such as 10.0.0.0/8`},
		{"plain path", "docker: {dataRoot: /var/lib/my docker}\n",
			`f:1:20: docker.dataRoot: "/var/lib/my docker" is not a plain path; use letters, digits and . _ - between single slashes`},
		{"docker's own keys", "docker:\n  options:\n    debug: true\n    iptables: true\n    shutdown-timeot: 3\n", `
			f:4:5: docker.options.iptables: may not be set: kube-proxy owns the packet filter
			f:5:5: docker.options.shutdown-timeot: is unknown: dockerd 26.1 has no such key and would not start; did you mean shutdown-timeout?`},
		{"bridge", "network: {bridge: docker0}\n",
			`f:1:19: network.bridge: "docker0" is not the name of a bridge; use at most 15 lower-case letters, digits and . _ -, and not docker0`},
		{"kubenet's bridge", "network: {bridge: pods0, cbr0: auto}\n",
			`f:1:19: network.bridge: "pods0" is set, but kubenet's is cbr0; leave it out, or set network.cbr0: manual`},
		{"kubelet's configuration", "kubelet:\n  maxPods: -1\n  extraConfig:\n    evictionHrad:\n      memory.available: 1Gi\n    podPidsLimit: many\n    authorization: {mode: AlwaysAllow}\n", `
			f:7:21: kubelet.extraConfig.authorization.mode: may not be set: it follows from security
			f:4:5: kubelet.extraConfig.evictionHrad: is no field of KubeletConfiguration; did you mean evictionHard?
			f:6:5: kubelet.extraConfig.podPidsLimit: want a whole number of type int64, found string
			f:2:12: kubelet.maxPods: -1 is too small; use 0 or more`},
		{"kubelet's typo", "kubelet:\n  extraConfig:\n    evictionHrad:\n      memory.available: 1Gi\n",
			"f:3:5: kubelet.extraConfig.evictionHrad: is no field of KubeletConfiguration; did you mean evictionHard?"},
		{"kube-proxy's configuration", "kubeProxy: {extraConfig: {mode: ipvs, conntrack: {max: 1}}}\n", `
			f:1:27: kubeProxy.extraConfig.mode: may not be set: it is kubeProxy.mode
			f:1:51: kubeProxy.extraConfig.conntrack.max: is no field of KubeProxyConfiguration`},
		{"flags", "kubelet: {extraFlags: {config: /x}}\nkubeProxy: {extraFlags: {cluster-cidr: x}}\ncontrolPlane:\n  apiServer:\n    extraFlags:\n      secure-port: 443\n      Bad: x\netcd: {extraFlags: {data-dir: /x}}\n", `
			f:1:24: kubelet.extraFlags.config: may not be set: kscratch writes it
			f:2:26: kubeProxy.extraFlags.cluster-cidr: has no effect: kube-proxy ignores it beside its configuration file; use kubeProxy.extraConfig
			f:7:7: controlPlane.apiServer.extraFlags.Bad: is not the name of a flag; write it in lower case, without dashes before it
			f:6:7: controlPlane.apiServer.extraFlags.secure-port: may not be set: nodes, probes and the packet filter know it
			f:8:21: etcd.extraFlags.data-dir: may not be set: it is the directory that lasts, on the state partition`},
		{"patches", "manifests:\n  patches:\n    - {target: kubelet, type: merge, patch: {}}\n    - {target: etcd, type: json}\n    - {target: etcd, type: json, patch: [], file: x}\n", `
			f:3:16: manifests.patches[0].target: "kubelet" is not known; known here: etcd, kube-apiserver, kube-controller-manager, kube-scheduler
			f:3:31: manifests.patches[0].type: "merge" is not known; known here: strategic, json
			f:4:7: manifests.patches[1]: wants one of patch and file; write the patch here, or name the file that has it
			f:5:7: manifests.patches[2]: wants one of patch and file; write the patch here, or name the file that has it`},
		{"butane by role", "roleButane: {worker: [a.bu]}\n",
			"f:1:22: roleButane.worker: is not a role; known here: master, node"},
		{"syntax", "a: [\n", "f:1:1: did not find expected node content; the file must be YAML 1.2"},
		{"two documents", "name: a\n---\nname: b\n", "f:1:1: holds more than one document; keep one"},
		{"many at once", "nam: a\nsecurity: none\nnetwork: {mtu: 9}\n", `
			f:1:1: nam: unknown field; did you mean name?
			f:2:11: security: "none" is not known; known here: https, firewall
			f:3:16: network.mtu: 9 is out of range; use 576 to 9216`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := builder.Parse("f", []byte(tt.in))
			if err == nil {
				t.Fatal("no problem found")
			}
			want := strings.ReplaceAll(strings.TrimSpace(tt.want), "\t", "")
			if d := cmp.Diff(want, err.Error()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	spec, err := builder.Parse("f", []byte(`docker:
  options:
    dns:
      - 192.0.2.1
    default-ulimits:
      nofile: {Soft: 1}
butane:
  - a.bu
`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"docker.options.dns":                         "f:3:5",
		"docker.options.dns[0]":                      "f:4:9",
		"docker.options.default-ulimits.nofile.Soft": "f:6:16",
		"docker.mtu":                                 "f:2:3", // not there: the field above
		"butane[0]":                                  "f:8:5",
		"network.mtu":                                "f:1:1",
	} {
		if got := spec.Where.Problem(path, "m", "").String(); got != want+": "+path+": m" {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := builder.Default().Where.Problem("name", "m", "f").String(), "cluster file: name: m; f"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestFlagsAreTakenAsWritten: YAML's idea of a value is not a program's.
func TestFlagsAreTakenAsWritten(t *testing.T) {
	spec, err := builder.Parse("f", []byte("etcd: {extraFlags: {a: 010, b: 1.0, c: true, d: 0x1F, e: '', f: yes, g: 8589934592, h: 1e3, i: 2026-01-02}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := builder.Flags{"a": "010", "b": "1.0", "c": "true", "d": "0x1F", "e": "", "f": "yes", "g": "8589934592", "h": "1e3", "i": "2026-01-02"}
	if d := cmp.Diff(want, spec.Etcd.ExtraFlags); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(builder.DefaultYAML)
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("docker: {options: {dns: &a [*a], x: {<<: {y: 1}}}}\n"))
	f.Add([]byte("network: {mtu: [1]}\nimages: [{}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := builder.Parse("f", b)
		if (spec == nil) == (err == nil) {
			t.Fatalf("got spec %v and error %v", spec, err)
		}
	})
}
