package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	maxLine  = 4096   // bytes of a console line; longer ones are split
	maxLines = 50_000 // lines kept; the oldest are dropped
)

// Line is a line of the serial console without escape sequences.
type Line struct {
	At   time.Duration // since power-on, when the line was complete
	Text string
}

// String returns the line with its time in seconds.
func (l Line) String() string { return fmt.Sprintf("[%8.3f] %s", l.At.Seconds(), l.Text) }

// Console is what a machine has said on its serial port. It may be read while
// the machine runs.
type Console struct {
	clock      func() time.Duration // since power-on
	raw        io.Writer            // may be nil
	transcript io.Writer            // may be nil

	mu      sync.Mutex
	lines   []Line
	dropped int
	partial []byte
	changed chan struct{} // closed and replaced when a line is added
	ended   bool
	err     error // first error of the writers
}

func newConsole(clock func() time.Duration, raw, transcript io.Writer) *Console {
	return &Console{clock: clock, raw: raw, transcript: transcript, changed: make(chan struct{})}
}

// Write takes what comes from the serial port. Errors of the writers behind it
// are kept for the end: the guest must not block on them.
func (c *Console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.raw != nil {
		c.keep(c.raw.Write(b))
	}
	for rest := b; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			c.partial = append(c.partial, rest...)
			break
		}
		c.partial = append(c.partial, rest[:i]...)
		rest = rest[i+1:]
		c.flush()
	}
	for len(c.partial) > maxLine {
		c.flush()
	}
	return len(b), nil
}

func (c *Console) keep(_ int, err error) {
	if c.err == nil {
		c.err = err
	}
}

// flush makes lines of what has been gathered. The lock is held.
func (c *Console) flush() {
	text := clean(c.partial)
	c.partial = c.partial[:0]
	for len(text) > maxLine {
		c.add(text[:maxLine])
		text = text[maxLine:]
	}
	c.add(text)
}

func (c *Console) add(text string) {
	l := Line{c.clock(), text}
	if len(c.lines) == maxLines {
		drop := maxLines / 10
		c.lines = append(c.lines[:0], c.lines[drop:]...)
		c.dropped += drop
	}
	c.lines = append(c.lines, l)
	if c.transcript != nil {
		c.keep(io.WriteString(c.transcript, l.String()+"\n"))
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// end marks that nothing more will come and returns the first error of the
// writers.
func (c *Console) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.flush()
	}
	c.ended = true
	close(c.changed)
	c.changed = make(chan struct{})
	return c.err
}

// Lines returns a copy of the lines so far.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines...)
}

// Tail returns the last n lines with their times, for a message.
func (c *Console) Tail(n int) string {
	ls := c.Lines()
	ls = ls[max(0, len(ls)-n):]
	var b strings.Builder
	for _, l := range ls {
		b.WriteString(l.String() + "\n")
	}
	return b.String()
}

// since returns the lines from number n on, the number of the next one, a
// channel that is closed when there are more, and whether there never will be.
func (c *Console) since(n int) (ls []Line, next int, more chan struct{}, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next = c.dropped + len(c.lines)
	from := min(max(0, n-c.dropped), len(c.lines))
	return append([]Line(nil), c.lines[from:]...), next, c.changed, c.ended
}

// WaitFor returns the first line, from the power-on of the machine, that
// matches re. It fails when ctx ends or the machine does, with the tail of the
// console.
func (c *Console) WaitFor(ctx context.Context, re *regexp.Regexp) (Line, error) {
	return c.WaitAfter(ctx, 0, re)
}

// WaitAfter is WaitFor for lines later than after power-on.
func (c *Console) WaitAfter(ctx context.Context, after time.Duration, re *regexp.Regexp) (Line, error) {
	for n := 0; ; {
		ls, next, more, ended := c.since(n)
		for _, l := range ls {
			if l.At >= after && re.MatchString(l.Text) {
				return l, nil
			}
		}
		if ended {
			return Line{}, fmt.Errorf("waiting for a console line like %q: the machine ended; console:\n%s", re, c.Tail(tailLines))
		}
		n = next
		select {
		case <-more:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("waiting for a console line like %q: %w; console:\n%s", re, ctx.Err(), c.Tail(tailLines))
		}
	}
}

// tailLines is how much console an error carries.
const tailLines = 30

// escapes matches terminal control sequences (ECMA-48 CSI and OSC, two-byte
// escapes) and control characters other than the tabulator.
var escapes = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[@-Z\\\\-_]|[\x00-\x08\x0a-\x1f\x7f]")

// clean returns b as text without control sequences.
func clean(b []byte) string {
	return strings.ToValidUTF8(string(escapes.ReplaceAll(b, nil)), "\ufffd")
}
