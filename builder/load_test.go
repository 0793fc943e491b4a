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

func FuzzParse(f *testing.F) {
	f.Add(builder.DefaultYAML)
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("network: {mtu: [1]}\nimages: [{}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := builder.Parse("f", b)
		if (spec == nil) == (err == nil) {
			t.Fatalf("got spec %v and error %v", spec, err)
		}
	})
}
