package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxRedirects is what net/http allows where nothing else is said.
const maxRedirects = 10

// defaultClient is shared, so that one connection serves many files. Answers
// that do not come are the business of [Options.Stall].
var defaultClient = &http.Client{Transport: &http.Transport{
	Proxy:                  http.ProxyFromEnvironment,
	DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
	TLSHandshakeTimeout:    15 * time.Second,
	IdleConnTimeout:        90 * time.Second,
	MaxIdleConnsPerHost:    8,
	ForceAttemptHTTP2:      true,
	OnProxyConnectResponse: proxyRefusal,
}}

// proxyRefusal makes the refusal of a proxy final: it knows whom it serves.
func proxyRefusal(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode < 400 || resp.StatusCode >= 500 {
		return nil // net/http judges it
	}
	return &finalError{fmt.Errorf("the proxy %s says %s", proxy.Redacted(), resp.Status)}
}

// guarded returns a client that does not leave TLS once it has it.
func guarded(c *http.Client) *http.Client {
	g, next := *c, c.CheckRedirect
	g.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if last := via[len(via)-1].URL; last.Scheme == "https" && req.URL.Scheme != "https" {
			return &finalError{fmt.Errorf("%s leads away from TLS, to %s://%s", last.Host, req.URL.Scheme, req.URL.Host)}
		}
		if next != nil {
			return next(req, via)
		}
		if len(via) >= maxRedirects {
			return &finalError{fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		return nil
	}
	return &g
}

// request asks for what is missing.
func (d *download) request(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.u.String(), nil)
	if err != nil {
		return nil, &finalError{err}
	}
	// Sizes and ranges are those of the file, and Packages.gz shall come as it
	// is, not as its content.
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "kscratch")
	if d.done > 0 && !d.whole {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(d.done, 10)+"-")
		if v := d.version.ifRange(); v != "" {
			req.Header.Set("If-Range", v)
		}
	}
	resp, err := d.client.Do(req)
	if uerr := (*url.Error)(nil); errors.As(err, &uerr) {
		err = uerr.Err // its text repeats the URL
	}
	if err != nil && d.hopeless(err) {
		err = &finalError{err}
	}
	return resp, err
}

// hopeless reports whether a failure to reach the server is one that stays. A
// name that cannot be resolved is: the resolver has tried all its servers. Only
// of a server that has answered before is it known that the name is right.
func (d *download) hopeless(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound || d.done == 0
	}
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}

// version is what a server says about the version of a file.
type version struct {
	etag     string // if it is a strong one
	modified string // Last-Modified
	dated    bool   // modified stands for one version, not for several within a second
}

// versionOf reads a response's validators. Weak ETags may not be used for
// ranges (RFC 9110, section 13.1.5), dates only if they are strong in the
// sense of section 8.8.2.2.
func versionOf(resp *http.Response) version {
	v := version{etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified")}
	if strings.HasPrefix(v.etag, "W/") {
		v.etag = ""
	}
	modified, err := http.ParseTime(v.modified)
	date, derr := http.ParseTime(resp.Header.Get("Date"))
	v.dated = err == nil && derr == nil && date.Sub(modified) >= time.Second
	return v
}

// ifRange returns the value of the header If-Range; "" means none.
func (v version) ifRange() string {
	switch {
	case v.etag != "":
		return v.etag
	case v.dated:
		return v.modified
	}
	return ""
}

// fits reports whether a part of version w may follow one of v. The answer to
// If-Range need not repeat a date (section 15.3.7).
func (v version) fits(w version, partial bool) bool {
	same := func(a, b string) bool { return a == b || partial && (a == "" || b == "") }
	return same(v.etag, w.etag) && same(v.modified, w.modified)
}

// atEnd reports whether the server says that there is no more than we have. Of
// a pinned file, the digest will tell.
func (d *download) atEnd(resp *http.Response) bool {
	if resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || d.done == 0 {
		return false
	}
	_, total, ok := contentRange(resp.Header.Get("Content-Range"))
	return d.pinned && (ok || d.total <= d.done) || ok && total == d.done
}

var errChanged = &finalError{errors.New("the file changed during the download")}

// check decides whether a response brings what was asked for.
func (d *download) check(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return d.match(resp, resp.ContentLength)
	case code == http.StatusPartialContent:
		header := resp.Header.Get("Content-Range")
		start, total, ok := contentRange(header)
		if !ok || start != d.done {
			return &finalError{fmt.Errorf("the server says %s: asked for the rest from byte %d and got %q", resp.Status, d.done, header)}
		}
		return d.match(resp, total)
	case code == http.StatusRequestedRangeNotSatisfiable && !d.whole && resp.Header.Get("Content-Range") == "":
		// A server that has the file says how long it is. This one may not
		// understand a range without an end: have it send everything.
		d.whole = true
		return &StatusError{code, resp.Status}
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return &StatusError{code, resp.Status}
	default:
		return &finalError{&StatusError{code, resp.Status}}
	}
}

// match compares the file that a response is about with the one that the bytes
// so far are of. A pinned file is compared when it is whole: mirrors of many
// servers do not agree about ETags.
func (d *download) match(resp *http.Response, total int64) error {
	v := versionOf(resp)
	if d.done == 0 {
		d.version, d.total = v, total
		return nil
	}
	known := d.total != unknown && total != unknown
	if !d.pinned && (!d.version.fits(v, resp.StatusCode == http.StatusPartialContent) || known && d.total != total) {
		return errChanged
	}
	if total != unknown {
		d.total = total
	}
	return nil
}

// contentRange reads the header Content-Range (RFC 9110, section 14.4): of
// "bytes 5-9/10" it returns 5 and 10. An unknown start or total is -1.
func contentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	part, length, slash := strings.Cut(s, "/")
	if !ok || !slash {
		return unknown, unknown, false
	}
	start, total = unknown, unknown
	if length != "*" {
		if total, ok = natural(length); !ok {
			return unknown, unknown, false
		}
	}
	if part == "*" {
		return start, total, total != unknown
	}
	first, last, dash := strings.Cut(part, "-")
	start, ok = natural(first)
	end, eok := natural(last)
	if !ok || !dash || !eok || end < start || total != unknown && end >= total {
		return unknown, unknown, false
	}
	return start, total, true
}

func natural(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}
