package lint_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
)

// clean is a node that no rule has anything to say about. A name of a file is
// root/PATH or config/PATH, then its mode or, of a unit, its state; "-> X" as
// content is a link.
const clean = `
-- root/etc d0755 --
-- root/var d0755 --
-- root/tmp d1777 --
-- root/bin --
-> usr/bin
-- root/usr/bin/sh 0755 --
-- root/usr/bin/kubelet 0755 --
-- root/usr/bin/cri-dockerd 0755 --
-- root/usr/bin/helper 0755 --
-- root/usr/bin/su 4755 --
-- root/usr/bin/chage 2755 --
-- root/usr/sbin/dockerd 0755 --
-- root/usr/lib/kscratch/docker/overlay2/1/diff/bin/sudo 4777 --
-- root/usr/lib/modules/6/kernel/vxlan.ko.xz --
-- root/usr/lib/modules/6/config --
# a comment
CONFIG_VXLAN=m
KERNEL
-- root/usr/lib/systemd/system/default.target --
-> multi-user.target
-- root/usr/lib/systemd/system/multi-user.target --
[Unit]
Requires=basic.target
After=basic.target
-- root/usr/lib/systemd/system/basic.target --
[Unit]
Requires=sysinit.target
Wants=sockets.target
After=sysinit.target sockets.target
-- root/usr/lib/systemd/system/sysinit.target --
[Unit]
Wants=local-fs.target
After=local-fs.target
-- root/usr/lib/systemd/system/sockets.target --
[Unit]
-- root/usr/lib/systemd/system/local-fs.target --
[Unit]
DefaultDependencies=no
-- root/usr/lib/systemd/system/docker.socket --
[Socket]
ListenStream=/run/docker.sock
-- root/usr/lib/systemd/system/docker.service --
[Unit]
Requires=docker.socket
[Service]
ExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS
ExecReload=/bin/none
[Install]
WantedBy=multi-user.target
-- root/usr/lib/systemd/system/maybe.service --
[Unit]
ConditionPathExists=/usr/bin/none
[Service]
ExecStart=/usr/bin/none
-- root/etc/systemd/system/multi-user.target.wants/maybe.service --
-> /usr/lib/systemd/system/maybe.service
-- root/etc/systemd/system/gone.service --
-> /dev/null
-- config/etc/systemd/system/docker.service enabled --
-- config/etc/systemd/system/docker.service.d/10.conf --
[Unit]
After=early.service
-- config/etc/systemd/system/cri-docker.service enabled --
[Unit]
Requires=docker.service
After=docker.service
[Service]
ExecStart=/usr/bin/cri-dockerd \
    --container-runtime-endpoint=unix:///run/cri.sock \
    --pod-infra-container-image=registry.k8s.io/pause:3.10.1
[Install]
WantedBy=multi-user.target
-- config/etc/systemd/system/kubelet.service enabled --
[Unit]
Requires=cri-docker.service
After=cri-docker.service
[Service]
ExecStartPre=-/usr/bin/none
ExecStart=/bin/kubelet --root-dir=/var/lib/kubelet
[Install]
WantedBy=multi-user.target
-- config/etc/kubernetes/kubelet.yaml --
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
cgroupDriver: systemd
containerRuntimeEndpoint: unix:///run/cri.sock
clusterDNS: [10.96.0.10]
-- config/etc/docker/daemon.json --
{"exec-opts": ["native.cgroupdriver=systemd"], "data-root": "/var/lib/docker"}
-- config/etc/kubernetes/manifests/.hidden.yaml --
not for the kubelet
-- config/etc/kubernetes/manifests/kube-apiserver.yaml --
kind: Pod
apiVersion: v1
metadata: {name: kube-apiserver}
spec:
  containers:
  - {name: a, image: "registry.k8s.io/kube-apiserver:v1.36.3", command: [kube-apiserver]}
-- config/etc/kubernetes/manifests/etcd.yaml --
kind: Pod
apiVersion: v1
metadata: {name: etcd}
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.6.8-0
    command: [etcd, --data-dir=/data]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, hostPath: {path: /var/lib/etcd}}]
-- config/etc/kubernetes/bootstrap/README --
not for kubectl
-- config/etc/kubernetes/bootstrap/10.yaml --
# only comments
---
kind: ConfigMap
apiVersion: v1
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: app}
spec: {template: {spec: {containers: [{name: app, image: docker.io/library/app:v1}]}}}
`

// program is an image with one program.
func program(path string) lint.Files {
	return lint.Files{"/bin": {Mode: fs.ModeSymlink, Link: "usr/bin"}, path: {Mode: 0o755}, "/etc/passwd": {Mode: 0o644}}
}

// input is the clean node, with files over it.
func input(t *testing.T, more string) lint.Input {
	t.Helper()
	kernel := ""
	for _, o := range lint.KernelOptions() {
		if o != "VXLAN" {
			kernel += "CONFIG_" + o + "=y\n"
		}
	}
	ref := func(ref, path string, entry ...string) lint.Image {
		return lint.Image{Name: ref, OS: "linux", Arch: "amd64", Entrypoint: entry, Env: []string{"PATH=/usr/bin"}, Programs: program(path)}
	}
	return lint.Input{
		Files: node(t, strings.Replace(clean, "KERNEL\n", kernel, 1), more),
		Images: []lint.Image{
			ref("registry.k8s.io/kube-apiserver:v1.36.3", "/usr/bin/kube-apiserver"),
			ref("registry.k8s.io/etcd:3.6.8-0", "/usr/bin/etcd"),
			ref("registry.k8s.io/pause:3.10.1", "/pause", "/pause"),
			ref("app:v1", "/usr/bin/app", "app"),
			ref("example.org/app:latest", "/usr/bin/app", "/bin/app"),
		},
		Versions: map[string]string{"kube-apiserver": "v1.36.3", "kubelet": "v1.36.3", "kube-proxy": "v1.36.3", "kubectl": "v1.36.3",
			"docker": "26.1.5", "cri-dockerd": "v0.3.17"},
		Network: ignition.Network{ClusterCIDR: cidr("10.244.0.0/16"), ServiceCIDR: cidr("10.96.0.0/12"), DNS: netip.MustParseAddr("10.96.0.10")},
	}
}

func cidr(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// node makes the files of a node. Those of more that the first boot writes are
// a user's.
func node(t *testing.T, base, more string) lint.Files {
	t.Helper()
	var root []layers.File
	entries := map[string]ignition.Entry{}
	from := map[string]string{}
	for i, text := range []string{base, more} {
		for _, f := range txtar.Parse([]byte(text)).Files {
			name, mark, _ := strings.Cut(f.Name, " ")
			target, isLink := strings.CutPrefix(strings.TrimSpace(string(f.Data)), "-> ")
			mode := fs.FileMode(0o644)
			state := ""
			if n, err := strconv.ParseUint(strings.TrimPrefix(mark, "d"), 8, 32); err == nil {
				mode = bits(uint32(n))
			} else {
				state = mark
			}
			if p, ok := strings.CutPrefix(name, "config"); ok {
				entries[p] = ignition.Entry{Path: p, Mode: mode, Note: state, Body: f.Data}
				if i > 0 {
					from[p] = "butane[0] a.bu"
				}
				continue
			}
			p := strings.TrimPrefix(name, "root/")
			entry := layers.Regular(p, mode, "test", f.Data)
			if isLink {
				entry = layers.Symlink(p, target, "test")
			} else if strings.HasPrefix(mark, "d") {
				entry = layers.Dir(p, mode, "test")
			}
			root = slices.DeleteFunc(root, func(f layers.File) bool { return f.Path == p })
			root = append(root, entry)
		}
	}
	tree, err := layers.Merge(layers.Of("root", "", root...))
	if err != nil {
		t.Fatal(err)
	}
	var report ignition.Report
	for _, e := range entries {
		report.Entries = append(report.Entries, e)
	}
	return gather(t, tree, report, from)
}

func gather(t *testing.T, tree *layers.Tree, report ignition.Report, from map[string]string) lint.Files {
	t.Helper()
	files, err := lint.Root(tree, "usr/lib/kscratch/docker")
	if err != nil {
		t.Fatal(err)
	}
	if files, err = files.With(report, from); err != nil {
		t.Fatal(err)
	}
	return files
}

// bits turns the mode bits of chmod(1) into Go's.
func bits(n uint32) fs.FileMode {
	m := fs.FileMode(n & 0o777)
	for bit, mode := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			m |= mode
		}
	}
	return m
}

// check compares all findings with lines of "rule severity where: what",
// where the last may be cut off.
func check(t *testing.T, in lint.Input, want string) {
	t.Helper()
	all := lint.Run(in)
	wants := strings.FieldsFunc(want, func(r rune) bool { return r == '\n' })
	var got []string
	for i, f := range all {
		line := fmt.Sprintf("%s %s %s: %s", f.Rule, f.Severity, f.Where, f.What)
		if i < len(wants) {
			if w := strings.TrimSpace(wants[i]); strings.HasPrefix(line, w) {
				line = w
			}
		}
		got = append(got, line)
		if f.Fix == "" {
			t.Errorf("no fix: %+v", f)
		}
	}
	for i := range wants {
		wants[i] = strings.TrimSpace(wants[i])
	}
	if d := gocmp.Diff(strings.Join(wants, "\n"), strings.Join(got, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// each is a change of the clean node, and what is then found.
type each struct {
	name  string
	files string
	edit  func(*lint.Input)
	want  string
}

func run(t *testing.T, tests []each) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t, tt.files)
			if tt.edit != nil {
				tt.edit(&in)
			}
			check(t, in, tt.want)
		})
	}
}

func TestClean(t *testing.T) { check(t, input(t, ""), "") }

// What Ignition is told of a file is seen as Ignition leaves it.
func TestGather(t *testing.T) {
	tree, err := layers.Merge(layers.Of("root", "", layers.Regular("etc/docker/daemon.json", 0o644, "t", []byte("{}")), layers.Symlink("etc/k", "kubernetes", "t")))
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte("a: b")); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	report := ignition.Report{Entries: []ignition.Entry{
		{Path: "/etc/docker/daemon.json", Mode: 0o600},
		{Path: "/etc/kubernetes/z", Note: "gzip", Body: zipped.Bytes()},
		{Path: "/etc/kubernetes/manifests/far.yaml", Note: "https://example.org/far.yaml"},
		{Path: "/etc/link", Mode: fs.ModeSymlink, Note: "to k"},
		{Path: "/etc/systemd/system/a.service", Mode: 0o644, Note: "masked", Body: []byte("x")},
		{Path: "/etc/systemd/system/b.service", Mode: 0o644, Note: "enabled"},
	}}
	files := gather(t, tree, report, nil)
	for p, want := range map[string]string{
		"/etc/docker/daemon.json":            "-rw------- {}",
		"/etc/kubernetes/z":                  "-rw-r--r-- a: b",
		"/etc/kubernetes/manifests/far.yaml": "-rw-r--r-- remote",
		"/etc/kubernetes":                    "drwxr-xr-x",
		"/etc/link":                          "L--------- > k",
		"/etc/systemd/system/a.service":      "Lrwxrwxrwx masked x > /dev/null",
		"/etc/systemd/system/b.service":      "?--------- enabled",
	} {
		f, ok := files[p]
		got := []string{f.Mode.String()}
		if f.State != "" {
			got = append(got, f.State)
		}
		if f.Remote {
			got = append(got, "remote")
		}
		if len(f.Body) > 0 {
			got = append(got, string(f.Body))
		}
		if f.Link != "" {
			got = append(got, "> "+f.Link)
		}
		if line := strings.Join(got, " "); !ok || line != want {
			t.Errorf("%s: got %q, want %q", p, line, want)
		}
	}
	report.Entries[1].Body = []byte("no gzip")
	if _, err := files.With(report, nil); err == nil || !strings.HasPrefix(err.Error(), "checking the configuration: reading /etc/kubernetes/z: ") {
		t.Errorf("got %v", err)
	}
	if all := lint.Run(lint.Input{Files: files}); slices.ContainsFunc(all, func(f lint.Finding) bool { return f.Rule == "pod-manifest" }) {
		t.Errorf("a manifest that the node fetches: %v", all)
	}
}
