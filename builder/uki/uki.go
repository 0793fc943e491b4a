// Package uki writes Unified Kernel Images: systemd-stub with kernel, initrd
// and command line as sections of one EFI program. It also reads them back.
//
// The format is UAPI.5, https://uapi-group.org/specifications/specs/unified_kernel_image/,
// in the PE format of https://learn.microsoft.com/windows/win32/debug/pe-format.
// Everything of the stub stays, .sbat included; sections are added behind its
// last one. Contents are streamed. There is no time and no checksum in what is
// written (UEFI ignores the PE checksum, and it would need a second pass), so
// the same input gives the same bytes.
//
// It does not sign: a stub that carries a signature is an error, since adding
// sections breaks it. It does not support 32-bit stubs, .profile and .dtbauto
// variants of UKIs, or images of 4 GiB and more.
package uki

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kscratch/kscratch/layers"
)

// Section is a section to be added.
type Section struct {
	Name string // with its dot; at most 8 bytes
	Size int64  // bytes; exactly what Open gives
	Open func() (io.ReadCloser, error)
}

// Bytes returns a section with content b.
func Bytes(name string, b []byte) Section {
	return Of(name, layers.Regular(name, 0o444, "uki", b))
}

// Of returns a section with the content of a regular file.
func Of(name string, f layers.File) Section {
	return Section{Name: name, Size: f.Size, Open: f.Open}
}

// Image is what goes into a UKI. Stub and Linux are required.
type Image struct {
	Stub      []byte    // linuxx64.efi.stub of systemd
	OSRelease []byte    // .osrel: os-release(5), by which boot menus name the entry
	Cmdline   string    // .cmdline: kernel arguments
	Uname     string    // .uname: kernel version
	Ucode     []Section // .ucode: microcode archives, before the initrd; their names do not count
	Linux     Section   // .linux: the kernel; its name does not count
	Initrd    []Section // .initrd: archives, each put at a multiple of 4 bytes; their names do not count
	Extra     []Section // any others, such as .splash
}

// align4 is the alignment that the kernel wants of a cpio archive.
const align4 = 4

// sections lists what is added, in the order on disk.
func (i Image) sections() ([]Section, error) {
	if i.Linux.Open == nil || i.Linux.Size <= 0 {
		return nil, errors.New("no kernel")
	}
	var out []Section
	add := func(name, s string) {
		if s != "" {
			out = append(out, Bytes(name, []byte(s)))
		}
	}
	add(".osrel", string(i.OSRelease))
	add(".cmdline", i.Cmdline)
	add(".uname", i.Uname)
	out = append(out, i.Extra...)
	if len(i.Ucode) > 0 {
		out = append(out, join(".ucode", i.Ucode))
	}
	out = append(out, Section{".linux", i.Linux.Size, i.Linux.Open})
	if len(i.Initrd) > 0 {
		out = append(out, join(".initrd", i.Initrd))
	}
	return out, nil
}

// join returns one section of several archives.
func join(name string, parts []Section) Section {
	s := Section{Name: name}
	for _, p := range parts {
		s.Size = roundUp(s.Size, align4) + p.Size
	}
	s.Open = func() (io.ReadCloser, error) { return &joined{rest: parts}, nil }
	return s
}

// joined reads archives one after the other, with zeros between them.
type joined struct {
	rest []Section
	cur  io.ReadCloser
	at   int64 // in the current archive
	pad  int64 // zeros that are due
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		switch {
		case j.cur == nil && len(j.rest) == 0:
			return 0, io.EOF
		case j.pad > 0:
			n := int(min(j.pad, int64(len(p))))
			clear(p[:n])
			j.pad -= int64(n)
			return n, nil
		case j.cur == nil:
			r, err := j.rest[0].Open()
			if err != nil {
				return 0, err
			}
			j.cur, j.at = r, 0
		}
		n, err := j.cur.Read(p)
		if j.at += int64(n); !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := j.next(); err != nil || n > 0 {
			return n, err
		}
	}
}

// next ends the current archive.
func (j *joined) next() error {
	err := j.cur.Close()
	if want := j.rest[0].Size; err == nil && j.at != want {
		err = fmt.Errorf("archive has %d bytes, want %d", j.at, want)
	}
	j.cur, j.rest = nil, j.rest[1:]
	if len(j.rest) > 0 {
		j.pad = roundUp(j.at, align4) - j.at
	}
	return err
}

func (j *joined) Close() error {
	if j.cur == nil {
		return nil
	}
	return j.cur.Close()
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Size returns the number of bytes that [Write] writes. No section is opened.
func Size(i Image) (int64, error) {
	l, err := plan(i)
	if err != nil {
		return 0, fmt.Errorf("sizing UKI: %w", err)
	}
	return l.size, nil
}

// Write writes a UKI to w and returns its size in bytes. A section whose
// content is not as long as its Size is an error.
func Write(ctx context.Context, w io.Writer, i Image) (int64, error) {
	l, err := plan(i)
	if err != nil {
		return 0, fmt.Errorf("writing UKI: %w", err)
	}
	out := &counter{w: w}
	if _, err := out.Write(l.head); err != nil {
		return out.n, fmt.Errorf("writing UKI: %w", err)
	}
	buf := make([]byte, 1<<20)
	for _, s := range l.added {
		err := out.pad(s.offset)
		if err == nil {
			err = copySection(ctx, out, s.Section, buf)
		}
		if err != nil {
			return out.n, fmt.Errorf("writing UKI: section %s: %w", s.Name, err)
		}
	}
	if err := out.pad(l.size); err != nil {
		return out.n, fmt.Errorf("writing UKI: %w", err)
	}
	return out.n, nil
}

// counter knows where it is in the file.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// pad writes zeros up to an offset, which is at most an alignment away.
func (c *counter) pad(to int64) error {
	_, err := c.Write(make([]byte, to-c.n))
	return err
}

func copySection(ctx context.Context, w io.Writer, s Section, buf []byte) error {
	r, err := s.Open()
	if err != nil {
		return err
	}
	return errors.Join(copyExact(ctx, w, r, s.Size, buf), r.Close())
}

func copyExact(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("content ends after %d of %d bytes", at, size)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return fmt.Errorf("content goes on after %d bytes", size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
