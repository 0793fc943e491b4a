package e2e

import (
	"context"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/builder/programs"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// The names that the suite of [Version] asks for (test/utils/image/manifest.go).
const (
	Agnhost  = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
	Busybox  = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	GlibcDNS = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"
	Nautilus = "registry.k8s.io/e2e-test-images/nautilus:1.8"
	Nonroot  = "registry.k8s.io/e2e-test-images/nonroot:1.5"
	Pause    = "registry.k8s.io/pause:3.10.2"
)

// Names lists every image of [Archives].
var Names = []string{Agnhost, Busybox, GlibcDNS, Nautilus, Nonroot, Pause}

// searchPath is PATH in upstream's images.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// compose makes the images in the order of [Names].
func compose(ctx context.Context, o Options) ([]images.Image, error) {
	u, err := newUserland(ctx, o)
	if err != nil {
		return nil, err
	}
	agnhost, err := program(ctx, "agnhost", o)
	if err != nil {
		return nil, err
	}
	r, err := gomod.KubernetesTests(Version)
	if err != nil {
		return nil, err
	}
	src, err := gomod.Source(ctx, o.Store, r, o.gomod())
	if err != nil {
		return nil, err
	}
	pause, err := programs.Pause()
	if err != nil {
		return nil, err
	}
	base := u.layer()
	tool, err := agnhostLayer(u.tree, agnhost, filepath.Join(src, "test/images/agnhost"))
	if err != nil {
		return nil, err
	}
	page, err := pageLayer(filepath.Join(src, "test/images/nautilus/html"), "nautilus.jpg", "data.json")
	if err != nil {
		return nil, err
	}
	sandbox := layers.Of("pause", layers.DigestOf(pause), layers.Regular("pause", 0o755, "program:pause", pause))
	entry, ports := []string{"/agnhost"}, []string{"80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"}
	var out []images.Image
	for _, im := range []struct {
		ref    string
		config images.Config
		layers []layers.Layer
	}{
		{Agnhost, images.Config{Entrypoint: entry, Cmd: []string{"pause"}, Ports: ports}, []layers.Layer{base, tool}},
		{Busybox, images.Config{Cmd: []string{"sh"}}, []layers.Layer{u.small()}},
		{GlibcDNS, images.Config{Cmd: []string{"bash"}}, []layers.Layer{base}},
		{Nautilus, images.Config{Entrypoint: entry, Cmd: []string{"test-webserver"}, Ports: ports}, []layers.Layer{base, tool, page}},
		{Nonroot, images.Config{Cmd: []string{"sh"}, User: "1234"}, []layers.Layer{base}},
		{Pause, images.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, []layers.Layer{sandbox}},
	} {
		im.config.Env, im.config.Created, im.config.CreatedBy = []string{searchPath}, epoch, "kscratch test/e2e"
		img, err := images.Importer{Store: o.Store, Log: o.Log}.Compose(ctx, im.ref, im.config, im.layers...)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// agnhostLayer returns what upstream's Dockerfile puts on top of the tools:
// the program under two names, the certificate of its TLS servers, a directory
// for uploads, and a user that belongs to a group of the image.
func agnhostLayer(tree *layers.Tree, program cache.Blob, src string) (layers.Layer, error) {
	const owner = "module:k8s.io/kubernetes"
	files := []layers.File{
		{Path: "agnhost", Mode: 0o755, Owner: owner, Size: program.Size, Open: program.ReadCloser},
		layers.Symlink("agnhost-2", "agnhost", owner),
		layers.Dir("uploads", 0o755, owner),
	}
	parts := []string{"1", string(program.Digest)}
	add := func(p string, b []byte) {
		files = append(files, layers.Regular(p, 0o644, owner, b))
		parts = append(parts, p, string(b))
	}
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		b, err := os.ReadFile(filepath.Join(src, "porter", name))
		if err != nil {
			return nil, err
		}
		add(name, b)
	}
	for _, more := range []struct{ path, lines string }{
		{"etc/passwd", "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"},
		{"etc/group", "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"},
	} {
		b, err := tree.ReadFile(more.path)
		if err != nil {
			return nil, err
		}
		add(more.path, append(b, more.lines...))
	}
	return layers.Of("agnhost", layers.DigestOfParts(parts...), files...), nil
}

// pageLayer returns files of a directory at the root.
func pageLayer(dir string, names ...string) (layers.Layer, error) {
	var files []layers.File
	var parts []string
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, layers.Regular(name, 0o644, "module:k8s.io/kubernetes", b))
		parts = append(parts, name, string(b))
	}
	return layers.Of("page", layers.DigestOfParts(parts...), files...), nil
}
