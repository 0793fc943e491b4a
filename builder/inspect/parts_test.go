package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
)

// The rules of the version skew policies, there and back.
func TestStep(t *testing.T) {
	for _, tt := range []struct {
		name, from, to    string
		rule              func(int) (Risk, string)
		upgrade, rollback Risk
		reason            string
	}{
		{"Kubernetes", "v1.36.3", "v1.36.3", apiServer, Safe, Safe, ""},
		{"Kubernetes", "v1.36.3", "v1.36.9", apiServer, Safe, Safe, ""},
		{"Kubernetes", "v1.35.0", "v1.36.3", apiServer, Care, Unsafe, "roll back: Kubernetes from v1.36.3 to v1.35.0: an API server does not go back"},
		{"Kubernetes", "v1.34.0", "v1.36.3", apiServer, Unsafe, Unsafe, "one minor version at a time"},
		{"Kubernetes", "v1.36.3", "v1.35.0", apiServer, Unsafe, Care, "upgrade: Kubernetes from v1.36.3 to v1.35.0: an API server does not go back"},
		{"Kubernetes", "v1.36.3", "v2.0.0", apiServer, Unsafe, Unsafe, "nothing is known"},
		{"Kubernetes", "", "v1.36.3", apiServer, Unsafe, Unsafe, "nothing is known"},
		{"Kubernetes", "v1.36.0", "v1.36.1", kubelet, Safe, Safe, ""},
		{"Kubernetes", "v1.34.0", "v1.36.1", kubelet, Care, Care, "masters first"},
		{"Kubernetes", "v1.32.0", "v1.36.1", kubelet, Care, Unsafe, "three minor versions"},
		{"etcd", "v3.6.1", "v3.6.8", etcd, Safe, Safe, ""},
		{"etcd", "v3.5.21", "v3.6.8", etcd, Safe, Care, "etcdctl downgrade enable"},
		{"etcd", "v3.4.0", "v3.6.8", etcd, Unsafe, Unsafe, "one minor version"},
		{"etcd", "3.6.8-0", "v3.6.8", etcd, Safe, Safe, ""},
	} {
		v := Verdict{Upgrade: Safe, Rollback: Safe}
		v.step(tt.name, tt.from, tt.to, tt.rule)
		if v.Upgrade != tt.upgrade || v.Rollback != tt.rollback || !strings.Contains(strings.Join(v.Reasons, "; "), tt.reason) {
			t.Errorf("%s from %s to %s: %+v, want %s and %s", tt.name, tt.from, tt.to, v, tt.upgrade, tt.rollback)
		}
	}
}

func TestKindOf(t *testing.T) {
	const b64 = "MHcCAQEEIGGmGXxaBcDe"
	for _, tt := range []struct{ path, content, want string }{
		{"a", "-----BEGIN PRIVATE KEY-----\n" + b64, "private key"},
		{"a", "x: |\n  -----BEGIN RSA PRIVATE KEY-----\n  " + b64, "private key"},
		{"a", "write -----BEGIN PRIVATE KEY-----\n" + b64, ""},
		{"a", "-----BEGIN PRIVATE KEY-----\n…", ""},
		{"a", "-----BEGIN CERTIFICATE-----\n" + b64, ""},
		{"a.kubeconfig", "    client-key-data: " + b64, "kubeconfig with a client key"},
		{"a.kubeconfig", "    token: abcdef.0123456789abcdef", "kubeconfig with a token"},
		{"a", "    token: abcdef.0123456789abcdef", ""},
		{"etc/kubernetes/registries.json", `{"auths":{"r":{"auth":"dTpw"}}}`, "registry passwords"},
		{"etc/kubernetes/registries.json", `{"auths":{}}`, ""},
		{"etc/shadow", "root:*:1::::::\ncore:$y$j9T$x:1::::::\n", "password hashes"},
		{"etc/shadow", "root:*:1::::::\n", ""},
	} {
		if got := kindOf(tt.path, []byte(tt.content)); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.path, tt.content, got, tt.want)
		}
	}
}

func TestSettings(t *testing.T) {
	got := map[string]string{}
	settings(got, "a.service", "# [x]\n[Unit]\nAfter=a\nAfter=b\n;c=d\n[Service]\nExecStart=/bin/a \\\n  --b\n")
	want := map[string]string{"a.service [Unit] After": "a; b", "a.service [Service] ExecStart": "/bin/a --b"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestValueAt(t *testing.T) {
	var v any
	if err := yaml.Unmarshal([]byte("a: {b: [x, {c: 1}]}"), &v); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"a.b[0]": "x", "a.b[1].c": 1} {
		if got, err := valueAt(v, key); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", key, got, err, want)
		}
	}
	for _, key := range []string{"b", "a.b[2]", "a.b[-1]", "a.b.c", "a.b[0].c"} {
		if got, err := valueAt(v, key); err == nil {
			t.Errorf("%s: got %v", key, got)
		}
	}
}

// tree is a tree of small files, by path.
func tree(t *testing.T, files map[string]string) *layers.Tree {
	t.Helper()
	var all []layers.File
	for p, body := range files {
		all = append(all, layers.Regular(p, 0o644, "o", []byte(body)))
	}
	out, err := layers.Merge(layers.Of("o", "", all...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is set for a node: later and nearer files hide others.
func TestAspects(t *testing.T) {
	i := &Image{
		Root: tree(t, map[string]string{
			"usr/lib/modules/6/config":            "# x\nCONFIG_A=y\nCONFIG_B=\"s\"\n# CONFIG_C is not set\n",
			"usr/lib/sysctl.d/10-a.conf":          "a.b = 1\n-c.d=2\n; e = 1\n",
			"usr/lib/sysctl.d/20-b.conf":          "c.d=3\n",
			"usr/lib/sysctl.d/30-c.conf":          "f=1\n",
			"usr/lib/systemd/system/a.service":    "[Service]\nType=simple\nUser=x\n",
			"usr/lib/systemd/system/b.service":    "[Service]\nType=simple\n",
			"etc/systemd/system/x.wants/a.socket": "",
		}),
		Config: tree(t, map[string]string{
			"etc/sysctl.d/30-c.conf":          "f=2\n",
			"etc/systemd/system/a.service":    "[Service]\nType=notify\n",
			"etc/kubernetes/manifests/p.yaml": "kind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i:1, command: [c, --x=1, --y], args: [--z=2]}]}\n",
			"etc/kubernetes/kubelet.yaml":     "kind: KubeletConfiguration\nmaxPods: 110\n---\nkind: Other\n",
			"etc/kubernetes/other.kubeconfig": "kind: Config\n",
		}),
	}
	for _, tt := range []struct {
		name string
		of   func(*Image, context.Context) (map[string]string, error)
		want map[string]string
	}{
		{"kernel", (*Image).kernelConfig, map[string]string{"CONFIG_A": "y", "CONFIG_B": `"s"`}},
		{"sysctl", (*Image).sysctls, map[string]string{"a.b": "1", "c.d": "3", "f": "2"}},
		{"units", (*Image).unitValues, map[string]string{"a.service [Service] Type": "notify", "b.service [Service] Type": "simple"}},
		{"pods", (*Image).podValues, map[string]string{"c image": "i:1", "c --x": "1", "c --y": "true", "c --z": "2"}},
		{"objects", (*Image).objectValues, map[string]string{
			"kubelet.yaml KubeletConfiguration kind": "KubeletConfiguration", "kubelet.yaml KubeletConfiguration maxPods": "110",
			"kubelet.yaml Other kind": "Other", "manifests/p.yaml Pod/p kind": "Pod", "manifests/p.yaml Pod/p metadata.name": "p",
			"manifests/p.yaml Pod/p spec.containers[0].name": "c",
		}},
	} {
		got, err := tt.of(i, t.Context())
		if d := cmp.Diff(tt.want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", tt.name, err, d)
		}
	}
}

func TestPlain(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte("text")); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		e    ignition.Entry
		want string
		fail bool
	}{
		{ignition.Entry{Body: []byte("x")}, "x", false},
		{ignition.Entry{Body: b.Bytes(), Note: "gzip"}, "text", false},
		{ignition.Entry{Body: []byte("x"), Note: "gzip"}, "", true},
		{ignition.Entry{Body: b.Bytes()[:20], Note: "gzip"}, "text", true},
	} {
		if got, err := plain(tt.e); string(got) != tt.want || (err != nil) != tt.fail {
			t.Errorf("%+v: got %q, %v", tt.e, got, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a b → ü": "a b → ü", "a\x1b[31m": `a\x1b[31m`, "a\nb": `a\nb`, "\xff": `\xff`} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// Text from an image is from outside.
func FuzzText(f *testing.F) {
	f.Add("[Unit]\nAfter=a \\\n b\n", "base.packages[0]", "v1.36.3")
	f.Add("-----BEGIN PRIVATE KEY-----\nMHcCAQEEIGGmGXxaBcDe", "a..[[", "v1.-1")
	f.Fuzz(func(t *testing.T, text, key, version string) {
		settings(map[string]string{}, "a", text)
		kindOf("a.kubeconfig", []byte(text))
		kindOf("etc/shadow", []byte(text))
		_, _ = valueAt(map[string]any{"base": []any{text}}, key)
		parseMinor(version)
		if p := Printable(text); strings.ContainsAny(p, "\x1b\n\r\x07") {
			t.Errorf("%q is printed as %q", text, p)
		}
	})
}
