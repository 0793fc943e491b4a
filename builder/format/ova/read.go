package ova

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// maxManifest bounds the manifest that is read, in bytes, and maxMembers the
// members that are looked at.
const (
	maxManifest = 64 << 10
	maxMembers  = 1000
)

// Open finds the disk in an appliance: the one member whose name ends with
// ".vmdk". Appliances of several disks are not supported.
func Open(r io.ReaderAt, size int64) (*io.SectionReader, error) {
	var disk *io.SectionReader
	err := members(r, size, func(name string, body *io.SectionReader) error {
		if !strings.HasSuffix(name, ".vmdk") {
			return nil
		}
		if disk != nil {
			return errors.New("it has several disks; unpack it with tar and give one")
		}
		disk = body
		return nil
	})
	if err == nil && disk == nil {
		err = errors.New("it has no .vmdk")
	}
	if err != nil {
		return nil, fmt.Errorf("reading OVA: %w", err)
	}
	return disk, nil
}

// Check holds the members of an appliance to its manifest, as section 5.1 of
// the specification has it; SHA-256 is the one digest that is known.
func Check(ctx context.Context, r io.ReaderAt, size int64) error {
	all := map[string]*io.SectionReader{}
	var manifest *io.SectionReader
	err := members(r, size, func(name string, body *io.SectionReader) error {
		if all[name] != nil {
			return fmt.Errorf("it has %s twice", name)
		}
		all[name] = body
		if strings.HasSuffix(name, ".mf") {
			manifest = body
		}
		return nil
	})
	switch {
	case err == nil && manifest == nil:
		err = errors.New("it has no manifest")
	case err == nil && manifest.Size() > maxManifest:
		err = fmt.Errorf("its manifest has %d bytes, more than the %d that are read", manifest.Size(), maxManifest)
	}
	if err != nil {
		return fmt.Errorf("reading OVA: %w", err)
	}
	named := map[string]bool{}
	lines := bufio.NewScanner(manifest)
	lines.Buffer(nil, maxManifest+1)
	for lines.Scan() {
		name, want, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "SHA256("), ")= ")
		if !ok || all[name] == nil {
			return fmt.Errorf("manifest of the OVA: line %q names no file with a SHA-256", lines.Text())
		}
		if named[name] {
			return fmt.Errorf("manifest of the OVA: it names %s twice", name)
		}
		h := sha256.New()
		if _, err := io.Copy(h, layers.WithContext(ctx, all[name])); err != nil {
			return fmt.Errorf("reading %s of the OVA: %w", name, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			return fmt.Errorf("%s of the OVA has SHA-256 %s, its manifest says %s", name, got, want)
		}
		named[name] = true
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the manifest of the OVA: %w", err)
	}
	return checkNamed(all, named)
}

// checkNamed reports a descriptor or a disk that a manifest leaves out, or that
// is not there at all.
func checkNamed(all map[string]*io.SectionReader, named map[string]bool) error {
	for _, ext := range []string{".ovf", ".vmdk"} {
		found := false
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !strings.HasSuffix(name, ext) {
				continue
			}
			if !named[name] {
				return fmt.Errorf("manifest of the OVA: it has no SHA-256 of %s", name)
			}
			found = true
		}
		if !found {
			return fmt.Errorf("reading OVA: it has no %s", ext)
		}
	}
	return nil
}

// members calls do for every member of an archive.
func members(r io.ReaderAt, size int64, do func(name string, body *io.SectionReader) error) error {
	all := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(all)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at, err := all.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if n == maxMembers || h.Size > size-at {
			return fmt.Errorf("member %q of %d bytes: too many, or not whole", h.Name, h.Size)
		}
		if err := do(h.Name, io.NewSectionReader(r, at, h.Size)); err != nil {
			return err
		}
	}
}
