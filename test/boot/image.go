package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// Image is a disk image under test and what belongs to it.
type Image struct {
	Raw        string // path of the raw image
	Kubeconfig string // path of the administrator's kubeconfig
}

// Build makes the cluster's keys and the image of a role in dir by running the
// program kscratch, as a user would. A cluster file that is there counts.
func Build(ctx context.Context, kscratch, dir, role string, log *slog.Logger) (Image, error) {
	program, err := filepath.Abs(kscratch)
	if err != nil {
		return Image{}, fmt.Errorf("building image: %w", err)
	}
	steps := [][]string{
		{"init"},
		{"image", "build", "--role", role, "--output", "out", "--format", "raw"},
	}
	for _, args := range steps {
		log.Info("running", "program", program, "args", args, "dir", dir)
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = dir
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return Image{}, fmt.Errorf("building image: running %s %v: %w", program, args, err)
		}
	}
	return Image{
		Raw:        filepath.Join(dir, "out", role+".raw"),
		Kubeconfig: filepath.Join(dir, "pki", "admin.kubeconfig"),
	}, nil
}

// Partition types of the Discoverable Partitions Specification, and the ESP.
const (
	typeESP  gpt.Type = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeRoot gpt.Type = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709" // x86-64
)

// partition returns where the first partition of a type lies in the image, in
// bytes.
func (im Image) partition(t gpt.Type) (offset, size int64, err error) {
	f, err := os.Open(im.Raw)
	if err != nil {
		return 0, 0, fmt.Errorf("reading partitions: %w", err)
	}
	defer f.Close()
	table, err := gpt.Read(f, 512, 512)
	if err != nil {
		return 0, 0, fmt.Errorf("reading partitions of %s: %w", im.Raw, err)
	}
	for _, p := range table.Partitions {
		if p.Type == t {
			return p.GetStart(), p.GetSize(), nil
		}
	}
	return 0, 0, fmt.Errorf("reading partitions of %s: none has type %s", im.Raw, t)
}

// erofsMagic stands at the start of an EROFS superblock, 1024 bytes in.
const erofsMagic = 0xE0F5E1E2

// middleOfRoot returns the byte offset in the image of the block in the middle
// of the root file system, and that block's number and size in bytes.
func (im Image) middleOfRoot() (offset, block, size int64, err error) {
	start, _, err := im.partition(typeRoot)
	if err != nil {
		return 0, 0, 0, err
	}
	f, err := os.Open(im.Raw)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("reading root: %w", err)
	}
	defer f.Close()
	sb := make([]byte, 128)
	if _, err := f.ReadAt(sb, start+1024); err != nil {
		return 0, 0, 0, fmt.Errorf("reading superblock of the root: %w", err)
	}
	if binary.LittleEndian.Uint32(sb) != erofsMagic || sb[12] < 9 || sb[12] > 16 {
		return 0, 0, 0, errors.New("reading superblock of the root: not EROFS")
	}
	size = 1 << sb[12]
	block = int64(binary.LittleEndian.Uint32(sb[36:])) / 2
	return start + block*size, block, size, nil
}

// Extract copies a regular file out of the image's root file system to path,
// as an executable.
func (im Image) Extract(name, path string) (err error) {
	start, size, err := im.partition(typeRoot)
	if err != nil {
		return err
	}
	f, err := os.Open(im.Raw)
	if err != nil {
		return fmt.Errorf("reading root: %w", err)
	}
	defer f.Close()
	root, err := erofs.Open(io.NewSectionReader(f, start, size))
	if err != nil {
		return fmt.Errorf("reading root of %s: %w", im.Raw, err)
	}
	r, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("reading root of %s: %w", im.Raw, err)
	}
	defer r.Close()
	return writeFile(path, r, 0o755)
}

func writeFile(path string, r io.Reader, mode fs.FileMode) error {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// Copy makes a private, sparse copy of the image at path.
func (im Image) Copy(path string) (Image, error) {
	r, err := os.Open(im.Raw)
	if err != nil {
		return Image{}, fmt.Errorf("copying image: %w", err)
	}
	defer r.Close()
	w, err := os.Create(path)
	if err != nil {
		return Image{}, fmt.Errorf("copying image: %w", err)
	}
	if err := errors.Join(copySparse(w, r), w.Close()); err != nil {
		return Image{}, fmt.Errorf("copying image: %w", err)
	}
	return Image{Raw: path, Kubeconfig: im.Kubeconfig}, nil
}

// copySparse copies what is not a hole.
func copySparse(w, r *os.File) error {
	st, err := r.Stat()
	if err != nil {
		return err
	}
	if err := w.Truncate(st.Size()); err != nil {
		return err
	}
	for end := int64(0); end < st.Size(); {
		data, err := unix.Seek(int(r.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			return nil
		}
		if err != nil {
			return err
		}
		if end, err = unix.Seek(int(r.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := w.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(w, io.NewSectionReader(r, data, end-data)); err != nil {
			return err
		}
	}
	return nil
}

// Flip inverts one bit of the image.
func (im Image) Flip(offset int64) error {
	f, err := os.OpenFile(im.Raw, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damaging image: %w", err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	if err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b, offset)
	}
	return errors.Join(err, f.Close())
}

// AddToESP puts a file into the image's EFI system partition with mtools, as a
// user without root would.
func (im Image) AddToESP(ctx context.Context, file, target string) error {
	start, _, err := im.partition(typeESP)
	if err != nil {
		return err
	}
	drive := fmt.Sprintf("%s@@%d", im.Raw, start)
	dir := filepath.Dir(target)
	// Directories may be there: mmd then fails and mcopy tells.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if d != "/" {
			_ = exec.CommandContext(ctx, "mmd", "-D", "s", "-i", drive, "::"+d).Run()
		}
	}
	out, err := exec.CommandContext(ctx, "mcopy", "-o", "-i", drive, file, "::"+target).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying %s to the ESP: %w: %s (mcopy is in the Debian package mtools)", file, err, out)
	}
	return nil
}
