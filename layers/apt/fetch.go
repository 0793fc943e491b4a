package apt

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
	"strconv"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
)

// unknownSize is the size of a file whose size is not known before.
const unknownSize = -1

// Transport is how files are fetched. The zero value is ready for use.
type Transport struct {
	Client   *http.Client  // nil means http.DefaultClient, which honours the proxy variables
	Attempts int           // per file; 0 means 4
	Wait     time.Duration // before the second attempt, doubled each time; 0 means 500 ms
	Stall    time.Duration // time without a byte after which an attempt is given up; 0 means 1 min
	Log      *slog.Logger  // nil means no log
}

func (t Transport) withDefaults() Transport {
	if t.Client == nil {
		t.Client = http.DefaultClient
	}
	if t.Attempts <= 0 {
		t.Attempts = 4
	}
	if t.Wait <= 0 {
		t.Wait = 500 * time.Millisecond
	}
	if t.Stall <= 0 {
		t.Stall = time.Minute
	}
	if t.Log == nil {
		t.Log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Fetch returns a package's .deb from the store, or downloads it into the
// store. A lost connection is taken up where it broke off. Content with
// another digest than the index gives is a *[cache.MismatchError]; a package
// that the mirror no longer has is an error that is [fs.ErrNotExist].
func (m Mirror) Fetch(ctx context.Context, t Transport, store *cache.Store, p Package) (cache.Blob, error) {
	fail := func(err error) (cache.Blob, error) {
		return cache.Blob{}, fmt.Errorf("fetching package %s (%s): %w", p, p.Filename, err)
	}
	if err := p.check(); err != nil {
		return fail(err)
	}
	u, err := m.url(p.Archive, p.Filename)
	if err != nil {
		return fail(err)
	}
	b, err := store.Fetch(ctx, p.Digest, func(ctx context.Context, w io.Writer) error {
		return t.get(ctx, u, w, p.Size, p.Size)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; the mirror may have a newer version by now: resolve again", err)
	}
	if err != nil {
		return fail(err)
	}
	return b, nil
}

// get writes the file at u to w. If it is larger than limit bytes, an error
// follows, or, where size is known, one byte too many is written so that no
// digest can fit.
func (t Transport) get(ctx context.Context, u *url.URL, w io.Writer, size, limit int64) error {
	t = t.withDefaults()
	d := &download{t: t, u: u, w: w, size: size, limit: limit}
	if u.Scheme == "file" {
		return d.copyFile(ctx)
	}
	wait := t.Wait
	for n := 1; ; n++ {
		again, err := d.attempt(ctx)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		if n == t.Attempts {
			return fmt.Errorf("after %d attempts: %w", n, err)
		}
		t.Log.Warn("fetching again", "url", u.Redacted(), "attempt", n+1, "bytes", d.done, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// download is one file under way.
type download struct {
	t           Transport
	u           *url.URL
	w           io.Writer
	size, limit int64
	done        int64 // bytes written to w
	writeErr    error
}

// Write passes content on and remembers what went wrong there: a full disk is
// no reason to ask the mirror again.
func (d *download) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.done += int64(n)
	d.writeErr = err
	return n, err
}

// attempt makes one request for what is missing, and says if another one could
// do better.
func (d *download) attempt(ctx context.Context) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.t.Stall, func() { cancel(fmt.Errorf("no data for %v", d.t.Stall)) })
	defer stall.Stop()
	resp, err := d.request(ctx)
	if err != nil {
		return true, cause(ctx, err)
	}
	defer resp.Body.Close()
	body := &activeReader{resp.Body, stall, d.t.Stall}
	switch code := resp.StatusCode; {
	case code == http.StatusRequestedRangeNotSatisfiable && d.done > 0:
		return false, nil // there is no more: the caller compares the digest
	case code == http.StatusOK:
		// The server does not do ranges: pass over what is there.
		if _, err := io.CopyN(io.Discard, body, d.done); err != nil {
			return true, cause(ctx, fmt.Errorf("reading %s: %w", d.u.Redacted(), unexpected(err)))
		}
	case code == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.done)):
	case code == http.StatusNotFound || code == http.StatusGone:
		return false, fmt.Errorf("%s: %s: %w", d.u.Redacted(), resp.Status, fs.ErrNotExist)
	default:
		again = code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout
		return again, fmt.Errorf("%s: the server says %s", d.u.Redacted(), resp.Status)
	}
	if err := d.copy(body); err != nil {
		return d.writeErr == nil && !errors.Is(err, errTooLarge), cause(ctx, fmt.Errorf("reading %s: %w", d.u.Redacted(), err))
	}
	if resp.ContentLength < 0 && d.done < d.size {
		return true, fmt.Errorf("reading %s: %d of %d bytes: %w", d.u.Redacted(), d.done, d.size, io.ErrUnexpectedEOF)
	}
	return false, nil
}

func (d *download) request(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.u.String(), nil)
	if err != nil {
		return nil, err
	}
	// Packages.gz shall come as it is, not as its content.
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "kscratch")
	if d.done > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(d.done, 10)+"-")
	}
	return d.t.Client.Do(req)
}

var errTooLarge = errors.New("larger than expected")

// copy reads up to one byte more than the limit.
func (d *download) copy(r io.Reader) error {
	if _, err := io.Copy(d, io.LimitReader(r, d.limit+1-d.done)); err != nil {
		return unexpected(err)
	}
	if d.size == unknownSize && d.done > d.limit {
		return fmt.Errorf("%w: more than %d bytes", errTooLarge, d.limit)
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
	if err := d.copy(f); err != nil {
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

// cause names what a context was cancelled for, when that is what err is about.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w: %w", err, c)
	}
	return err
}

// activeReader puts off a timer with every read.
type activeReader struct {
	r     io.Reader
	timer *time.Timer
	after time.Duration
}

func (a *activeReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.timer.Reset(a.after)
	return n, err
}
