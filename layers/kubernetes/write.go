package kubernetes

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// writeRevision is raised when Write makes other bytes from the same input.
const writeRevision = "1"

// Programs are what [Write] puts into a tarball.
var Programs = gomod.KubernetesPrograms

// WriteOptions say what a tarball is to say about itself.
type WriteOptions struct {
	Version string    // such as v1.36.3
	Arch    string    // a GOARCH; empty means amd64
	Epoch   time.Time // of all files and images; zero means 1970
}

func (o WriteOptions) arch() string {
	if o.Arch == "" {
		return "amd64"
	}
	return o.Arch
}

func (o WriteOptions) epoch() time.Time {
	if o.Epoch.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return o.Epoch.UTC().Truncate(time.Second)
}

// FileName returns the name that releases give the tarball.
func FileName(arch string) string { return "kubernetes-server-linux-" + arch + ".tar.gz" }

// Write writes a server tarball with the [Programs] to w. The same programs
// and options give the same bytes.
func Write(ctx context.Context, w io.Writer, programs map[string]cache.Blob, o WriteOptions) error {
	ms, err := members(programs, o)
	if err != nil {
		return fmt.Errorf("writing Kubernetes tarball: %w", err)
	}
	z := newParallelGzip(w)
	err = writeMembers(ctx, z, ms, o)
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("writing Kubernetes tarball: %w", err)
	}
	return nil
}

// member is a file of a tarball.
type member struct {
	path  string
	mode  int64
	size  int64
	write func(io.Writer) error
}

func text(path, s string) member {
	return member{path, 0o644, int64(len(s)), func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}}
}

// members returns the files of a tarball in order of path, as GNU tar would
// meet them with --sort=name.
func members(programs map[string]cache.Blob, o WriteOptions) ([]member, error) {
	if !semver.IsValid(o.Version) {
		return nil, fmt.Errorf("version %q: want one such as v1.36.3", o.Version)
	}
	ms := []member{text("kubernetes/version", o.Version+"\n")}
	for _, p := range Programs {
		b, ok := programs[p]
		if !ok {
			return nil, fmt.Errorf("program %s is missing", p)
		}
		ms = append(ms, member{binDir + "/" + p, 0o755, b.Size, func(w io.Writer) error { return copyBlob(w, b) }})
	}
	as, err := archives(programs, o)
	if err != nil {
		return nil, err
	}
	for i, a := range as {
		ms = append(ms,
			text(binDir+"/"+Images[i]+".docker_tag", imageTag(o.Version)+"\n"),
			member{binDir + "/" + Images[i] + ".tar", 0o644, a.size, a.writeTo})
	}
	slices.SortFunc(ms, func(a, b member) int { return strings.Compare(a.path, b.path) })
	return ms, nil
}

func copyBlob(w io.Writer, b cache.Blob) error {
	f, err := b.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// archives hashes the images of all programs at once.
func archives(programs map[string]cache.Blob, o WriteOptions) ([]archive, error) {
	as := make([]archive, len(Images))
	var g errgroup.Group
	for i, n := range Images {
		g.Go(func() (err error) {
			as[i], err = newArchive(n, programs[n], o)
			return err
		})
	}
	return as, g.Wait()
}

func writeMembers(ctx context.Context, w io.Writer, ms []member, o WriteOptions) error {
	tw := tar.NewWriter(ctxWriter{ctx, w})
	for _, dir := range []string{"kubernetes/", "kubernetes/server/", binDir + "/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: o.epoch(), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	for _, m := range ms {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: m.path, Mode: m.mode, Size: m.size, ModTime: o.epoch(), Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("adding %s: %w", m.path, err)
		}
		if err := m.write(tw); err != nil {
			return fmt.Errorf("adding %s: %w", m.path, err)
		}
	}
	return tw.Close()
}

// ctxWriter stops writing when its context ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
