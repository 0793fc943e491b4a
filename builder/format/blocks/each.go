package blocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// maxWorkers bounds the memory of Each: two chunks for each of them are under
// way. Beyond four of them, the digest of what is written takes longer.
const maxWorkers = 4

// Chunk is a piece of a source that has other content than zeros.
type Chunk struct {
	Off  int64  // where it is, a multiple of the size asked for
	Data []byte // its content; the last of a source may be shorter
	Out  []byte // what Work made of it; the array behind it is used again

	zero bool
	done chan struct{} // has room for one
}

// Work makes c.Out of c.Data. One of them runs in one goroutine at a time.
type Work func(c *Chunk) error

// Each goes through a source in chunks of size bytes and leaves out those that
// are zero. Several goroutines, each with a Work of its own, read and work;
// emit gets the results in the order of their place, one at a time. A nil work
// only reads. Not more than 8 chunks are in memory.
func Each(ctx context.Context, src Source, size int, work func() (Work, error), emit func(*Chunk) error) error {
	if size <= 0 {
		return fmt.Errorf("internal error: chunks of %d bytes", size)
	}
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	free := make(chan *Chunk, 2*workers)
	todo, order := make(chan *Chunk, cap(free)), make(chan *Chunk, cap(free))
	for range cap(free) {
		free <- &Chunk{Data: make([]byte, 0, size), done: make(chan struct{}, 1)}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		return feed(ctx, src, size, free, todo, order)
	})
	for range workers {
		g.Go(func() error { return run(ctx, src, work, todo) })
	}
	g.Go(func() error {
		for c := range order {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-c.done:
			}
			if !c.zero {
				if err := emit(c); err != nil {
					return err
				}
			}
			free <- c
		}
		return ctx.Err()
	})
	return g.Wait()
}

// feed hands out the chunks that are not wholly in holes.
func feed(ctx context.Context, src Source, size int, free, todo, order chan *Chunk) error {
	step, total := int64(size), src.Size()
	for off := int64(0); off < total; {
		start, end, err := src.Next(off)
		if err != nil {
			return err
		}
		if off = max(off, start/step*step); start >= total {
			return nil
		}
		for ; off < end; off += step {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case c := <-free:
				c.Off, c.Data = off, c.Data[:min(step, total-off)]
				todo <- c
				order <- c
			}
		}
	}
	return nil
}

func run(ctx context.Context, src Source, newWork func() (Work, error), todo chan *Chunk) error {
	var work Work
	if newWork != nil {
		w, err := newWork()
		if err != nil {
			return err
		}
		work = w
	}
	for c := range todo {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n, err := src.ReadAt(c.Data, c.Off); n < len(c.Data) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("reading byte %d of the disk: %w", c.Off+int64(n), err)
		}
		if c.zero = IsZero(c.Data); !c.zero && work != nil {
			if err := work(c); err != nil {
				return err
			}
		}
		c.done <- struct{}{}
	}
	return nil
}
