package erofs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/kscratch/kscratch/layers"
)

const (
	defaultAhead = 16
	headSize     = 256 << 10
	openers      = 2
)

// dataOrder returns the regular files in about the order in which go-erofs
// reads them: depth first, those that surely have blocks of their own before
// those that may lie beside their inode. A file that comes out of order is
// opened when it is needed, so a wrong guess costs time only.
func dataOrder(t *layers.Tree) []layers.File {
	var files []layers.File
	for f := range t.Files() {
		if f.Mode.IsRegular() && f.Size > 0 {
			files = append(files, f)
		}
	}
	slices.SortStableFunc(files, func(a, b layers.File) int {
		return cmp.Or(cmp.Compare(small(a), small(b)), compareDepthFirst(a.Path, b.Path))
	})
	return files
}

func small(f layers.File) int {
	if f.Size <= BlockSize-32 {
		return 1
	}
	return 0
}

func compareDepthFirst(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// ahead opens files and reads their first bytes before they are asked for, so
// that the disk reads of several files overlap with each other and with the
// writing.
type ahead struct {
	mu      sync.Mutex
	pending map[string]*content // by path
	slots   chan struct{}
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func newAhead(ctx context.Context, files []layers.File, n int) *ahead {
	if n <= 0 {
		n = defaultAhead
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{pending: make(map[string]*content, len(files)), slots: make(chan struct{}, n), cancel: cancel}
	queue := make(chan *content)
	list := make([]*content, len(files))
	for i, f := range files {
		list[i] = &content{f: f, release: a.release}
		a.pending[f.Path] = list[i]
	}
	for range openers {
		a.wg.Go(func() {
			for c := range queue {
				c.fill()
			}
		})
	}
	a.wg.Go(func() {
		defer close(queue)
		for _, c := range list {
			select {
			case <-ctx.Done():
				return
			case a.slots <- struct{}{}:
			}
			select {
			case <-ctx.Done():
				return
			case queue <- c:
			}
		}
	})
	return a
}

func (a *ahead) release() { <-a.slots }

// source returns the content of f, which may or may not have been opened ahead.
func (a *ahead) source(f layers.File) io.ReadCloser {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.pending[f.Path]; ok {
		return c
	}
	return &content{f: f}
}

// close ends the opening and closes what was opened but not read to its end.
func (a *ahead) close() {
	a.cancel()
	a.wg.Wait()
	for _, c := range a.pending {
		c.Close()
	}
}

// content reads a file that must have exactly Size bytes.
type content struct {
	f       layers.File
	release func() // gives a slot back; nil if none was taken

	mu     sync.Mutex // held while the file is opened
	opened bool
	ahead  bool // opened ahead, so there is a slot to give back
	r      io.ReadCloser
	head   []byte
	at     int64
	err    error
}

// fill opens the file and reads its head, unless the reader was faster.
func (c *content) fill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		c.release()
		return
	}
	c.ahead = true
	if c.open(); c.err != nil {
		return
	}
	c.head = make([]byte, min(headSize, c.f.Size))
	n, err := io.ReadFull(c.r, c.head)
	c.head = c.head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.err = c.wrap(err)
	}
}

func (c *content) open() {
	c.opened = true
	r, err := c.f.Open()
	if err != nil {
		c.err = c.wrap(err)
		return
	}
	c.r = r
}

func (c *content) wrap(err error) error {
	return fmt.Errorf("reading /%s of %s: %w", c.f.Path, c.f.Owner, err)
}

// Read reads on. With the last byte of Size it also checks that there is no
// more, and closes the file.
func (c *content) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened {
		c.open()
	}
	if c.err == nil && c.at == c.f.Size {
		c.err = io.EOF
	}
	if c.err != nil {
		return 0, c.err
	}
	p = p[:min(int64(len(p)), c.f.Size-c.at)]
	n, err := c.read(p)
	c.at += int64(n)
	switch {
	case errors.Is(err, io.EOF) && c.at < c.f.Size:
		c.err = c.wrap(fmt.Errorf("content ends after %d of %d bytes", c.at, c.f.Size))
	case err != nil && !errors.Is(err, io.EOF):
		c.err = c.wrap(err)
	case c.at == c.f.Size:
		if err := c.finish(); err != nil {
			c.err = c.wrap(err)
		}
	}
	return n, c.err
}

func (c *content) read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.r.Read(p)
}

// checkEmpty reports a file of no size that has content. go-erofs does not open
// files of no size.
func checkEmpty(t *layers.Tree) error {
	for f := range t.Files() {
		if !f.Mode.IsRegular() || f.Size > 0 {
			continue
		}
		c := &content{f: f}
		if c.open(); c.err != nil {
			return c.err
		}
		if err := c.finish(); err != nil {
			return c.wrap(err)
		}
	}
	return nil
}

// finish checks that the content is at its end, and closes it.
func (c *content) finish() error {
	var more [1]byte
	n, err := io.ReadFull(c.r, more[:])
	if n > 0 {
		err = fmt.Errorf("content goes on after %d bytes", c.f.Size)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, c.done())
}

// done closes the file and gives the slot back.
func (c *content) done() error {
	c.head = nil
	if c.ahead {
		c.ahead = false
		c.release()
	}
	if c.r == nil {
		return nil
	}
	r := c.r
	c.r = nil
	return r.Close()
}

// Close closes the file if reading has not done so.
func (c *content) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = true
	if c.err == nil {
		c.err = io.EOF
	}
	return c.done()
}
