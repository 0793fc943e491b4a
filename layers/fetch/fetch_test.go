package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// data is the file of the tests: 20 000 bytes, no two parts of it alike.
var data = func() []byte {
	var b bytes.Buffer
	for i := range 4000 {
		fmt.Fprintf(&b, "%04d ", i)
	}
	return b.Bytes()
}()

// breakOff sends the first n bytes and drops the connection.
func breakOff(w http.ResponseWriter, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// partial sends bytes from to to as a range.
func partial(w http.ResponseWriter, from, to int) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(data[from:to])
}

// unlengthed sends the first n bytes without saying how many there are.
func unlengthed(w http.ResponseWriter, n int) {
	w.Write(data[:n])
	w.(http.Flusher).Flush()
}

const longAgo = "Thu, 01 Jan 2026 00:00:00 GMT"

type handler = func(w http.ResponseWriter, r *http.Request, n int)

func TestGet(t *testing.T) {
	served := func(w http.ResponseWriter, r *http.Request, _ int) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	status := func(code int) handler {
		return func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(code) }
	}
	// after makes the first request break off, with headers ("Name: value").
	after := func(next handler, headers ...string) handler {
		return func(w http.ResponseWriter, r *http.Request, n int) {
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				w.Header().Set(name, value)
			}
			if n == 1 {
				breakOff(w, 5000)
			}
			next(w, r, n)
		}
	}
	for _, tt := range []struct {
		name     string
		serve    handler
		err      string // of Get; "" means success
		pinned   string // of Pinned, if it differs: "" as err, "bytes N" success with other content
		requests string // the headers Range and If-Range of each request by Get
	}{
		{"at once", served, "", "", "-"},
		{"busy at first", func(w http.ResponseWriter, r *http.Request, n int) {
			if n < 3 {
				w.WriteHeader(503)
				return
			}
			served(w, r, n)
		}, "", "", "-; -; -"},
		{"always busy", status(503), "after 4 attempts: the server says 503 Service Unavailable", "", "-; -; -; -"},
		{"too many requests", status(429), "after 4 attempts: the server says 429", "", "-; -; -; -"},
		{"forbidden", status(403), "/file: the server says 403 Forbidden", "", "-"},
		{"absent", status(404), "/file: the server says 404 Not Found", "", "-"},
		{"gone", status(410), "/file: the server says 410 Gone", "", "-"},
		{"never a byte", func(w http.ResponseWriter, _ *http.Request, _ int) { breakOff(w, 0) }, "after 4 attempts: unexpected EOF", "", "-; -; -; -"},
		{"resumed by ETag", after(served, `ETag: "a"`), "", "", `-; bytes=5000- "a"`},
		{"resumed by date", after(served, "Last-Modified: "+longAgo), "", "", `-; bytes=5000- ` + longAgo},
		{"no If-Range with a weak ETag", after(served, `ETag: W/"a"`), "", "", `-; bytes=5000-`},
		{"no If-Range with a date of just now", after(served, "Last-Modified: "+longAgo, "Date: "+longAgo), "", "", `-; bytes=5000-`},
		{"resumed by nothing", after(served), "", "", `-; bytes=5000-`},
		{"lost at the last byte", func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				breakOff(w, len(data)-1)
			}
			served(w, r, n)
		}, "", "", `-; bytes=19999-`},
		{"a part at a time", func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				breakOff(w, 1000)
			}
			partial(w, (n-1)*1000, n*1000)
		}, "", "", "- then 19 ranges"},
		{"no ranges", func(w http.ResponseWriter, r *http.Request, n int) {
			if n < 3 {
				breakOff(w, 5000*n)
			}
			w.Write(data)
		}, "", "", "-; bytes=5000-; bytes=10000-"},
		{"no length, then the rest", func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				unlengthed(w, 5000)
				panic(http.ErrAbortHandler)
			}
			served(w, r, n)
		}, "", "", "-; bytes=5000-"},
		{"no length, and the end is lost", func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				unlengthed(w, len(data))
				panic(http.ErrAbortHandler)
			}
			served(w, r, n) // answers 416 with "bytes */20000"
		}, "", "", "-; bytes=20000-"},
		{"nothing after half of it", after(func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Range", "bytes */20000")
			w.WriteHeader(416)
		}), "after 2 attempts: the server says 416", "bytes 5000", "-; bytes=5000-"},
		{"ranges not understood", after(func(w http.ResponseWriter, r *http.Request, _ int) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(416)
				return
			}
			w.Write(data)
		}), "", "", "-; bytes=5000-; -"},
		{"changed, the whole of it", func(w http.ResponseWriter, _ *http.Request, n int) {
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
			if n == 1 {
				breakOff(w, 5000)
			}
			w.Write(data)
		}, "the file changed during the download", "bytes 20000", `-; bytes=5000- "1"`},
		{"changed, by its date", func(w http.ResponseWriter, _ *http.Request, n int) {
			w.Header().Set("Last-Modified", strings.Replace(longAgo, "00:00:00", fmt.Sprintf("00:00:%02d", n), 1))
			if n == 1 {
				breakOff(w, 5000)
			}
			w.Write(data)
		}, "the file changed during the download", "bytes 20000", "-; bytes=5000- " + strings.Replace(longAgo, "00:00:00", "00:00:01", 1)},
		{"changed, by its length", after(func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Range", "bytes 5000-20999/21000")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(make([]byte, 16_000))
		}), "the file changed during the download", "bytes 20001", "-; bytes=5000-"},
		{"changed, a part of it", func(w http.ResponseWriter, _ *http.Request, n int) {
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
			if n == 1 {
				breakOff(w, 5000)
			}
			partial(w, 5000, len(data)) // in spite of If-Range
		}, "the file changed during the download", "bytes 20000", `-; bytes=5000- "1"`},
		{"another range", after(func(w http.ResponseWriter, _ *http.Request, _ int) { partial(w, 0, 10) }),
			`the server says 206 Partial Content: asked for the rest from byte 5000 and got "bytes 0-9/20000"`, "", "-; bytes=5000-"},
		{"too large", func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(append(data, data...)) },
			"larger than expected: more than 20000 bytes", "bytes 20001", "-"},
		{"too large, no length", func(w http.ResponseWriter, _ *http.Request, _ int) {
			unlengthed(w, 10)
			w.Write(append(data, data...))
		}, "larger than expected: more than 20000 bytes", "bytes 20001", "-"},
		{"redirected", func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
				return
			}
			served(w, r, n)
		}, "", "", "-; -"},
		{"redirected in a circle", func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "/file", http.StatusFound)
		}, "more than 10 redirects", "", "-; -; -; -; -; -; -; -; -; -"},
		{"redirected away from TLS", func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "http://plain.invalid/file?secret", http.StatusFound)
		}, "leads away from TLS, to http://plain.invalid", "", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, o, requests := serve(t, tt.serve)
			var got bytes.Buffer
			err := Get(t.Context(), u, &got, int64(len(data)), o)
			expect(t, err, got.Bytes(), tt.err)
			seen := strings.Join(*requests, "; ")
			if seen != tt.requests && !(strings.HasSuffix(tt.requests, "ranges") && len(*requests) == 20) {
				t.Errorf("got the requests %q, want %q", seen, tt.requests)
			}

			u, o, _ = serve(t, tt.serve)
			got.Reset()
			err = Pinned(t.Context(), u, &got, int64(len(data)), o)
			if !strings.HasPrefix(tt.pinned, "bytes ") {
				expect(t, err, got.Bytes(), tt.err)
			} else if n := fmt.Sprintf("bytes %d", got.Len()); err != nil || n != tt.pinned {
				t.Errorf("pinned: got %s, %v; want %s", n, err, tt.pinned)
			}
		})
	}
}

// serve starts a server of one file and notes the requests.
func serve(t *testing.T, h handler) (*url.URL, Options, *[]string) {
	t.Helper()
	requests := new([]string)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := strings.TrimSpace(r.Header.Get("Range") + " " + r.Header.Get("If-Range"))
		if seen == "" {
			seen = "-"
		}
		*requests = append(*requests, seen)
		h(w, r, len(*requests))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/file")
	if err != nil {
		t.Fatal(err)
	}
	return u, Options{Client: s.Client(), Wait: time.Millisecond, Stall: time.Minute}, requests
}

func expect(t *testing.T, err error, got []byte, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got the error %v", err)
	case want == "" && !bytes.Equal(got, data):
		t.Errorf("got %d other bytes", len(got))
	case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "downloading https://")):
		t.Errorf("got the error %v, want one with %q", err, want)
	}
	if missing := strings.Contains(want, "404") || strings.Contains(want, "410"); err != nil && errors.Is(err, fs.ErrNotExist) != missing {
		t.Errorf("%v is fs.ErrNotExist: want %v", err, missing)
	}
}

// A server that falls silent is left.
func TestStall(t *testing.T) {
	u, o, _ := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		unlengthed(w, 10)
		<-r.Context().Done()
	})
	o.Stall, o.Attempts = 50*time.Millisecond, 2
	err := Get(t.Context(), u, io.Discard, int64(len(data)), o)
	if err == nil || !strings.HasSuffix(err.Error(), "attempts: no data for 50ms") {
		t.Errorf("got %v", err)
	}
}

// However little each attempt brings, they end.
func TestManyAttempts(t *testing.T) {
	u, o, requests := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			breakOff(w, 1)
		}
		partial(w, n-1, n)
	})
	o.Wait = time.Microsecond
	err := Get(t.Context(), u, io.Discard, int64(len(data)), o)
	if err == nil || !strings.Contains(err.Error(), "after 50 attempts: 50 of 20000 bytes: unexpected EOF") || len(*requests) != maxAttempts {
		t.Errorf("got %v after %d requests", err, len(*requests))
	}
}

// A writer that fails is no reason to ask again.
func TestWriteError(t *testing.T) {
	u, o, requests := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(data) })
	full := errors.New("no space left")
	err := Get(t.Context(), u, writerFunc(func(p []byte) (int, error) { return 0, full }), int64(len(data)), o)
	if !errors.Is(err, full) || len(*requests) != 1 {
		t.Errorf("got %v after %d requests", err, len(*requests))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestLog(t *testing.T) {
	u, o, _ := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			breakOff(w, 5000)
		}
		partial(w, 5000, len(data))
	})
	u.User = url.UserPassword("user", "secret")
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := Get(t.Context(), u, io.Discard, int64(len(data)), o); err != nil {
		t.Fatal(err)
	}
	want := `level=WARN msg="fetching again" url=https://user:xxxxx@` + u.Host + `/file attempt=2 bytes=5000 error="unexpected EOF"`
	if !strings.Contains(log.String(), want) || strings.Contains(log.String(), "secret") {
		t.Errorf("got %s\nwant a line with %s", &log, want)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u, o, requests := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		cancel()
		<-r.Context().Done()
	})
	o.Stall = time.Minute
	if err := Get(ctx, u, io.Discard, 1, o); !errors.Is(err, context.Canceled) || len(*requests) != 1 {
		t.Errorf("under way: got %v after %d requests", err, len(*requests))
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	u, o, _ = serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(503) })
	o.Wait = time.Hour
	if err := Get(ctx, u, io.Discard, 1, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: got %v", err)
	}
}

// resolver is a client for which every name fails to resolve with err, after
// the connections that ok counts.
func resolver(c *http.Client, ok int, err *net.DNSError) (*http.Client, *int) {
	tr, tries := c.Transport.(*http.Transport).Clone(), new(int)
	dial := tr.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	tr.DisableKeepAlives = true
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if *tries++; *tries > ok {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return dial(ctx, network, addr)
	}
	return &http.Client{Transport: tr}, tries
}

// A name that cannot be resolved is final, unless the server has answered
// before and the resolver, not the name, is at fault.
func TestNames(t *testing.T) {
	nowhere := &net.DNSError{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}
	offline := &net.DNSError{Err: "server misbehaving", Name: "nowhere.invalid", IsTemporary: true}
	for _, tt := range []struct {
		name  string
		ok    int
		err   *net.DNSError
		tries int
		want  string
	}{
		{"no such host", 0, nowhere, 1, "/file: dial tcp: lookup nowhere.invalid: no such host"},
		{"offline", 0, offline, 1, "/file: dial tcp: lookup nowhere.invalid: server misbehaving"},
		{"no such host any more", 1, nowhere, 2, "after 2 attempts: dial tcp: lookup nowhere.invalid: no such host"},
		{"offline meanwhile", 1, offline, 4, "after 4 attempts: dial tcp: lookup nowhere.invalid: server misbehaving"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, o, _ := serve(t, func(w http.ResponseWriter, r *http.Request, n int) { breakOff(w, 5000) })
			c, tries := resolver(o.Client, tt.ok, tt.err)
			o.Client = c
			err := Get(t.Context(), u, io.Discard, int64(len(data)), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || *tries != tt.tries {
				t.Errorf("got %v after %d tries; want %q after %d", err, *tries, tt.want, tt.tries)
			}
		})
	}
}

// What certificates and proxies refuse, they refuse again.
func TestFinal(t *testing.T) {
	u, o, requests := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(data) })
	start := time.Now()
	o.Client, o.Wait = nil, time.Minute // the default client does not trust the test's certificate
	err := Get(t.Context(), u, io.Discard, int64(len(data)), o)
	if err == nil || !strings.Contains(err.Error(), "certificate") || len(*requests) != 0 {
		t.Errorf("certificate: got %v", err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }))
	defer proxy.Close()
	tr := defaultClient.Transport.(*http.Transport).Clone()
	tr.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	o.Client = &http.Client{Transport: tr}
	err = Get(t.Context(), u, io.Discard, int64(len(data)), o)
	if err == nil || !strings.HasSuffix(err.Error(), "the proxy "+proxy.URL+" says 403 Forbidden") {
		t.Errorf("proxy: got %v", err)
	}
	err = Get(t.Context(), &url.URL{Scheme: "ftp", Host: "x"}, io.Discard, 1, o)
	if err == nil || err.Error() != `downloading ftp://x: scheme "ftp": want http, https or file` {
		t.Errorf("scheme: got %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a file")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name, path string
		ctx        context.Context
		limit      int64
		err        error  // what it is
		text       string // what is in it
		pinned     int    // bytes by Pinned
	}{
		{"there", name, t.Context(), int64(len(data)), nil, "", len(data)},
		{"smaller than known", name, t.Context(), int64(len(data)) + 5, nil, "", len(data)},
		{"too large", name, t.Context(), 100, nil, "larger than expected: more than 100 bytes", 101},
		{"absent", filepath.Join(dir, "b"), t.Context(), 100, fs.ErrNotExist, "no such file", 0},
		{"directory", dir, t.Context(), 100, nil, "not a regular file", 0},
		{"cancelled", name, cancelled, 100, context.Canceled, "reading", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			u := &url.URL{Scheme: "file", Path: tt.path}
			err := Get(tt.ctx, u, &got, tt.limit, Options{})
			if tt.text == "" && (err != nil || !bytes.Equal(got.Bytes(), data)) ||
				tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text) || tt.err != nil && !errors.Is(err, tt.err)) {
				t.Errorf("got %v", err)
			}
			got.Reset()
			if err := Pinned(tt.ctx, u, &got, tt.limit, Options{}); got.Len() != tt.pinned || tt.pinned > 0 && err != nil {
				t.Errorf("pinned: got %d bytes, %v", got.Len(), err)
			}
		})
	}
}

func TestContentRange(t *testing.T) {
	for _, tt := range []struct {
		in           string
		start, total int64
		ok           bool
	}{
		{"bytes 5-9/10", 5, 10, true},
		{"bytes 0-0/1", 0, 1, true},
		{"bytes 5-9/*", 5, -1, true},
		{"bytes */10", -1, 10, true},
		{"bytes */*", -1, -1, false},
		{"bytes 5-10/10", -1, -1, false},
		{"bytes 9-5/10", -1, -1, false},
		{"bytes -5/10", -1, -1, false},
		{"bytes 5/10", -1, -1, false},
		{"bytes +5-9/10", -1, -1, false},
		{"bytes 5-9", -1, -1, false},
		{"bytes 0-9223372036854775807/*", 0, -1, true},
		{"bytes 0-9223372036854775808/*", -1, -1, false},
		{"items 5-9/10", -1, -1, false},
		{"", -1, -1, false},
	} {
		start, total, ok := contentRange(tt.in)
		if ok != tt.ok || ok && (start != tt.start || total != tt.total) {
			t.Errorf("%q: got %d, %d, %v", tt.in, start, total, ok)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes */10", "bytes 5-9/*", "bytes 9-5/10", "bytes", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, total, ok := contentRange(s)
		if ok && (start < unknown || total < unknown || total != unknown && start >= total) {
			t.Errorf("%q: got %d, %d", s, start, total)
		}
	})
}
