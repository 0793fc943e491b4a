package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// WriteDockerArchive writes images as one docker-archive, as `docker load` takes it:
// uncompressed, each configuration and layer once, in the order of imgs, every
// date 1970. The same images give the same bytes.
func WriteDockerArchive(ctx context.Context, w io.Writer, imgs ...Image) error {
	a := &archiveWriter{tw: tar.NewWriter(w), done: map[string]bool{}}
	var items []archiveItem
	for _, img := range imgs {
		it, err := a.image(ctx, img)
		if err != nil {
			return fmt.Errorf("writing image %s: %w", img.Ref, err)
		}
		items = append(items, it)
	}
	raw, err := json.Marshal(items)
	if err != nil {
		return fmt.Errorf("writing manifest.json: %w", err)
	}
	if err := a.bytes("manifest.json", append(raw, '\n')); err != nil {
		return err
	}
	if err := a.tw.Close(); err != nil {
		return fmt.Errorf("writing the archive's end: %w", err)
	}
	return nil
}

type archiveWriter struct {
	tw   *tar.Writer
	done map[string]bool
}

func (a *archiveWriter) image(ctx context.Context, img Image) (archiveItem, error) {
	it := archiveItem{Config: img.ID.Hex() + ".json", RepoTags: []string{img.Ref}, Layers: []string{}}
	if err := a.bytes(it.Config, img.config); err != nil {
		return it, err
	}
	for _, l := range img.layers {
		name, err := a.layer(ctx, l)
		if err != nil {
			return it, fmt.Errorf("writing layer %s: %w", l.DiffID, err)
		}
		it.Layers = append(it.Layers, name)
	}
	return it, nil
}

func (a *archiveWriter) layer(ctx context.Context, l Layer) (string, error) {
	name := l.DiffID.Hex() + "/layer.tar"
	if !a.first(name) {
		return name, nil
	}
	f, err := l.Blob.Open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := a.tw.WriteHeader(archiveHeader(name, l.Blob.Size)); err != nil {
		return "", err
	}
	_, err = io.Copy(a.tw, layers.WithContext(ctx, f))
	return name, err
}

func (a *archiveWriter) bytes(name string, b []byte) error {
	if !a.first(name) {
		return nil
	}
	if err := a.tw.WriteHeader(archiveHeader(name, int64(len(b)))); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if _, err := a.tw.Write(b); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// first says whether a member was not asked for before.
func (a *archiveWriter) first(name string) bool {
	fresh := !a.done[name]
	a.done[name] = true
	return fresh
}

func archiveHeader(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
}
