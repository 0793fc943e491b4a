package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/blocks"
)

// Convert writes the disk image in the file in, of any format that is read, to
// the file out in another. The file appears whole or not at all; one that is
// there is replaced. The same content gives the same bytes.
func Convert(ctx context.Context, in, out string, f format.Format, o Options) (Artifact, error) {
	dir, name := filepath.Dir(out), filepath.Base(out)
	unlock, err := lockOutput(ctx, dir, o)
	if err != nil {
		return Artifact{}, err
	}
	defer unlock()
	if err := sweepOutput(dir, name); err != nil {
		return Artifact{}, err
	}
	disk, err := format.Open(ctx, in, dir)
	if err != nil {
		return Artifact{}, &InputError{What: "converting to " + f.Name, Err: err}
	}
	defer disk.Close()
	o.log().Info("converting", "from", disk.Format, "to", f.Name)
	file, err := newOutput(dir, name)
	if err != nil {
		return Artifact{}, err
	}
	defer file.drop()
	if err := writeFormat(ctx, file.File, f, disk, o); err != nil {
		return Artifact{}, err
	}
	a, err := file.seal(ctx, out, o)
	if err != nil {
		return Artifact{}, fmt.Errorf("writing %s: %w", out, err)
	}
	return a, file.keep()
}

// writeFormat writes a disk in a format and shows progress.
func writeFormat(ctx context.Context, out *os.File, f format.Format, src blocks.Source, o Options) error {
	task := o.begin(f.Name, src.Size())
	defer task.End()
	return f.Write(ctx, out, watched{src, task})
}

// watched is a disk that reports progress, and whose own errors are those of
// an input.
type watched struct {
	blocks.Source
	task Task
}

func (w watched) ReadAt(b []byte, off int64) (int, error) {
	n, err := w.Source.ReadAt(b, off)
	w.task.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = &InputError{What: "disk image", Err: err}
	}
	return n, err
}

func (w watched) Next(off int64) (start, end int64, err error) {
	if start, end, err = w.Source.Next(off); err != nil {
		err = &InputError{What: "disk image", Err: err}
	}
	return start, end, err
}
