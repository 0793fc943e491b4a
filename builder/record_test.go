package builder_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
)

// The record of a root is right about every file of it, also when the digests
// come from the content store.
func TestRecordOfRoot(t *testing.T) {
	p := newProject(t)
	first := p.image(t)
	checkRecord(t, first.Root)
	again := p.image(t)
	checkRecord(t, again.Root)
	a, err := first.Root.ReadFile(record.RootPath)
	must(t, err)
	b, err := again.Root.ReadFile(record.RootPath)
	must(t, err)
	if string(a) != string(b) {
		t.Error("two builds recorded different things")
	}
	r, err := record.ParseRoot(a)
	must(t, err)
	i := slices.IndexFunc(r.Packages, func(p record.Package) bool { return p.Name == "bash" })
	if i < 0 || r.Packages[i].Version != "1.0-1" {
		t.Errorf("packages: %+v", r.Packages)
	}
	for _, im := range r.Images {
		for _, l := range im.Layers {
			if f, ok := first.Root.Lookup(l.Dir); !ok || !f.Mode.IsDir() {
				t.Errorf("image %s: there is no directory %s", im.Name, l.Dir)
			}
		}
	}
}

func checkRecord(t *testing.T, root *layers.Tree) {
	t.Helper()
	b, err := root.ReadFile(record.RootPath)
	must(t, err)
	r, err := record.ParseRoot(b)
	must(t, err)
	found := r.ByPath()
	if len(found) != root.Len() {
		t.Errorf("%d paths are recorded, want %d", len(found), root.Len())
	}
	for f := range root.Files() {
		want := record.Found{Owner: f.Owner}
		if f.Mode.IsRegular() && f.Path != record.RootPath {
			b, err := f.Read()
			must(t, err)
			want.Sum = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		if got := found[f.Path]; got != want {
			t.Errorf("/%s: recorded %+v, want %+v", f.Path, got, want)
		}
	}
}

// The record of a root is the same from wherever its parts came: the root has
// the same version then, and must have the same bytes.
func TestRecordOfRootKnowsNoSources(t *testing.T) {
	p := newProject(t)
	l := p.lock(t)
	build := func() string {
		img, err := builder.Build(t.Context(), p.spec, l, builder.Master, p.options)
		must(t, err)
		b, err := img.Root.ReadFile(record.RootPath)
		must(t, err)
		return img.RootID + string(b)
	}
	before := build()
	l.Files[0].From = "elsewhere"
	for i := range l.Packages {
		l.Packages[i].Archive, l.Packages[i].Path = "security", "pool/x"
	}
	if after := build(); after != before {
		t.Error("the record of the root tells where its parts came from")
	}
	l.Files[0].Version = "v9"
	if after := build(); after == before {
		t.Error("another version is recorded as the same")
	}
}

// What the cluster file asks for is recorded with its key, and the user's own
// files are told apart.
func TestRecordOfBuild(t *testing.T) {
	p := newProject(t)
	must(t, os.WriteFile("own.bu", []byte("variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: /etc/own, contents: {inline: x}}]}\n"), 0o644))
	p.spec.Disk = builder.Default().Disk // the small one is no valid file
	must(t, os.WriteFile("role.bu", []byte("variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: /etc/role, contents: {inline: x}}]}\n"), 0o644))
	p.spec.Butane = []string{"own.bu"}
	p.spec.RoleButane = map[string][]string{"master": {"role.bu"}}
	p.spec.Base.Packages = []string{"bash=1.0-1"}
	img := p.image(t)
	b, err := img.Config.ReadFile(record.BuildPath)
	must(t, err)
	r, err := record.ParseBuild(b)
	must(t, err)
	if r.Version != img.Version || r.Role != "master" || r.Root != img.RootID {
		t.Errorf("got %+v", r)
	}
	if d := cmp.Diff(map[string]string{"/etc/own": "butane[0] own.bu", "/etc/role": "roleButane.master[0] role.bu"}, r.Butane); d != "" {
		t.Error(d)
	}
	for part, want := range map[string]string{
		"deb:bash": "base.packages[0]", "deb:systemd": "kscratch", "deb:linux-image-cloud-amd64": "base.kernel",
		"program:cri-dockerd": "components.criDockerd", "image:registry.k8s.io/kube-scheduler:v1.36.3": "kubernetes.version",
		"image:registry.k8s.io/etcd:3.6.8-0": "components.etcd",
	} {
		if got := r.Keys[part]; got != want {
			t.Errorf("%s is asked for by %q, want %q", part, got, want)
		}
	}
	if len(r.Secrets) == 0 || !slices.ContainsFunc(r.Secrets, func(s record.Secret) bool { return s.Path == "/etc/kubernetes/pki/ca.key" && s.Use != "" }) {
		t.Errorf("secrets: %+v", r.Secrets)
	}
	b, err = img.Config.ReadFile(record.SpecPath)
	must(t, err)
	spec, err := builder.Parse("recorded", b)
	must(t, err)
	if spec.Base.Packages[0] != "bash=1.0-1" || layers.DigestOf(b) != r.Spec {
		t.Errorf("the recorded cluster file has the digest %s, the record says %s", layers.DigestOf(b), r.Spec)
	}
}
