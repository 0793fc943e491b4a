package kubernetes

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// Compression works on blocks of a fixed size, each a gzip member of its own
// (RFC 1952, section 2.2), so that the result does not depend on how many are
// worked on at once.
const (
	blockSize = 1 << 20 // bytes
	inFlight  = 4       // blocks
)

// parallelGzip is an io.WriteCloser that compresses on several processors.
type parallelGzip struct {
	buf    []byte
	queue  chan chan []byte // results, in order
	group  errgroup.Group   // the goroutine that writes
	failed chan struct{}    // closed when it cannot go on
	err    error            // why, set before failed is closed
}

func newParallelGzip(w io.Writer) *parallelGzip {
	z := &parallelGzip{queue: make(chan chan []byte, inFlight), failed: make(chan struct{})}
	z.group.Go(func() error {
		for res := range z.queue {
			if _, err := w.Write(<-res); err != nil {
				z.err = err
				close(z.failed)
				return err
			}
		}
		return nil
	})
	return z
}

func (z *parallelGzip) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if z.buf == nil {
			z.buf = make([]byte, 0, blockSize)
		}
		take := min(len(p), blockSize-len(z.buf))
		z.buf, p = append(z.buf, p[:take]...), p[take:]
		if len(z.buf) == blockSize {
			if err := z.submit(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// submit hands the block at hand to a goroutine, waiting while too many are
// under way.
func (z *parallelGzip) submit() error {
	res := make(chan []byte, 1)
	select {
	case <-z.failed:
		return z.err
	case z.queue <- res:
	}
	block := z.buf
	z.buf = nil
	go func() { res <- compress(block) }()
	return nil
}

func compress(block []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		panic("internal error: " + err.Error()) // the level is a constant
	}
	// Writing to memory does not fail.
	w.Write(block)
	w.Close()
	return out.Bytes()
}

// Close writes what is left and waits for it. It does not close the
// underlying writer.
func (z *parallelGzip) Close() error {
	var err error
	if len(z.buf) > 0 {
		err = z.submit()
	}
	close(z.queue)
	if werr := z.group.Wait(); werr != nil {
		return werr
	}
	return err
}
