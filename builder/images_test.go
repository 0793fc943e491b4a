package builder_test

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/fakeworld"
)

// hub is a registry on the loopback. With a password it wants one, of the user
// "puller".
type hub struct {
	*httptest.Server
	password string
}

func newHub(t *testing.T, secure bool) *hub {
	t.Helper()
	h := &hub{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, password, _ := q.BasicAuth(); h.password != "" && (user != "puller" || password != h.password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, q)
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		h.StartTLS()
	} else {
		h.Start()
	}
	t.Cleanup(h.Close)
	return h
}

func (h *hub) host() string { return h.Listener.Addr().String() }

// ca writes the certificate of the registry to a file of the project.
func (h *hub) ca(t *testing.T) string {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	must(t, os.WriteFile("ca.pem", b, 0o644))
	return "ca.pem"
}

// push pushes an image or an index and returns its digest.
func (h *hub) push(t *testing.T, nameTag string, v remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(h.host() + "/" + nameTag)
	must(t, err)
	opt := remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
	var d v1.Hash
	switch v := v.(type) {
	case v1.ImageIndex:
		must(t, remote.WriteIndex(ref, v, opt))
		d, err = v.Digest()
	case v1.Image:
		must(t, remote.Write(ref, v, opt))
		d, err = v.Digest()
	}
	must(t, err)
	return d.String()
}

// someImage returns an image for an architecture, the same for the same seed.
func someImage(t *testing.T, arch string, seed byte) v1.Image {
	t.Helper()
	img, err := random.Image(64, 1, random.WithSource(constant(seed)))
	must(t, err)
	c, err := img.ConfigFile()
	must(t, err)
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, c)
	must(t, err)
	return img
}

type constant byte

func (c constant) Int63() int64 { return int64(c) }
func (c constant) Seed(int64)   {}

func someIndex(t *testing.T, arches ...string) v1.ImageIndex {
	t.Helper()
	idx := v1.ImageIndex(empty.Index)
	for i, a := range arches {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: someImage(t, a, byte(i)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}},
		})
	}
	return idx
}

// save writes a docker-archive with images by name.
func save(t *testing.T, file string, imgs map[string]v1.Image) {
	t.Helper()
	tagged := map[name.Tag]v1.Image{}
	for n, img := range imgs {
		tag, err := name.NewTag(n)
		must(t, err)
		tagged[tag] = img
	}
	must(t, tarball.MultiWriteToFile(file, tagged))
}

// saveLayout writes an OCI layout whose images have a tag each.
func saveLayout(t *testing.T, dir string, imgs map[string]v1.Image) {
	t.Helper()
	p, err := layout.Write(dir, empty.Index)
	must(t, err)
	for tag, img := range imgs {
		must(t, p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})))
	}
}

const app = "example.org/app:v1"

// Every kind of source brings its image into docker's store on a node.
func TestImageSources(t *testing.T) {
	plain, private := newHub(t, false), newHub(t, true)
	img := someImage(t, "amd64", 1)
	digest := plain.push(t, "app:v1", img)
	index := plain.push(t, "multi:v1", someIndex(t, "arm64", "amd64"))
	private.push(t, "app:v1", img)
	private.password = "secret"
	p := newProject(t)
	must(t, os.WriteFile("secret", []byte(private.password+"\nnot this\n"), 0o600))
	login := builder.Registry{Host: private.host(), CA: private.ca(t), Username: "puller", PasswordFile: "secret"}
	save(t, "app.tar", map[string]v1.Image{app: img, "example.org/other:v1": someImage(t, "amd64", 2)})
	saveLayout(t, "layout", map[string]v1.Image{"v1": img, "v2": someImage(t, "amd64", 2)})
	must(t, os.WriteFile("rootfs.tar", rootfs(t), 0o644))
	for _, tt := range []struct {
		name   string
		from   string
		digest string
		docker builder.Docker
	}{
		{"plain HTTP", "docker://" + plain.host() + "/app:v1", digest, builder.Docker{InsecureRegistries: []string{plain.host()}}},
		{"a network of them", "docker://" + plain.host() + "/multi:v1", index, builder.Docker{InsecureRegistries: []string{"10.0.0.0/8", "127.0.0.0/8"}}},
		{"authority and password", "docker://" + private.host() + "/app:v1", "", builder.Docker{Registries: []builder.Registry{{Host: "example.org"}, login}}},
		{"TLS without a look", "docker://" + private.host() + "/app:v1", "", builder.Docker{
			InsecureRegistries: []string{private.host()}, Registries: []builder.Registry{{Host: login.Host, Username: "puller", PasswordFile: "secret"}}}},
		{"docker-archive", "docker-archive:app.tar", fileDigest(t, "app.tar"), builder.Docker{}},
		{"layout", "oci:layout", digest, builder.Docker{}},
		{"root file system", "rootfs:rootfs.tar", fileDigest(t, "rootfs.tar"), builder.Docker{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.docker.NoFile = p.spec.Docker.NoFile
			p.spec.Docker = tt.docker
			p.spec.Images = []builder.ExtraImage{{Name: app, From: tt.from, Digest: tt.digest}}
			image := p.image(t)
			b, err := image.Root.ReadFile("usr/lib/kscratch/docker/image/overlay2/repositories.json")
			must(t, err)
			var names struct{ Repositories map[string]map[string]string }
			must(t, json.Unmarshal(b, &names))
			id := names.Repositories["example.org/app"][app]
			want, err := img.ConfigName()
			must(t, err)
			if id == "" || id != want.String() && !strings.HasPrefix(tt.from, "rootfs:") {
				t.Errorf("the image is %q, that in the source %s", id, want)
			}
		})
	}
}

// rootfs returns the tar of a root file system with one program.
func rootfs(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := fakeworld.Program("app")
	must(t, w.WriteHeader(&tar.Header{Name: "bin/app", Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}))
	_, err := w.Write(body)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func fileDigest(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(layers.DigestOf(b))
}

// A tag that moves after the lock does not move the image; another lock does.
func TestTagMovesAfterLock(t *testing.T) {
	h := newHub(t, false)
	before := h.push(t, "app:v1", someImage(t, "amd64", 1))
	p := newProject(t)
	p.spec.Docker.InsecureRegistries = []string{h.host()}
	p.spec.Images = []builder.ExtraImage{{Name: app, From: "docker://" + h.host() + "/app:v1"}}
	l := p.lock(t)
	after := h.push(t, "app:v1", someImage(t, "amd64", 2))
	if got := lockedDigest(l); got != before || before == after {
		t.Errorf("locked %s, want %s", got, before)
	}
	img, err := builder.Build(t.Context(), p.spec, l, builder.Worker, p.options)
	must(t, err)
	if _, ok := img.Root.Lookup("usr/lib/kscratch/docker/image/overlay2/imagedb/content/sha256/" + configOf(t, 1)); !ok {
		t.Error("the image is not the one of the lock")
	}
	if got := lockedDigest(p.lock(t)); got != after {
		t.Errorf("locked %s again, want %s", got, after)
	}
}

// A file that changes after the lock does not matter as long as the content
// store has what was locked; then it is told from one that is missing.
func TestFileChangesAfterLock(t *testing.T) {
	p := newProject(t)
	save(t, "app.tar", map[string]v1.Image{app: someImage(t, "amd64", 1)})
	p.spec.Images = []builder.ExtraImage{{Name: app, From: "docker-archive:app.tar"}}
	l := p.lock(t)
	save(t, "app.tar", map[string]v1.Image{app: someImage(t, "amd64", 2)})
	img, err := builder.Build(t.Context(), p.spec, l, builder.Worker, p.options)
	must(t, err)
	if _, ok := img.Root.Lookup("usr/lib/kscratch/docker/image/overlay2/imagedb/content/sha256/" + configOf(t, 1)); !ok {
		t.Error("the image is not the one of the lock")
	}
	p.options.Store, err = cache.Open(t.TempDir())
	must(t, err)
	_, err = builder.Build(t.Context(), p.spec, l, builder.Worker, p.options)
	var input *builder.InputError
	if !errors.As(err, &input) || !input.Tampered || !strings.Contains(err.Error(), "app.tar has changed since the lock was made: ") {
		t.Errorf("got %v", err)
	}
}

func configOf(t *testing.T, seed byte) string {
	t.Helper()
	d, err := someImage(t, "amd64", seed).ConfigName()
	must(t, err)
	return d.Hex
}

func lockedDigest(l *builder.Lock) string {
	i := slices.IndexFunc(l.Images, func(im builder.LockedImage) bool { return im.Name == app })
	return string(l.Images[i].Digest)
}

// What goes wrong with images is printed as docs/images.md has it.
func TestImageErrors(t *testing.T) {
	plain, private := newHub(t, false), newHub(t, true)
	down := newHub(t, false)
	down.Close()
	for _, h := range []*hub{plain, private} {
		h.push(t, "app:v1", someImage(t, "amd64", 1))
		h.push(t, "arm:v1", someIndex(t, "arm64", "s390x"))
		h.push(t, "chart:v1", mutate.ConfigMediaType(someImage(t, "amd64", 1), "application/vnd.cncf.helm.config.v1+json"))
		layer, err := random.Layer(64, types.OCILayer)
		must(t, err)
		encrypted, err := mutate.Append(someImage(t, "amd64", 1), mutate.Addendum{Layer: layer, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"})
		must(t, err)
		h.push(t, "encrypted:v1", encrypted)
	}
	docs, err := os.ReadFile("../docs/images.md")
	must(t, err)
	p := newProject(t, etcdDebs()...)
	save(t, "two.tar", map[string]v1.Image{"example.org/one:v1": someImage(t, "amd64", 1), "example.org/two:v1": someImage(t, "amd64", 2)})
	save(t, "arm.tar", map[string]v1.Image{app: someImage(t, "arm64", 1)})
	must(t, os.WriteFile("text", []byte("hello"), 0o644))
	must(t, os.WriteFile("empty.tar", rootfs(t), 0o644))
	must(t, os.Mkdir("directory", 0o755))
	trusted := func(s *builder.Spec) { s.Docker.InsecureRegistries = []string{plain.host(), private.host()} }
	for _, tt := range []struct {
		name, from string
		change     func(*builder.Spec)
		tampered   bool
	}{
		{"plain HTTP", "docker://" + plain.host() + "/app:v1", nil, false},
		{"unknown authority", "docker://" + private.host() + "/app:v1", nil, false},
		{"other authority", "docker://" + private.host() + "/app:v1", func(s *builder.Spec) {
			s.Docker.Registries = []builder.Registry{{Host: private.host(), CA: "pki/ca.crt"}}
		}, false},
		{"no password", "docker://" + private.host() + "/app:v1", func(s *builder.Spec) { trusted(s); private.password = "x" }, false},
		{"down", "docker://" + down.host() + "/app:v1", nil, false},
		{"no such tag", "docker://" + plain.host() + "/app:v2", trusted, false},
		{"other machines", "docker://" + plain.host() + "/arm:v1", trusted, false},
		{"a chart", "docker://" + plain.host() + "/chart:v1", trusted, false},
		{"an encrypted layer", "docker://" + plain.host() + "/encrypted:v1", trusted, false},
		{"another digest", "docker://" + plain.host() + "/app:v1", func(s *builder.Spec) {
			trusted(s)
			s.Images[0].Digest = string(layers.DigestOf(nil))
		}, true},
		{"no file", "docker-archive:app.tar", nil, false},
		{"no archive", "docker-archive:text", nil, false},
		{"another tar", "docker-archive:empty.tar", nil, false},
		{"two others", "docker-archive:two.tar", nil, false},
		{"other machine", "docker-archive:arm.tar", nil, false},
		{"no layout", "oci:directory", nil, false},
		{"no tar", "rootfs:text", nil, false},
		{"Debian's version", "", func(s *builder.Spec) { s.Components.Etcd.Sources = []string{"distro"} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := *p.spec
			if tt.from != "" {
				spec.Images = []builder.ExtraImage{{Name: app, From: tt.from}}
			}
			if tt.change != nil {
				tt.change(&spec)
			}
			_, err := builder.Resolve(t.Context(), &spec, p.options)
			private.password = ""
			var input *builder.InputError
			if !errors.As(err, &input) || input.Tampered != tt.tampered {
				t.Fatalf("got %v (%T), want an input that was changed: %v", err, err, tt.tampered)
			}
			got := strings.ReplaceAll(legible(err, plain, private, down), p.options.Dir+"/", "")
			if !strings.Contains(string(docs), "`"+got+"`") {
				t.Errorf("not in docs/images.md:\n%s", got)
			}
		})
	}
}

// legible leaves out what differs from run to run.
func legible(err error, hubs ...*hub) string {
	s := err.Error()
	for _, h := range hubs {
		s = strings.ReplaceAll(s, h.host(), "registry.example.org")
	}
	return regexp.MustCompile(`sha256:[0-9a-f]{64}`).ReplaceAllStringFunc(s, func(d string) string { return d[:12] + "…" })
}
