package kubernetes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	dockerarchive "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// programs are as large as it takes to have several blocks of compression.
func programs(t testing.TB, store *cache.Store) map[string]cache.Blob {
	out := map[string]cache.Blob{}
	for _, p := range Programs {
		out[p] = put(t, store, []byte(program(elf.EM_X86_64, p+noise(1, 300_000))))
	}
	return out
}

func written(t testing.TB, store *cache.Store, o WriteOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, Write(t.Context(), &buf, programs(t, store), o))
	return buf.Bytes()
}

func TestWrite(t *testing.T) {
	store := open(t)
	data := written(t, store, WriteOptions{Version: "v1.36.3"})
	z, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	var got []string
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		body, err := io.ReadAll(tr)
		must(t, err)
		line := fmt.Sprintf("%s %d:%d %s", h.FileInfo().Mode(), h.Uid, h.Gid, h.Name)
		if len(body) > 0 && len(body) < 100 {
			line += fmt.Sprintf(" %q", body)
		}
		got = append(got, line)
		if !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: time %v", h.Name, h.ModTime)
		}
	}
	want := `drwxr-xr-x 0:0 kubernetes/
drwxr-xr-x 0:0 kubernetes/server/
drwxr-xr-x 0:0 kubernetes/server/bin/
-rwxr-xr-x 0:0 kubernetes/server/bin/kube-apiserver
-rw-r--r-- 0:0 kubernetes/server/bin/kube-apiserver.docker_tag "v1.36.3\n"
-rw-r--r-- 0:0 kubernetes/server/bin/kube-apiserver.tar
-rwxr-xr-x 0:0 kubernetes/server/bin/kube-controller-manager
-rw-r--r-- 0:0 kubernetes/server/bin/kube-controller-manager.docker_tag "v1.36.3\n"
-rw-r--r-- 0:0 kubernetes/server/bin/kube-controller-manager.tar
-rwxr-xr-x 0:0 kubernetes/server/bin/kube-proxy
-rw-r--r-- 0:0 kubernetes/server/bin/kube-proxy.docker_tag "v1.36.3\n"
-rw-r--r-- 0:0 kubernetes/server/bin/kube-proxy.tar
-rwxr-xr-x 0:0 kubernetes/server/bin/kube-scheduler
-rw-r--r-- 0:0 kubernetes/server/bin/kube-scheduler.docker_tag "v1.36.3\n"
-rw-r--r-- 0:0 kubernetes/server/bin/kube-scheduler.tar
-rwxr-xr-x 0:0 kubernetes/server/bin/kubectl
-rwxr-xr-x 0:0 kubernetes/server/bin/kubelet
-rw-r--r-- 0:0 kubernetes/version "v1.36.3\n"`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// The bytes are the same each time and on each machine. A change here is a
// change for everybody's locks: raise writeRevision with it.
func TestWriteIsReproducible(t *testing.T) {
	epoch := time.Date(2026, 7, 22, 18, 7, 38, 999, time.FixedZone("", 3600))
	a := written(t, open(t), WriteOptions{Version: "v1.36.3", Epoch: epoch})
	b := written(t, open(t), WriteOptions{Version: "v1.36.3", Epoch: epoch.UTC()})
	const want = "sha256:4a73d52028805b8eb4e223d8ae4dae8ac547e62d437fc8fc3ee7b65fa5bd60d5"
	if got := layers.DigestOf(a); got != layers.DigestOf(b) || got != want {
		t.Errorf("got %s and %s, want %s", got, layers.DigestOf(b), want)
	}
}

// What Write has written, Extract and go-containerregistry can read.
func TestWrittenImages(t *testing.T) {
	store := open(t)
	o := WriteOptions{Version: "v1.36.3-rc.0+k1", Arch: "amd64", Epoch: time.Unix(1_700_000_000, 0)}
	blob := put(t, store, written(t, store, o))
	for _, p := range Images {
		got, err := Extract(t.Context(), store, blob, "", p, p+".tar", p+".docker_tag")
		must(t, err)
		if got[p].Digest != programs(t, store)[p].Digest {
			t.Errorf("%s is another program", p)
		}
		tag, err := name.NewTag("registry.k8s.io/" + p + "-amd64:" + strings.TrimSpace(content(t, got[p+".docker_tag"])))
		must(t, err)
		img, err := dockerarchive.ImageFromPath(got[p+".tar"].Path, &tag)
		must(t, err)
		must(t, validate.Image(img))
		c, err := img.ConfigFile()
		must(t, err)
		if c.Architecture != "amd64" || c.OS != "linux" || len(c.Config.Cmd) != 1 || c.Config.Cmd[0] != p || !c.Created.Equal(o.Epoch) {
			t.Errorf("%s: configuration %+v", p, c)
		}
		if got, want := listing(t, img), "usr usr/local usr/local/bin usr/local/bin/"+p+" tmp"; got != want {
			t.Errorf("%s: layer %s, want %s", p, got, want)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	store := open(t)
	all := programs(t, store)
	some := programs(t, store)
	delete(some, "kubelet")
	gone := programs(t, open(t))
	for n, b := range gone {
		b.Path += ".gone"
		gone[n] = b
	}
	for _, tt := range []struct {
		name     string
		w        io.Writer
		programs map[string]cache.Blob
		version  string
		err      string
	}{
		{"program missing", io.Discard, some, "v1.36.3", "program kubelet is missing"},
		{"bad version", io.Discard, all, "1.36", `version "1.36": want one such as v1.36.3`},
		{"blob gone", io.Discard, gone, "v1.36.3", "no such file"},
		{"disk full", full{}, all, "v1.36.3", "no space left"},
	} {
		err := Write(t.Context(), tt.w, tt.programs, WriteOptions{Version: tt.version})
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, io.Discard, all, WriteOptions{Version: "v1.36.3"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// full is a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
