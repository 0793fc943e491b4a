package inspect_test

import (
	"bytes"
	stdcmp "cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/sbom"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// world is a world that images are built in, and its lock.
type world struct {
	spec    *builder.Spec
	options builder.Options
	lock    *builder.Lock
}

// newWorld makes a world in a new working directory.
func newWorld(t *testing.T, more ...aptfake.Deb) *world {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, fakeworld.Write(t.Context(), dir, more...))
	spec, err := builder.Load(fakeworld.ClusterFile, false)
	must(t, err)
	w := &world{spec: spec}
	now := aptfake.Date.AddDate(0, 0, 1)
	_, err = builder.EnsurePKI(w.spec, dir, now, rand.NewChaCha8([32]byte{}))
	must(t, err)
	store, err := cache.Open(filepath.Join(dir, "cache"))
	must(t, err)
	w.options = builder.Options{Dir: dir, Store: store, Now: now}
	w.lock, err = builder.Resolve(t.Context(), w.spec, w.options)
	must(t, err)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pack writes an image and returns its path.
func (w *world) pack(t *testing.T, img *builder.Image) string {
	t.Helper()
	dir := t.TempDir()
	_, err := builder.Pack(t.Context(), img, dir, w.options)
	must(t, err)
	return filepath.Join(dir, "master.raw")
}

// build builds an image of the world as edit leaves its cluster file, and
// returns the path. A new lock is made, as the command line would do.
func (w *world) build(t *testing.T, edit func(*builder.Spec)) string {
	t.Helper()
	s := *w.spec
	if edit != nil {
		edit(&s)
	}
	lock, err := builder.Resolve(t.Context(), &s, w.options)
	must(t, err)
	img, err := builder.Build(t.Context(), &s, lock, builder.Master, w.options)
	must(t, err)
	return w.pack(t, img)
}

func openImage(t *testing.T, path string) *inspect.Image {
	t.Helper()
	i, err := inspect.Open(t.Context(), path, t.TempDir())
	must(t, err)
	t.Cleanup(func() { i.Close() })
	return i
}

func report(t *testing.T, path string, verify bool) inspect.Report {
	t.Helper()
	r, err := openImage(t, path).Report(t.Context(), verify)
	must(t, err)
	return r
}

func TestReport(t *testing.T) {
	w := newWorld(t)
	raw := w.build(t, nil)
	r := report(t, raw, true)
	if r.Format != "raw" || r.Build.Role != "master" || r.Build.Cluster != "kscratch" || r.Build.Lock != w.lock.Digest() {
		t.Errorf("build: %+v", r.Build)
	}
	var parts []string
	for _, p := range r.Partitions {
		parts = append(parts, p.Type)
	}
	if d := cmp.Diff([]string{"esp", "root-verity", "root"}, parts); d != "" {
		t.Error(d)
	}
	if v := r.Verity; !v.Matches || !v.Checked || v.Problem != "" || !strings.Contains(textOf(t, r), v.RootHash) {
		t.Errorf("verity: %+v", v)
	}
	versions := map[string]string{}
	for _, v := range r.Versions {
		versions[v.Name] = v.Version
	}
	for name, want := range map[string]string{
		"linux": "6.12.1-cloud-amd64", "kubernetes-server": "v1.36.3", "cri-dockerd": "v0.3.17", "etcd": "3.6.8-0",
		"coredns": "v1.14.7", "docker.io": "26.1.5+dfsg1-9", "pause": "3.10.1",
	} {
		if versions[name] != want {
			t.Errorf("%s has version %q, want %q", name, versions[name], want)
		}
	}
	if len(r.Images) != 6 || len(r.Packages) < 40 || r.FirstBoot.ClusterCIDR != "10.244.0.0/16" || len(r.FirstBoot.Sources) != 4 {
		t.Errorf("%d images, %d packages, first boot %+v", len(r.Images), len(r.Packages), r.FirstBoot)
	}
	files := 0
	for _, l := range r.Layers {
		files += l.Files + l.Other
	}
	if want := openImage(t, raw).Root.Len(); files != want {
		t.Errorf("the sources have %d files together, want %d", files, want)
	}
	secrets(t, r, raw)
}

// secrets holds the secrets that were found to those that were declared, and
// the report to containing none.
func secrets(t *testing.T, r inspect.Report, raw string) {
	t.Helper()
	if len(r.Secrets) < 10 {
		t.Errorf("only %d secrets", len(r.Secrets))
	}
	i := openImage(t, raw)
	b, err := json.Marshal(r)
	must(t, err)
	for _, s := range r.Secrets {
		if s.Use == "" || s.Kind == "declared" {
			t.Errorf("%+v: want what was declared to be found, and nothing else", s)
		}
		body, err := i.Config.ReadFile(s.Path[1:])
		must(t, err)
		for line := range strings.Lines(string(body)) {
			if line = strings.TrimSpace(line); len(line) > 60 && strings.Contains(string(b), line) {
				t.Errorf("the report has a line of %s", s.Path)
			}
		}
		for _, c := range r.Config {
			if c.Path == s.Path && c.Digest != "" {
				t.Errorf("the report has the digest of %s", s.Path)
			}
		}
	}
}

func textOf(t *testing.T, r inspect.Report) string {
	t.Helper()
	var b bytes.Buffer
	must(t, r.Text(&b))
	return b.String()
}

// The answer is the same in whatever format an image is.
func TestFormats(t *testing.T) {
	w := newWorld(t)
	raw := w.build(t, nil)
	want := report(t, raw, false)
	for _, f := range format.All {
		if f.Name == "raw" || f.Name == "ova" {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a"+f.Ext)
			_, err := builder.Convert(t.Context(), raw, path, f, builder.Options{})
			must(t, err)
			got := report(t, path, false)
			got.Image, got.Format, got.Size = want.Image, want.Format, want.Size
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A root that was altered is found out, by its hash and by its record.
func TestDamage(t *testing.T) {
	raw := newWorld(t).build(t, nil)
	f, err := os.OpenFile(raw, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	i := openImage(t, raw)
	kubelet, err := i.Root.ReadFile("usr/bin/kubelet")
	must(t, err)
	b, err := os.ReadFile(raw)
	must(t, err)
	at := bytes.Index(b, kubelet)
	_, err = f.WriteAt([]byte{kubelet[len(kubelet)-1] ^ 1}, int64(at+len(kubelet)-1))
	must(t, err)
	r := report(t, raw, true)
	var input *builder.InputError
	if err := r.Damage(); !errors.As(err, &input) || !input.Tampered || !strings.Contains(err.Error(), "corrupt data block") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(textOf(t, r), "DAMAGED: ") {
		t.Error("the text does not tell of the damage")
	}
	if report(t, raw, false).Damage() != nil {
		t.Error("what was not read is called damaged")
	}
}

func TestNotAnImage(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	must(t, os.WriteFile(text, []byte("not an image"), 0o644))
	empty := filepath.Join(dir, "empty.raw")
	f, err := os.Create(empty)
	must(t, err)
	defer f.Close()
	plan, err := disk.Layout([]disk.Part{{Label: "x", Type: disk.Root, GUID: [16]byte{1}, Size: 1 << 20}}, disk.Options{GUID: [16]byte{2}})
	must(t, err)
	must(t, disk.Write(t.Context(), f, plan))
	for _, tt := range []struct{ path, want string }{
		{text, "its format is not known"},
		{filepath.Join(dir, "none"), "no such file"},
		{empty, "opening EFI system partition: file does not exist"},
	} {
		_, err := inspect.Open(t.Context(), tt.path, dir)
		var input *builder.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.path, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inspect.Open(ctx, empty, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Images without records, or with records of other things, are refused.
func TestRecords(t *testing.T) {
	w := newWorld(t)
	img, err := builder.Build(t.Context(), w.spec, w.lock, builder.Master, w.options)
	must(t, err)
	for _, tt := range []struct {
		name string
		edit func(*builder.Image)
		want string
	}{
		{"no record", func(i *builder.Image) {
			i.Root = i.Root.Filter(func(f layers.File) bool { return f.Path != record.RootPath })
		}, "made no records; build it anew"},
		{"another format", func(i *builder.Image) { i.Root = put(t, i.Root, record.RootPath, `{"format":9}`) },
			"reading /usr/lib/kscratch/record.json: format 9, this kscratch knows 1"},
		{"another cluster file", func(i *builder.Image) { i.Config = put(t, i.Config, record.SpecPath, "name: x") },
			"/etc/kscratch/cluster.yaml of the initrd has the digest sha256:"},
		{"no build", func(i *builder.Image) { i.Config = put(t, i.Config, record.BuildPath, "") },
			"reading /etc/kscratch/build.json of the initrd: EOF"},
	} {
		changed := *img
		tt.edit(&changed)
		_, err := inspect.Open(t.Context(), w.pack(t, &changed), t.TempDir())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	// A file that came later has no owner.
	changed := *img
	changed.Root = put(t, img.Root, "usr/bin/later", "x")
	_, err = openImage(t, w.pack(t, &changed)).Why("/usr/bin/later", nil)
	if err == nil || !strings.Contains(err.Error(), "not in its record") {
		t.Errorf("got %v", err)
	}
}

func put(t *testing.T, tree *layers.Tree, path, body string) *layers.Tree {
	t.Helper()
	out, err := layers.Overlay(tree, layers.Of("t", "", layers.Regular(path, 0o644, "t", []byte(body))))
	must(t, err)
	return out
}

// A secret that nobody declared is found wherever it is.
func TestUndeclaredSecret(t *testing.T) {
	key := "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIGGmGXxaBcDeFgHiJkLmNoPqRs\n-----END EC PRIVATE KEY-----\n"
	w := newWorld(t, aptfake.Deb{Name: "snakeoil", Files: []layers.File{
		layers.Regular("usr/share/snakeoil/key.pem", 0o644, "t", []byte(key)),
		layers.Regular("usr/share/snakeoil/how.txt", 0o644, "t", []byte("begin with -----BEGIN EC PRIVATE KEY----- and so on")),
	}})
	must(t, os.WriteFile("u.bu", []byte("variant: fcos\nversion: 1.4.0\npasswd: {users: [{name: core, password_hash: $y$x}]}\n"), 0o644))
	r := report(t, w.build(t, func(s *builder.Spec) {
		s.Base.Packages = []string{"snakeoil"}
		s.Butane = []string{"u.bu"}
	}), false)
	var got []string
	for _, s := range r.Secrets {
		if s.Use == "" {
			got = append(got, s.Path+": "+s.Kind)
		}
	}
	if d := cmp.Diff([]string{"/etc/shadow: password hash of core", "/usr/share/snakeoil/key.pem: private key"}, got); d != "" {
		t.Error(d)
	}
	if text := textOf(t, r); !strings.Contains(text, "NOT DECLARED") || strings.Contains(text, "MHcCAQEEIGG") {
		t.Error("the text does not name it, or has it")
	}
}

func TestListAndCat(t *testing.T) {
	i := openImage(t, newWorld(t).build(t, nil))
	for _, tt := range []struct {
		tree *layers.Tree
		path string
		deep bool
		want string
	}{
		{i.ESP, "/", false, "/EFI /loader"},
		{i.ESP, "loader/", true, "/loader/entries.srel /loader/loader.conf"},
		{i.Root, "/bin/kubelet", false, "/usr/bin/kubelet"},
		{i.Root, "../../etc/../usr/lib/kscratch/dpkg", false, "/usr/lib/kscratch/dpkg/status"},
		{i.Config, "/etc/docker", true, "/etc/docker/daemon.json"},
		{i.Initrd, "/etc/kscratch", false, "/etc/kscratch/build.json /etc/kscratch/cluster.yaml /etc/kscratch/image-id"},
	} {
		entries, err := i.List(tt.tree, tt.path, tt.deep)
		must(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Path)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s has %q, want %s", tt.path, got, tt.want)
		}
	}
	entries, err := i.List(i.Root, "/usr/bin/bash", false)
	must(t, err)
	if e := entries[0]; e.Owner != "deb:bash=1.0-1" || e.Mode != "0755" || e.Type != "file" {
		t.Errorf("got %+v", e)
	}
	var b bytes.Buffer
	must(t, inspect.Cat(i.ESP, "loader/loader.conf", &b))
	if !strings.HasPrefix(b.String(), "timeout 0\n") {
		t.Errorf("got %q", b.String())
	}
	if err := inspect.Cat(i.Root, "/usr", &b); err == nil || !strings.Contains(err.Error(), "/usr is no regular file but a dir") {
		t.Errorf("got %v", err)
	}
	if err := inspect.Cat(i.Root, "/none", &b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWhy(t *testing.T) {
	lib := aptfake.Deb{Name: "libx", Files: []layers.File{layers.Regular("usr/lib/libx.so", 0o644, "t", []byte("x"))}}
	w := newWorld(t, aptfake.Deb{Name: "tool", Depends: "libmid (>= 1)"}, aptfake.Deb{Name: "libmid", Depends: "nothing | libx"}, lib)
	must(t, os.WriteFile("own.bu", []byte("variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: /etc/hosts, overwrite: true, contents: {inline: x}}]}\n"), 0o644))
	i := openImage(t, w.build(t, func(s *builder.Spec) {
		s.Base.Packages = []string{"bash", "tool"}
		s.Butane = []string{"own.bu"}
		s.Network.MTU = 1400
	}))
	places, err := builder.Places("c.yaml", []byte("network:\n  mtu: 1400\nbase:\n  packages:\n  - bash\n  - tool\n"))
	must(t, err)
	etcd := slices.IndexFunc(i.Record.Images, func(im record.Image) bool { return strings.Contains(im.Name, "etcd") })
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"/usr/bin/bash", []string{"Debian package bash 1.0-1", "archive pool/main/b/bash/bash_1.0-1_amd64.deb", `base.packages[0]: "bash" (c.yaml:5:5)`}},
		{"/usr/lib/libx.so", []string{"tool → libmid → libx", `base.packages[1]: "tool" (c.yaml:6:5)`}},
		{"/bin/kubelet", []string{"/usr/bin/kubelet (root)", "Kubernetes v1.36.3", "files: kubernetes-server v1.36.3 from path", "kubernetes.version", "(the default)"}},
		{"/usr/bin/cri-dockerd", []string{"cri-dockerd v0.3.17", "files: cri-dockerd", "components.criDockerd"}},
		{"/usr/bin/kscratch-node", []string{"kscratch's own", "none: every image has it"}},
		{"/etc/passwd", []string{"derive:accounts", "no account has a password"}},
		{"/" + i.Record.Images[etcd].Layers[0].Dir + "/usr/local/bin/etcd", []string{"container image registry.k8s.io/etcd:3.6.8-0", "images: registry.k8s.io/etcd:3.6.8-0 from docker-archive:etcd.tar", "components.etcd"}},
		{"/etc/docker/daemon.json", []string{"(first boot)", "network.mtu: 1400 (c.yaml:2:8)"}},
		{"/etc/hosts", []string{"changed by the Butane file own.bu", `butane[0]: "own.bu"`, "(root)", "derive:etc"}},
		{"/etc/kubernetes/pki/ca.key", []string{"a secret: the cluster's authority", "pki: \"pki\""}},
		{"/etc/systemd/system/kubelet.service", []string{"(enabled)", "kubelet.rootDir"}},
	} {
		reasons, err := i.Why(tt.path, places)
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		var b bytes.Buffer
		must(t, inspect.WhyText(&b, reasons))
		for _, want := range tt.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %q in\n%s", tt.path, want, b.String())
			}
		}
	}
	if _, err := i.Why("/none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for f := range i.Root.Files() {
		if _, err := i.Why("/"+f.Path, nil); err != nil {
			t.Error(err)
		}
	}
}

// Each key of the cluster file that changes what the first boot writes is
// named for every path that it changes.
func TestKeys(t *testing.T) {
	w := newWorld(t, aptfake.Deb{Name: "containernetworking-plugins"})
	must(t, os.WriteFile("password", []byte("secret\n"), 0o600))
	list := func(role builder.Role, s builder.Spec) map[string]string {
		l, err := builder.Resolve(t.Context(), &s, w.options)
		must(t, err)
		img, err := builder.Build(t.Context(), &s, l, role, w.options)
		must(t, err)
		b, err := img.Config.ReadFile("usr/lib/ignition/base.d/50-kscratch.ign")
		must(t, err)
		r, err := ignition.List(b)
		must(t, err)
		out := map[string]string{}
		for _, e := range r.Entries {
			out[e.Path] = e.Mode.String() + e.Note + e.Digest
		}
		return out
	}
	flannel := func(s *builder.Spec) {
		s.Network.Mode, s.Network.CBR0, s.Network.RouteController = "flannel", "auto", false
		s.Components.Flannel.Sources, s.Components.Flannel.Path = []string{"path"}, fakeworld.CRIDockerd // any program
	}
	masquerade := func(s *builder.Spec) { s.Network.Masquerade = true }
	same := func(*builder.Spec) {}
	for _, tt := range []struct {
		key  string
		role builder.Role        // empty: master
		from func(*builder.Spec) // what the key is changed in; nil: the world's
		edit func(*builder.Spec)
	}{
		{"network.mtu", "", nil, func(s *builder.Spec) { s.Network.MTU = 1300 }},
		{"network.serviceCIDR", "", nil, func(s *builder.Spec) { s.Network.ServiceCIDR = "10.96.0.0/13" }},
		{"network.clusterDNS", "", nil, func(s *builder.Spec) { s.Network.ClusterDNS = "10.96.0.11" }},
		{"network.clusterDomain", "", nil, func(s *builder.Spec) { s.Network.ClusterDomain = "example.org" }},
		{"network.clusterCIDR", "", nil, func(s *builder.Spec) { s.Network.ClusterCIDR = "10.128.0.0/16" }},
		{"network.masquerade", "", nil, masquerade},
		{"network.nonMasqueradeCIDRs", "", masquerade, func(s *builder.Spec) { s.Network.NonMasqueradeCIDRs = nil }},
		{"network.routes", "", nil, func(s *builder.Spec) { s.Network.Routes = []builder.Route{{To: "10.9.0.0/24", Via: "10.8.0.1"}} }},
		{"network.routeController", "", nil, func(s *builder.Spec) { s.Network.RouteController = false }},
		{"docker.insecureRegistries", "", nil, func(s *builder.Spec) { s.Docker.InsecureRegistries = []string{"a:5000"} }},
		{"docker.ipMasq", "", nil, func(s *builder.Spec) { s.Docker.IPMasq = true }},
		{"docker.nofile", "", nil, func(s *builder.Spec) { s.Docker.NoFile = 5000 }},
		{"docker.options", "", nil, func(s *builder.Spec) { s.Docker.Options = map[string]any{"debug": true} }},
		{"docker.registries", "", nil, func(s *builder.Spec) {
			s.Docker.Registries = []builder.Registry{{Host: "r.example", Username: "u", PasswordFile: "password"}}
		}},
		{"kubeProxy.mode", "", nil, func(s *builder.Spec) { s.KubeProxy.Mode = "nftables" }},
		{"kubelet.rootDir", "", nil, func(s *builder.Spec) { s.Kubelet.RootDir = "/var/lib/k" }},
		{"kubelet.registerNode", "", nil, func(s *builder.Spec) { s.Kubelet.RegisterNode = false }},
		{"kubelet.nodeNames", "", nil, func(s *builder.Spec) { s.Kubelet.NodeNames = "dhcp" }},
		{"controlPlane.schedulable", "", nil, func(s *builder.Spec) { s.ControlPlane.Schedulable = false }},
		{"components.pause", "", nil, func(s *builder.Spec) { s.Components.Pause.Version = "3.9" }},
		{"components.etcd", "", nil, func(s *builder.Spec) { s.Components.Etcd.Version = "v3.6.9" }},
		{"components.coreDNS", "", nil, func(s *builder.Spec) { s.Components.CoreDNS.Version = "v1.14.8" }},
		{"kubernetes.version", "", nil, func(s *builder.Spec) { s.Kubernetes.Version = "v1.36.9" }},
		{"network.cbr0", "", nil, func(s *builder.Spec) { s.Network.CBR0, s.Network.RouteController = "auto", false }},
		{"network.mode", "", nil, flannel},
		{"network.flannel.backend", "", flannel, func(s *builder.Spec) { s.Network.Flannel.Backend = "host-gw" }},
		{"network.nodeCIDRs", "", masquerade, func(s *builder.Spec) { s.Network.NodeCIDRs = []string{"192.168.7.0/24"} }},
		{"network.uplinkMTU", "", flannel, func(s *builder.Spec) { s.Network.UplinkMTU = 9000 }},
		{"security", "", nil, func(s *builder.Spec) { s.Security, s.Network.NodeCIDRs = "firewall", []string{"192.168.7.0/24"} }},
		{"controlPlane.endpoint", builder.Worker, nil, func(s *builder.Spec) { s.ControlPlane.Endpoint = "api.example:6443" }},
		{"name", "", nil, func(s *builder.Spec) { s.Name = "other" }},
		{"controlPlane.extraSANs", "", nil, func(s *builder.Spec) { s.ControlPlane.ExtraSANs = []string{"api.example"} }},
		{"network.bridge", "", nil, func(s *builder.Spec) { s.Network.Bridge = "pods0" }},
		{"docker.dataRoot", "", nil, func(s *builder.Spec) { s.Docker.DataRoot = "/var/lib/d" }},
		{"docker.logDriver", "", nil, func(s *builder.Spec) { s.Docker.LogDriver = "journald" }},
		{"docker.logMaxSize", "", nil, func(s *builder.Spec) { s.Docker.LogMaxSize = "1m" }},
		{"docker.logMaxFiles", "", nil, func(s *builder.Spec) { s.Docker.LogMaxFiles = 9 }},
		{"docker.userlandProxy", "", nil, func(s *builder.Spec) { s.Docker.UserlandProxy = false }},
		{"docker.liveRestore", "", nil, func(s *builder.Spec) { s.Docker.LiveRestore = true }},
		{"kubelet.maxPods", "", nil, func(s *builder.Spec) { s.Kubelet.MaxPods = 50 }},
		{"kubelet.extraConfig", "", nil, func(s *builder.Spec) { s.Kubelet.ExtraConfig = map[string]any{"maxOpenFiles": 5000} }},
		{"kubeProxy.extraConfig", "", nil, func(s *builder.Spec) { s.KubeProxy.ExtraConfig = map[string]any{"configSyncPeriod": "20m"} }},
	} {
		t.Run(tt.key, func(t *testing.T) {
			role, from := stdcmp.Or(tt.role, builder.Master), tt.from
			if from == nil {
				from = same
			}
			s := *w.spec
			from(&s)
			base := list(role, s)
			tt.edit(&s)
			now := list(role, s)
			changed := 0
			for p, v := range now {
				if base[p] == v {
					continue
				}
				changed++
				if !slices.Contains(inspect.ConfigKeys(p), tt.key) {
					t.Errorf("%s depends on %s, which is not named; named are %q", p, tt.key, inspect.ConfigKeys(p))
				}
			}
			if changed == 0 {
				t.Error("nothing changed")
			}
		})
	}
}

func TestCompare(t *testing.T) {
	w := newWorld(t, aptfake.Deb{Name: "extra"})
	raw := w.build(t, nil)
	a := openImage(t, raw)
	d, err := inspect.Compare(t.Context(), a, openImage(t, raw))
	must(t, err)
	if !d.Same || len(d.Parts) > 0 || d.Verdict.Rollback != inspect.Safe {
		t.Errorf("an image differs from itself: %+v", d)
	}
	b := openImage(t, w.build(t, func(s *builder.Spec) {
		s.Base.Packages = []string{"extra"}
		s.Network.MTU = 1400
		s.Network.ServiceCIDR = "10.96.0.0/13"
		s.Docker.NoFile = 5000
		s.Disk.KernelArgs = []string{"quiet"}
	}))
	d, err = inspect.Compare(t.Context(), a, b)
	must(t, err)
	got := map[string]string{}
	for _, p := range d.Parts {
		for _, c := range p.Changes {
			got[p.Name+": "+c.Name] = c.Old + " → " + c.New
		}
	}
	for name, want := range map[string]string{
		"packages: extra":           " → 1.0-1",
		"cluster file: network.mtu": "0 → 1400",
		"static pods: kube-apiserver --service-cluster-ip-range":         "10.96.0.0/12 → 10.96.0.0/13",
		"units: docker.service.d/10-kscratch.conf [Service] LimitNOFILE": "1000000 → 5000",
		"build: kernel arguments":                                        "root=/dev/mapper/root rootfstype=erofs ro panic=30 console=tty0 console=ttyS0,115200n8 → root=/dev/mapper/root rootfstype=erofs ro panic=30 console=tty0 console=ttyS0,115200n8 quiet",
		"secrets: /etc/kubernetes/pki/ca.key":                            "",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if d.Same || d.Verdict.Upgrade != inspect.Care || d.Verdict.Rollback != inspect.Care || len(d.Verdict.Reasons) != 1 ||
		!strings.Contains(d.Verdict.Reasons[0], "network.serviceCIDR goes from 10.96.0.0/12 to 10.96.0.0/13") {
		t.Errorf("verdict: %+v", d.Verdict)
	}
	other := *b
	other.Build.Role = "node"
	if d, err := inspect.Compare(t.Context(), a, &other); err != nil || d.Verdict.Upgrade != inspect.Incomparable {
		t.Errorf("a master and a node: %+v (%v)", d.Verdict, err)
	}
	var text bytes.Buffer
	must(t, d.Text(&text, 1))
	if !regexp.MustCompile(`(?s)packages \(1\)\n  \+  extra +1\.0-1\n.*… and \d+ more; --all shows them\n.*roll back +with care`).MatchString(text.String()) {
		t.Errorf("text:\n%s", text.String())
	}
}

// The bill of an image is the one that its build writes.
func TestBill(t *testing.T) {
	w := newWorld(t)
	w.options.SBOM, w.options.Version = true, "v1"
	raw := w.build(t, nil)
	want, err := os.ReadFile(strings.TrimSuffix(raw, ".raw") + ".spdx.json")
	must(t, err)
	b, err := openImage(t, raw).Bill(t.Context(), "v1")
	must(t, err)
	got, err := sbom.SPDX(b)
	must(t, err)
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Error(d)
	}
}
