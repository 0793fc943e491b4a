package kubernetes

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
)

// defaultBase is where Kubernetes is released
// (https://kubernetes.io/releases/download/).
const defaultBase = "https://dl.k8s.io"

// ChecksumError says that a download does not have the checksum that was
// published beside it.
type ChecksumError struct{ URL, Want, Got string }

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("checking %s: it has SHA-512 %s, want %s", e.URL, e.Got, e.Want)
}

// releaseSource is a published release: <base>/<version>/<file> with its
// checksum in <file>.sha512.
type releaseSource struct {
	store *cache.Store
	o     Options
}

func (releaseSource) Name() string { return "release" }

func (s releaseSource) base() string {
	if s.o.BaseURL == "" {
		return defaultBase
	}
	return strings.TrimRight(s.o.BaseURL, "/")
}

func (s releaseSource) url(version string) string {
	return s.base() + "/" + url.PathEscape(version) + "/" + FileName(s.o.arch())
}

func (s releaseSource) key(version string) string { return key("release", "1", s.url(version)) }

func (s releaseSource) Get(ctx context.Context, version string) (Tarball, error) {
	from := s.url(version)
	b, err := s.store.Compute(ctx, tarballKind, s.key(version), func(ctx context.Context, w io.Writer) error {
		return newFetcher(s.o).checked(ctx, from, w)
	})
	if err != nil {
		return Tarball{}, err
	}
	return found(ctx, s.store, b, version, s.Name())
}

// Bounds on downloads.
const (
	maxAttempts = 4       // in a row that bring nothing
	maxResumes  = 50      // in all
	maxTarball  = 4 << 30 // bytes
	maxSum      = 4096    // bytes of a checksum file
)

// fetcher downloads files, resuming where a connection broke.
type fetcher struct {
	client  *http.Client
	backoff time.Duration
	stall   time.Duration
	log     *slog.Logger
}

func newFetcher(o Options) fetcher {
	f := fetcher{client: o.Client, backoff: o.Backoff, stall: o.Stall, log: o.log()}
	if f.client == nil {
		f.client = &http.Client{Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			ForceAttemptHTTP2:     true,
		}}
	}
	if f.backoff == 0 {
		f.backoff = 500 * time.Millisecond
	}
	if f.stall == 0 {
		f.stall = 60 * time.Second
	}
	return f
}

// checked downloads a file into w and compares it with its published checksum.
func (f fetcher) checked(ctx context.Context, from string, w io.Writer) error {
	var sum bytes.Buffer
	if err := f.download(ctx, from+".sha512", &sum, maxSum); err != nil {
		return err
	}
	want, err := parseSHA512(sum.Bytes())
	if err != nil {
		return fmt.Errorf("reading %s.sha512: %w", from, err)
	}
	h := sha512.New()
	if err := f.download(ctx, from, io.MultiWriter(w, h), maxTarball); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return &ChecksumError{URL: from, Want: want, Got: got}
	}
	return nil
}

// parseSHA512 reads a checksum file: the digits alone, as releases have it, or
// with a file name after them, as sha512sum writes it.
func parseSHA512(b []byte) (string, error) {
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return "", errors.New("it is empty")
	}
	sum := strings.ToLower(fields[0])
	if _, err := hex.DecodeString(sum); err != nil || len(sum) != 2*sha512.Size || len(fields) > 2 {
		return "", errors.New("it holds no SHA-512 sum")
	}
	return sum, nil
}

// permanentError is one that a retry does not mend.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// download writes the content of a URL to w.
func (f fetcher) download(ctx context.Context, from string, w io.Writer, limit int64) error {
	d := &transfer{fetcher: f, from: from, w: w, limit: limit}
	wait, idle := f.backoff, 0
	for try := 1; ; try++ {
		before := d.n
		err := d.attempt(ctx)
		if err == nil {
			return nil
		}
		if d.n > before {
			wait, idle = f.backoff, 0
		}
		idle++
		var permanent *permanentError
		if ctx.Err() != nil || errors.As(err, &permanent) || idle >= maxAttempts || try >= maxResumes {
			return fmt.Errorf("downloading %s: %w", from, err)
		}
		f.log.Debug("trying again", "url", from, "have", d.n, "after", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// transfer is a file on its way.
type transfer struct {
	fetcher
	from  string
	w     io.Writer
	limit int64
	n     int64  // bytes written
	etag  string // of the file that they belong to
}

// attempt makes one request for what is still missing.
func (d *transfer) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("nothing came for %v", d.stall)) })
	defer watchdog.Stop()
	resp, err := d.request(ctx)
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	if err := d.check(resp); err != nil {
		return err
	}
	body := progress{resp.Body, func() { watchdog.Reset(d.stall) }}
	if resp.StatusCode == http.StatusOK && d.n > 0 { // the server does not resume
		if _, err := io.CopyN(io.Discard, body, d.n); err != nil {
			return cause(ctx, err)
		}
	}
	return cause(ctx, d.copy(body))
}

// cause prefers the reason of a cancelled context to the error that it led to.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *transfer) request(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.from, nil)
	if err != nil {
		return nil, &permanentError{err}
	}
	// Sizes and ranges are those of the file, not of a compressed transfer.
	req.Header.Set("Accept-Encoding", "identity")
	if d.n > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.n))
		if d.etag != "" {
			req.Header.Set("If-Range", d.etag)
		}
	}
	resp, err := d.client.Do(req)
	if uerr := (*url.Error)(nil); errors.As(err, &uerr) {
		err = uerr.Err // its text repeats the URL
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return nil, &permanentError{err}
	}
	return resp, err
}

// check decides whether a response brings what was asked for.
func (d *transfer) check(resp *http.Response) error {
	etag := resp.Header.Get("ETag")
	if strings.HasPrefix(etag, "W/") {
		etag = "" // weak ones may not be used for ranges: RFC 9110, section 13.1.5
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK && d.n > 0 && etag != d.etag:
		return &permanentError{errors.New("the file changed during the download")}
	case code == http.StatusOK:
		d.etag = etag
		return nil
	case code == http.StatusPartialContent && d.n > 0:
		if want := fmt.Sprintf("bytes %d-", d.n); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			return &permanentError{fmt.Errorf("asked for the rest from byte %d and got %q", d.n, resp.Header.Get("Content-Range"))}
		}
		return nil
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return fmt.Errorf("the server says %s", resp.Status)
	default:
		return &permanentError{fmt.Errorf("the server says %s", resp.Status)}
	}
}

// copy appends the body. An error of writing is permanent.
func (d *transfer) copy(body io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		n, rerr := body.Read(buf)
		if d.n+int64(n) > d.limit {
			return &permanentError{fmt.Errorf("it has more than %d bytes", d.limit)}
		}
		m, err := d.w.Write(buf[:n])
		d.n += int64(m)
		if err != nil {
			return &permanentError{err}
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}

// progress is a reader that reports each read that brings something.
type progress struct {
	r    io.Reader
	tick func()
}

func (p progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.tick()
	}
	return n, err
}
