package images

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kscratch/kscratch/layers"
)

func TestManifestType(t *testing.T) {
	const (
		image  = types.OCIManifestSchema1
		index  = types.OCIImageIndex
		docker = types.DockerManifestSchema2
	)
	own := func(mt types.MediaType) string { return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q}`, mt) }
	for _, c := range []struct {
		name string
		said types.MediaType
		raw  string
		want types.MediaType
		err  string
	}{
		{"both agree", image, own(image), image, ""},
		{"its own word alone", "", own(index), index, ""},
		{"the server's word alone", index, `{"schemaVersion":2}`, index, ""},
		{"a server of plain files", "text/plain", own(docker), docker, ""},
		{"docker's word for OCI's", docker, own(image), image, ""},
		{"image and index", index, own(image), "", "is said to be " + string(index) + ", and says of itself that it is " + string(image)},
		{"nobody says", "application/json", `{"schemaVersion":2}`, "", `the type "application/json", which is neither`},
		{"another thing", image, own("application/vnd.in-toto+json"), "", `the type "application/vnd.in-toto+json", which is neither`},
		{"schema 1", "application/json", `{"schemaVersion":1,"fsLayers":[]}`, "", "has schema 1, which is not supported; push the image again"},
		{"signed schema 1", types.DockerManifestSchema1Signed, `{}`, "", "has schema 1"},
		{"no JSON", image, `<html>`, "", "parsing the manifest: invalid character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := manifestType(c.said, []byte(c.raw))
			wantErr(t, err, c.err)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestParseManifest(t *testing.T) {
	manifest := func(config, layer types.MediaType) string {
		d := layers.DigestOf(nil)
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q},"layers":[{"mediaType":%q,"digest":%q}]}`, config, d, layer, d)
	}
	for _, c := range []struct{ name, raw, err string }{
		{"docker", manifest(types.DockerConfigJSON, types.DockerLayer), ""},
		{"OCI with zstd", manifest(types.OCIConfigJSON, types.OCILayerZStd), ""},
		{"no version", `{"config":{"digest":"` + string(layers.DigestOf(nil)) + `"}}`, "schema version 0, want 2"},
		{"no configuration", `{"schemaVersion":2}`, "it names no configuration"},
		{"signature", manifest("application/vnd.oci.empty.v1+json", types.OCILayer), "an artifact, not an image"},
		{"untyped configuration", manifest("", types.OCILayer), `configuration of type "": an artifact`},
		{"foreign layer", manifest(types.DockerConfigJSON, types.DockerForeignLayer), "not in the registry but with its vendor"},
		{"encrypted layer", manifest(types.OCIConfigJSON, "application/vnd.oci.image.layer.v1.tar+encrypted"), "known are tar, tar+gzip and tar+zstd"},
		{"digest of another hash", strings.ReplaceAll(manifest(types.OCIConfigJSON, types.OCILayer), "sha256:", "md5:"), "unsupported hash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseManifest([]byte(c.raw))
			wantErr(t, err, c.err)
		})
	}
}

func TestChoose(t *testing.T) {
	entry := func(mt types.MediaType, n int, platform string) string {
		if platform != "" {
			os, arch, _ := strings.Cut(platform, "/")
			platform = fmt.Sprintf(`,"platform":{"os":%q,"architecture":%q}`, os, arch)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064d"%s}`, mt, n, platform)
	}
	const image = types.OCIManifestSchema1
	for _, c := range []struct {
		name    string
		entries []string
		want    int
		err     string
	}{
		{"ours among others", []string{entry(image, 1, "linux/arm64"), entry(image, 2, "linux/amd64")}, 2, ""},
		{"the first of two", []string{entry(image, 1, "linux/amd64"), entry(image, 2, "linux/amd64")}, 1, ""},
		{"beside an attestation", []string{entry(image, 1, "unknown/unknown"), entry(image, 2, "linux/amd64")}, 2, ""},
		{"an only one without a platform", []string{entry(image, 1, "")}, 1, ""},
		{"two without", []string{entry(image, 1, ""), entry(image, 2, "")}, 0, "is for no platform, want linux/amd64"},
		{"another system", []string{entry(image, 1, "windows/amd64")}, 0, "is for windows/amd64, want linux/amd64"},
		{"an index in it", []string{entry(types.OCIImageIndex, 1, "linux/amd64")}, 0, "is for no platform"},
		{"nothing", nil, 0, "is for no platform"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Importer{}.choose("x:1", []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(c.entries, ",")+`]}`))
			wantErr(t, err, c.err)
			if err == nil && string(got) != fmt.Sprintf("sha256:%064d", c.want) {
				t.Errorf("got %s, want number %d", got, c.want)
			}
		})
	}
}

// A registry may want a token of another server, and another one before a
// download is over.
func TestToken(t *testing.T) {
	layer := tarOf(t, member{name: "x", body: strings.Repeat("layer ", 1<<16)})
	img, err := mutate.AppendLayers(platform(t, "amd64"), static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, true)
	s.push(t, "app:v1", img)
	var tokens, revoked, cuts atomic.Int64
	valid := func(q *http.Request) bool {
		var n int64
		_, err := fmt.Sscanf(q.Header.Get("Authorization"), "Bearer t%d", &n)
		return err == nil && n > revoked.Load()
	}
	s.between = func(w http.ResponseWriter, q *http.Request) bool {
		user, password, _ := q.BasicAuth()
		switch {
		case q.URL.Path == "/token" && user == "me" && password == "secret" && q.URL.Query().Get("scope") == "repository:app:pull":
			fmt.Fprintf(w, `{"token":"t%d"}`, tokens.Add(1))
		case q.URL.Path == "/token":
			w.WriteHeader(http.StatusUnauthorized)
		case !valid(q):
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="hub",scope="repository:app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(q.URL.Path, string(layers.DigestOf(layer))) && cuts.Add(1) == 1:
			revoked.Store(tokens.Load())
			w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
			w.Write(layer[:1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	}
	ctx := context.Background()
	m, r, pin := s.locked(t, Registry{Keychain: Login{"me", "secret"}})
	got, err := r.Pull(ctx, m, pin)
	if err != nil {
		t.Fatal(err)
	}
	checked(t, got)
	if cuts.Load() < 2 {
		t.Error("the layer was not cut off")
	}
	_, err = patient(s, Registry{Keychain: Login{"me", "?"}}).Resolve(ctx, m, s.ref("app:v1"), "")
	wantErr(t, err, "refuses")
}

// A server that sends without end is left.
func TestEndlessLayer(t *testing.T) {
	s := serve(t, true)
	s.push(t, "app:v1", platform(t, "amd64"))
	m, r, pin := s.locked(t, Registry{})
	s.between = func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		for chunk := make([]byte, 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return true // the client has gone
			}
		}
	}
	_, err := r.Pull(context.Background(), m, pin)
	wantErr(t, err, "content has digest")
}
