package kubernetes

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kscratch/kscratch/layers/fetch"
	"github.com/kscratch/kscratch/layers/gomod"
)

func listing(t testing.TB, img v1.Image) string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(names, " ")
		}
		must(t, err)
		names = append(names, h.Name)
	}
}

func sum512(b []byte) string {
	h := sha512.Sum512(b)
	return hex.EncodeToString(h[:])
}

const releasePath = "/v1.36.3/kubernetes-server-linux-amd64.tar.gz"

// mirror serves a release; serve answers requests for the tarball.
func mirror(t *testing.T, sum string, serve func(w http.ResponseWriter, r *http.Request, try int)) Options {
	t.Helper()
	var tries atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case releasePath + ".sha512":
			io.WriteString(w, sum)
		case releasePath:
			serve(w, r, int(tries.Add(1)))
		default:
			http.NotFound(w, r)
		}
	}))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	return Options{BaseURL: s.URL + "/", Fetch: fetch.Options{Client: s.Client(), Wait: time.Millisecond, Stall: 5 * time.Second}}
}

// breakOff sends n bytes of data and drops the connection.
func breakOff(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func ranged(w http.ResponseWriter, r *http.Request, etag string, data []byte) {
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func TestRelease(t *testing.T) {
	data := server(t)
	for _, tt := range []struct {
		name  string
		sum   string // empty means the right one
		serve func(w http.ResponseWriter, r *http.Request, try int)
		err   string // empty means success
	}{
		{"served", "", func(w http.ResponseWriter, r *http.Request, _ int) { w.Write(data) }, ""},
		{"sum with a file name", sum512(data) + "  kubernetes.tar.gz\n", func(w http.ResponseWriter, r *http.Request, _ int) { w.Write(data) }, ""},
		{"resumed with a range", "", func(w http.ResponseWriter, r *http.Request, try int) {
			if try < 3 {
				w.Header().Set("ETag", `"a"`)
				if try == 2 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 10000-%d/%d", len(data)-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
					w.Write(data[10_000:15_000])
					panic(http.ErrAbortHandler)
				}
				breakOff(w, data, 10_000)
			}
			if r.Header.Get("Range") == "" || r.Header.Get("If-Range") != `"a"` {
				t.Errorf("the third request has the headers %v", r.Header)
			}
			ranged(w, r, `"a"`, data)
		}, ""},
		{"refused", "", func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(403) }, "the server says 403 Forbidden"},
		{"altered", "", func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Write(append([]byte{0}, data[1:]...))
		}, "it has SHA-512 "},
		{"no sum", "<html>", func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(data) }, "it holds no SHA-512 sum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sum == "" {
				tt.sum = sum512(data)
			}
			store := open(t)
			sources, err := Sources(store, []string{"release"}, mirror(t, tt.sum, tt.serve))
			must(t, err)
			got, err := Get(t.Context(), "v1.36.3", nil, sources...)
			if tt.err == "" {
				must(t, err)
				if content(t, got.Blob) != string(data) || got.SHA512 != sum512(data) || got.Source != "release" || got.Version != "v1.36.3" {
					t.Errorf("got %+v", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tt.err)
			}
			if left, _ := filepath.Glob(filepath.Join(store.Dir(), "blobs/sha256/*")); len(left) > 0 {
				t.Errorf("kept %v", left)
			}
		})
	}
}

// When its context ends, no further source is tried.
func TestReleaseCancelled(t *testing.T) {
	data := server(t)
	o := mirror(t, sum512(data), func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Write(data[:100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	sources, err := Sources(open(t), []string{"release", "modules"}, o)
	must(t, err)
	if _, err := Get(ctx, "v1.36.3", nil, sources...); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestGet(t *testing.T) {
	data := server(t)
	file := filepath.Join(t.TempDir(), "k8s.tar.gz")
	must(t, os.WriteFile(file, data, 0o644))
	ok := mirror(t, sum512(data), func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(data) })
	altered := mirror(t, sum512(nil), func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(data) })
	absent := ok
	absent.BaseURL += "absent"
	withPath := absent
	withPath.Path = file
	lost := ok
	lost.Path = "/nonexistent/k8s.tar.gz"
	for _, tt := range []struct {
		name    string
		sources string
		o       Options
		version string
		log     string // what the one line holds; empty means none
		err     string
	}{
		{"path", "path cache", withPath, "v1.36.3", `source=path`, ""},
		{"release after the others", "path cache release", lost, "v1.36.3",
			`source=release sha256=HEX not="path: open /nonexistent/k8s.tar.gz: no such file or directory; cache: v1.36.3 is not in the content store"`, ""},
		{"path after a release that is not there", "release path", withPath, "v1.36.3", `the server says 404 Not Found"`, ""},
		{"nothing has it", "path cache release modules", absent, "v1.36.3", "", "no source has it: path: no path is given; cache: v1.36.3 is not in the content store; release: downloading"},
		{"without go", "modules", absent, "v1.36.3", "", "modules: building k8s.io/kubernetes@v1.36.3: no go command found: install Go"},
		{"an altered release ends the search", "release path", altered, "v1.36.3", "", "getting Kubernetes v1.36.3 from release: checking"},
		{"no sources", "", ok, "v1.36.3", "", "no sources are given"},
		{"bad version", "release", ok, "1.36.3", "", `version "1.36.3": want one such as v1.36.3`},
		{"version that is a path", "release", ok, "v1.36.3/../..", "", "want one such as"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sources, err := Sources(open(t), strings.Fields(tt.sources), tt.o)
			must(t, err)
			var log bytes.Buffer
			got, err := Get(t.Context(), tt.version, slog.New(slog.NewTextHandler(&log, nil)), sources...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || log.Len() > 0 {
					t.Errorf("got %v, log %q; want an error with %q", err, &log, tt.err)
				}
				return
			}
			must(t, err)
			line := strings.ReplaceAll(log.String(), got.Blob.Digest.Hex(), "HEX")
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, tt.log) {
				t.Errorf("log %q, want one line with %q", line, tt.log)
			}
			if content(t, got.Blob) != string(data) {
				t.Error("other content")
			}
		})
	}
	if _, err := Sources(open(t), []string{"cache", "floppy"}, ok); err == nil || !strings.Contains(err.Error(), `unknown source "floppy", want one of path, cache, release, modules`) {
		t.Errorf("unknown source: %v", err)
	}
}

// The second time the store serves the release, with the mirror gone.
func TestCacheAfterRelease(t *testing.T) {
	data, store := server(t), open(t)
	o := mirror(t, sum512(data), func(w http.ResponseWriter, _ *http.Request, try int) {
		if try > 1 {
			t.Error("fetched twice")
		}
		w.Write(data)
	})
	for _, want := range []string{"release", "cache", "cache"} {
		sources, err := Sources(store, []string{"cache", "release", "modules"}, o)
		must(t, err)
		got, err := Get(t.Context(), "v1.36.3", nil, sources...)
		must(t, err)
		if got.Source != want || got.SHA512 != sum512(data) {
			t.Errorf("got %+v, want it from %s", got, want)
		}
	}
}

// proxy serves a Kubernetes of six programs that do nothing, as the Go module
// proxy would.
func proxy(t *testing.T, version string) (env []string) {
	t.Helper()
	dir, mods := t.TempDir(), t.TempDir()
	at := filepath.Join(dir, "k8s.io/kubernetes/@v")
	must(t, os.MkdirAll(at, 0o755))
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	add := func(name, text string) {
		w, err := z.Create("k8s.io/kubernetes@" + version + "/" + name)
		must(t, err)
		_, err = io.WriteString(w, text)
		must(t, err)
	}
	const mod = "module k8s.io/kubernetes\ngo 1.21\n"
	add("go.mod", mod)
	for _, p := range Programs {
		add("cmd/"+p+"/main.go", "package main\nfunc main() { println(\""+p+"\") }\n")
	}
	must(t, z.Close())
	must(t, os.WriteFile(filepath.Join(at, version+".zip"), buf.Bytes(), 0o644))
	must(t, os.WriteFile(filepath.Join(at, version+".mod"), []byte(mod), 0o644))
	must(t, os.WriteFile(filepath.Join(at, version+".info"), []byte(fmt.Sprintf("{\"Version\":%q}", version)), 0o644))
	t.Cleanup(func() { // go makes the directories of its module cache read-only
		filepath.WalkDir(mods, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	return append(os.Environ(), "GOPROXY=file://"+dir, "GOSUMDB=off", "GONOPROXY=none", "GOPRIVATE=", "GOMODCACHE="+mods)
}

func TestModules(t *testing.T) {
	const version = "v1.99.0"
	path, err := exec.LookPath("go")
	must(t, err)
	store := open(t)
	o := Options{Go: gomod.Options{Go: path, Env: proxy(t, version)}}
	get := func(o Options, names ...string) Tarball {
		t.Helper()
		sources, err := Sources(store, names, o)
		must(t, err)
		got, err := Get(t.Context(), version, nil, sources...)
		must(t, err)
		return got
	}
	built := get(o, "cache", "modules")
	if built.Source != "modules" {
		t.Errorf("got %+v", built)
	}
	if got := get(o, "cache", "modules"); got.Source != "cache" || got.Blob.Digest != built.Blob.Digest {
		t.Errorf("with go: got %+v", got)
	}
	if got := get(Options{}, "cache", "modules"); got.Source != "cache" || got.Blob.Digest != built.Blob.Digest {
		t.Errorf("without go: got %+v", got)
	}
	if got := get(o, "modules"); got.Source != "modules" || got.Blob.Digest != built.Blob.Digest {
		t.Errorf("without cache: got %+v", got)
	}
	got, err := Extract(t.Context(), store, built.Blob, "", "kubelet", "kube-apiserver.tar")
	if err != nil || len(got) != 2 {
		t.Errorf("extracted %v, %v", got, err)
	}
}

func FuzzParseSHA512(f *testing.F) {
	f.Add([]byte(sum512(nil)))
	f.Add([]byte(sum512(nil) + "  file\n"))
	f.Add([]byte(""))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if sum, err := parseSHA512(data); (err == nil) != (len(sum) == 128) {
			t.Errorf("got %q, %v", sum, err)
		}
	})
}
