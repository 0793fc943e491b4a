// Package fetch downloads files: over HTTP and HTTPS (RFC 9110), or from a file
// URL. A download that breaks off is taken up where it stopped; how often, and
// how long it may stand still, is bounded. So is its size.
//
// A part is only put behind another of the same version of a file: the server
// is told the ETag or the Last-Modified date of the first part (If-Range), and
// what it answers with is compared. Where it gives neither, the length alone
// is compared.
//
// Not supported: other schemes, several ranges at once, content encodings,
// credentials other than those in the URL, a Retry-After header.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/kscratch/kscratch/layers"
)

// Options are how files are fetched. The zero value is ready for use.
type Options struct {
	Client   *http.Client  // nil means one with timeouts and the proxy settings of the process
	Attempts int           // in a row that may bring nothing; 0 means 4
	Wait     time.Duration // before the second attempt, doubled for each further one; 0 means 500 ms
	Stall    time.Duration // without a byte, after which an attempt is given up; 0 means 1 min
	Log      *slog.Logger  // nil discards
}

func (o Options) withDefaults() Options {
	if o.Client == nil {
		o.Client = defaultClient
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.Wait <= 0 {
		o.Wait = 500 * time.Millisecond
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// maxAttempts bounds the attempts for one file in all, those that brought
// something included.
const maxAttempts = 50

// unknown is a length that is not known.
const unknown = -1

// StatusError is a server's refusal. It is [fs.ErrNotExist] if the server says
// that there is no such file.
type StatusError struct {
	Code   int    // such as 404
	Status string // such as "404 Not Found"
}

func (e *StatusError) Error() string { return "the server says " + e.Status }

// Is reports whether target is what the status means.
func (e *StatusError) Is(target error) bool {
	return target == fs.ErrNotExist && (e.Code == http.StatusNotFound || e.Code == http.StatusGone)
}

// Get writes the file at u to w. More than limit bytes are an error, of which
// one more byte than limit may have been written. If the file does not exist,
// the error is [fs.ErrNotExist] and nothing was written.
func Get(ctx context.Context, u *url.URL, w io.Writer, limit int64, o Options) error {
	return get(ctx, &download{u: u, w: w, limit: limit}, o)
}

// Pinned is [Get] for a file of which the caller knows the size and compares
// the digest. It therefore does not judge what the file is: of a larger one it
// writes one byte too many, of a smaller one all there is, and no digest fits.
func Pinned(ctx context.Context, u *url.URL, w io.Writer, size int64, o Options) error {
	return get(ctx, &download{u: u, w: w, limit: size, pinned: true}, o)
}

func get(ctx context.Context, d *download, o Options) error {
	d.o, d.total = o.withDefaults(), unknown
	switch d.u.Scheme {
	case "file":
		return d.copyFile(ctx)
	case "http", "https":
		d.client = guarded(d.o.Client)
		return d.run(ctx)
	}
	return d.failed(1, fmt.Errorf("scheme %q: want http, https or file", d.u.Scheme))
}

// download is one file under way.
type download struct {
	o      Options
	client *http.Client
	u      *url.URL
	w      io.Writer
	limit  int64 // bytes; of a pinned file, its size
	pinned bool

	done     int64   // bytes written to w
	total    int64   // length of the file as the server says it
	version  version // of the file that the bytes are of
	whole    bool    // the server gives no ranges
	writeErr error
}

// finalError is one that another attempt does not mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

func (d *download) failed(attempts int, err error) error {
	if attempts > 1 {
		err = fmt.Errorf("after %d attempts: %w", attempts, err)
	}
	return fmt.Errorf("downloading %s: %w", d.u.Redacted(), err)
}

// run makes attempts until the file is there or it is no use.
func (d *download) run(ctx context.Context) error {
	wait, idle := d.o.Wait, 0
	for n := 1; ; n++ {
		before := d.done
		err := d.attempt(ctx)
		if err == nil {
			return nil
		}
		if d.done > before {
			wait, idle = d.o.Wait, 0
		}
		idle++
		if final := (*finalError)(nil); errors.As(err, &final) || ctx.Err() != nil || idle >= d.o.Attempts || n >= maxAttempts {
			return d.failed(n, err)
		}
		d.o.Log.Warn("fetching again", "url", d.u.Redacted(), "attempt", n+1, "bytes", d.done, "error", err)
		select {
		case <-ctx.Done():
			return d.failed(n, ctx.Err())
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// attempt makes one request for what is missing.
func (d *download) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.o.Stall, func() { cancel(fmt.Errorf("no data for %v", d.o.Stall)) })
	defer stall.Stop()
	err := d.transfer(ctx, func() { stall.Reset(d.o.Stall) })
	// What comes after the end of a context comes of it. Without a length, an
	// end of the file may be one too: the server's answer to our going away.
	if ctx.Err() != nil && (err != nil || d.total == unknown) {
		return context.Cause(ctx)
	}
	return err
}

func (d *download) transfer(ctx context.Context, tick func()) error {
	resp, err := d.request(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if d.atEnd(resp) {
		return nil
	}
	if err := d.check(resp); err != nil {
		return err
	}
	body := active{resp.Body, tick}
	if resp.StatusCode == http.StatusOK { // without ranges: pass over what is there
		if n, err := io.CopyN(io.Discard, body, d.done); err != nil {
			return fmt.Errorf("reading again up to byte %d, at %d: %w", d.done, n, unexpected(err))
		}
	}
	if err := d.copy(body); err != nil {
		return err
	}
	if want := d.expected(); d.done < want {
		return fmt.Errorf("%d of %d bytes: %w", d.done, want, io.ErrUnexpectedEOF)
	}
	return nil
}

// expected returns how much is to be written before the end is the end.
func (d *download) expected() int64 {
	if d.total == unknown && d.pinned {
		return d.limit
	}
	return min(d.total, d.limit+1)
}

// Write passes content on and remembers what went wrong there: a full disk is
// no reason to ask the server again.
func (d *download) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.done += int64(n)
	d.writeErr = err
	return n, err
}

// copy writes r, up to one byte more than the limit.
func (d *download) copy(r io.Reader) error {
	_, err := io.Copy(d, io.LimitReader(r, d.limit+1-d.done))
	switch {
	case d.writeErr != nil:
		return &finalError{fmt.Errorf("writing: %w", d.writeErr)}
	case err != nil:
		return unexpected(err)
	case !d.pinned && d.done > d.limit:
		return &finalError{fmt.Errorf("larger than expected: more than %d bytes", d.limit)}
	}
	return nil
}

func (d *download) copyFile(ctx context.Context) error {
	f, err := os.Open(d.u.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("%s: not a regular file", d.u.Path), err)
	}
	if err := d.copy(layers.WithContext(ctx, f)); err != nil {
		return fmt.Errorf("reading %s: %w", d.u.Path, err)
	}
	return ctx.Err()
}

// unexpected turns an end of file where there should be more into an error
// that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// active is a reader that reports each read that brings something.
type active struct {
	r    io.Reader
	tick func()
}

func (a active) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.tick()
	}
	return n, err
}
