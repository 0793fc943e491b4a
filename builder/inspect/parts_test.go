package inspect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
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
	flat := map[string]string{}
	flatten(flat, "", v)
	if d := cmp.Diff(map[string]string{"a.b[0]": "x", "a.b[1].c": "1"}, flat); d != "" {
		t.Error(d)
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
