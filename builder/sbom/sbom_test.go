package sbom

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/layers"
)

var options = Options{Name: "kscratch-master", Version: "20260102.0304-abcdef01", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tool: "v1.2.3"}

// sample is a root with two packages, a program of Kubernetes, and a container
// image. kscratch-node is the Go program in all of them.
func sample(t *testing.T) *layers.Tree {
	t.Helper()
	node := node(t)
	const store = "usr/lib/kscratch/docker/overlay2/x/diff/usr/local/bin/etcd"
	sum := layers.DigestOf([]byte("x"))
	r := record.Root{
		Format: record.Format, Role: "master",
		Packages: []record.Package{
			{Name: "docker.io", Version: "26.1.5+dfsg1-9", Arch: "amd64", Source: "docker.io", SourceVersion: "26.1.5+dfsg1-9", Digest: sum, Depends: []string{"libc6"}, Maintainer: "Go Team <go@example.org>", Homepage: "https://mobyproject.org"},
			{Name: "libc6", Version: "1:2.41-12", Arch: "amd64", Source: "glibc", SourceVersion: "1:2.41-12", Digest: sum},
		},
		Programs: []record.Program{{Name: "kubernetes-server", Version: "v1.36.3", Digest: sum}},
		Images: []record.Image{
			{Name: "registry.k8s.io/etcd:3.6.8-0", ID: sum},
			{Name: "localhost:5000/Team/app:1", ID: sum, Digest: layers.DigestOf([]byte("manifest"))},
		},
		Files: map[string]map[string]string{
			"deb:docker.io=26.1.5+dfsg1-9":       {"usr/sbin/dockerd": sum.Hex(), "usr/sbin/script": ""},
			"kubernetes=v1.36.3":                 {"usr/bin/kubelet": sum.Hex()},
			"image:registry.k8s.io/etcd:3.6.8-0": {store: sum.Hex()},
		},
	}
	b, err := record.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	program := func(p string, slow bool) layers.File {
		return layers.File{Path: p, Mode: 0o755, Size: int64(len(node)), Owner: "o", Open: func() (io.ReadCloser, error) {
			if slow {
				return io.NopCloser(bytes.NewBuffer(node)), nil // without random access
			}
			return seekable{bytes.NewReader(node)}, nil
		}}
	}
	tree, err := layers.Merge(layers.Of("o", "",
		layers.Regular(record.RootPath, 0o644, "o", b),
		program("usr/sbin/dockerd", false), program("usr/bin/kubelet", true), program(store, false),
		layers.Regular("usr/sbin/script", 0o755, "o", bytes.Repeat([]byte("#!/bin/sh\n"), 10)),
		layers.Regular("usr/sbin/c", 0o755, "o", append([]byte("\x7fELF"), make([]byte, 200)...)),
	))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// seekable is a file that can be read anywhere.
type seekable struct{ *bytes.Reader }

func (seekable) Close() error { return nil }

func node(t *testing.T) []byte {
	t.Helper()
	b, err := programs.Node()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bill(t *testing.T) Bill {
	t.Helper()
	b, err := New(t.Context(), sample(t), options)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kindOnly lists components as text.
func kindOnly(b Bill, k Kind) (out []string) {
	for _, c := range b.Components {
		if c.Kind == k {
			out = append(out, strings.TrimSpace(c.Name+" "+c.PURL))
		}
	}
	return out
}

func TestComponents(t *testing.T) {
	b := bill(t)
	for kind, want := range map[Kind][]string{
		Deb: {
			"docker.io pkg:deb/debian/docker.io@26.1.5%2Bdfsg1-9?arch=amd64&distro=debian-13",
			"libc6 pkg:deb/debian/libc6@1:2.41-12?arch=amd64&distro=debian-13&upstream=glibc%401:2.41-12",
		},
		Image: {
			"localhost:5000/Team/app:1 pkg:oci/app@" + string(layers.DigestOf([]byte("manifest"))) + "?arch=amd64&repository_url=localhost:5000%2Fteam%2Fapp&tag=1",
			"registry.k8s.io/etcd:3.6.8-0 pkg:oci/etcd@" + string(layers.DigestOf([]byte("x"))) + "?arch=amd64&repository_url=registry.k8s.io%2Fetcd&tag=3.6.8-0",
		},
	} {
		if d := cmp.Diff(want, kindOnly(b, kind)); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
	byPath := map[string]Component{}
	ids := map[string]Component{}
	for _, c := range b.Components {
		if c.Path != "" {
			byPath[c.Path] = c
		}
		if _, twice := ids[c.ID]; twice || !regexp.MustCompile(`^[a-zA-Z0-9.-]+$`).MatchString(c.ID) {
			t.Errorf("ID %q is bad or there twice", c.ID)
		}
		ids[c.ID] = c
	}
	for p, within := range map[string]string{
		"/usr/sbin/dockerd": "docker.io", "/usr/bin/kubelet": "kubernetes-server",
		"/usr/lib/kscratch/docker/overlay2/x/diff/usr/local/bin/etcd": "registry.k8s.io/etcd:3.6.8-0",
	} {
		if got := ids[byPath[p].Within].Name; got != within {
			t.Errorf("%s is within %q, want %q", p, got, within)
		}
	}
	if len(byPath) != 3 {
		t.Errorf("programs: %v", byPath)
	}
	for p, c := range byPath {
		var got []string
		for _, id := range c.Needs {
			got = append(got, ids[id].PURL)
		}
		slices.Sort(got)
		if d := cmp.Diff(goVersion(t), got); d != "" {
			t.Errorf("%s: %s", p, d)
		}
	}
}

// goVersion returns the modules of kscratch-node as the go command lists them.
func goVersion(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(file, node(t), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", file).Output()
	if err != nil {
		t.Fatalf("listing the modules: %v", err)
	}
	var purls []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(f[0], file):
			purls = append(purls, golang("stdlib", strings.TrimPrefix(f[1], "go")))
		case f[0] == "dep":
			purls = append(purls, golang(f[1], f[2]))
		}
	}
	if len(purls) < 2 {
		t.Fatalf("kscratch-node has no modules:\n%s", out)
	}
	slices.Sort(purls)
	return purls
}

func TestPURL(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{golang("github.com/BurntSushi/toml", "v1.2.0+incompatible"), "pkg:golang/github.com/burntsushi/toml@v1.2.0%2Bincompatible"},
		{golang("stdlib", "1.26.0"), "pkg:golang/stdlib@1.26.0"},
		{purl("deb", "debian", "g++", "1~rc", map[string]string{"arch": ""}), "pkg:deb/debian/g%2B%2B@1~rc"},
		{purl("generic", "", "a b", "", map[string]string{"z": "1", "a": "x/y"}), "pkg:generic/a%20b?a=x%2Fy&z=1"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

// SPDX's own library reads the document, and finds all its relationships.
func TestSPDX(t *testing.T) {
	b := bill(t)
	out, err := SPDX(b)
	if err != nil {
		t.Fatal(err)
	}
	var doc v2_3.Document
	if err := spdxjson.ReadInto(bytes.NewReader(out), &doc); err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(&doc); err != nil {
		t.Error(err)
	}
	if doc.SPDXVersion != v2_3.Version || len(doc.Packages) != len(b.Components)+1 {
		t.Errorf("version %s with %d packages, want %d", doc.SPDXVersion, len(doc.Packages), len(b.Components)+1)
	}
	described, err := spdxlib.GetDescribedPackageIDs(&doc)
	if err != nil || len(described) != 1 || described[0] != common.ElementID("image") {
		t.Errorf("describes %v (%v)", described, err)
	}
	for _, p := range doc.Packages {
		if p.PackageName == "docker.io" && (p.PackageSupplier.Supplier != "Go Team (go@example.org)" || p.PackageSupplier.SupplierType != "Organization") {
			t.Errorf("supplier %+v", p.PackageSupplier)
		}
	}
	lawsOfSPDX(t, out)
}

// lawsOfSPDX are those of chapters 6, 7 and 11 that the library lets pass.
func lawsOfSPDX(t *testing.T, out []byte) {
	t.Helper()
	var d spdx
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z", d.Creation.Created); err != nil {
		t.Error(err)
	}
	reached := map[string]bool{}
	for _, r := range d.Relationships {
		reached[r.To] = true
	}
	for _, p := range d.Packages {
		if !reached[p.ID] {
			t.Errorf("%s is in no relationship", p.ID)
		}
		if p.DownloadLocation == "" || p.Name == "" || p.FilesAnalyzed {
			t.Errorf("package %+v", p)
		}
	}
}

// CycloneDX' own library reads the document, and its schema takes it.
func TestCycloneDX(t *testing.T) {
	b := bill(t)
	out, err := CycloneDX(b)
	if err != nil {
		t.Fatal(err)
	}
	doc := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(bytes.NewReader(out), cdx.BOMFileFormatJSON).Decode(doc); err != nil {
		t.Fatal(err)
	}
	if doc.SpecVersion != cdx.SpecVersion1_6 || len(*doc.Components) != len(b.Components) {
		t.Errorf("version %s with %d components, want %d", doc.SpecVersion, len(*doc.Components), len(b.Components))
	}
	refs := map[string]bool{doc.Metadata.Component.BOMRef: true}
	for _, c := range *doc.Components {
		refs[c.BOMRef] = true
	}
	for _, d := range *doc.Dependencies {
		for _, ref := range append([]string{d.Ref}, deref(d.Dependencies)...) {
			if !refs[ref] {
				t.Errorf("there is no component %s", ref)
			}
		}
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema(t).Validate(instance); err != nil {
		t.Error(err)
	}
}

func deref(s *[]string) []string {
	if s == nil {
		return nil
	}
	return *s
}

// schema returns CycloneDX' own schema of version 1.6, which lies in the
// module of its library.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatalf("finding the module of CycloneDX: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema")
	c := jsonschema.NewCompiler()
	for name, file := range map[string]string{
		"spdx.schema.json": "spdx.schema.json", "bom-1.6.schema.json": "bom-1.6.schema.json",
		"jsf-0.82.schema.json": "jsf-0.82.schemax.json", // its name in the module
	} {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(f)
		f.Close()
		if err == nil {
			err = c.AddResource("http://cyclonedx.org/schema/"+name, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSameBytes(t *testing.T) {
	for name, render := range map[string]func(Bill) ([]byte, error){"spdx": SPDX, "cyclonedx": CycloneDX} {
		a, err := render(bill(t))
		if err != nil {
			t.Fatal(err)
		}
		b, err := render(bill(t))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two bills of one root differ (%v)", name, err)
		}
		other := bill(t)
		other.Components[0].PURL += "x"
		c, err := render(other)
		if err != nil || bytes.Contains(c, []byte(bill(t).uuid(name))) {
			t.Errorf("%s: another bill has the same identifier (%v)", name, err)
		}
	}
}

func TestNoRecord(t *testing.T) {
	empty, err := layers.Merge()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(context.Background(), empty, options); err == nil || !strings.Contains(err.Error(), "listing the software of an image: ") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, sample(t), options); err == nil {
		t.Error("a cancelled scan ended well")
	}
}
