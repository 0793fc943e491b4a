package kubernetes

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// criDockerd serves a release and counts the requests.
func criDockerd(t *testing.T, serve func(w http.ResponseWriter, try int)) (Options, *int) {
	t.Helper()
	tries := new(int)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/v0.3.17/cri-dockerd-0.3.17.amd64.tgz" {
			http.NotFound(w, r)
			return
		}
		*tries++
		serve(w, *tries)
	}))
	t.Cleanup(s.Close)
	return Options{BaseURL: s.URL + "/base/", Fetch: fetch.Options{Client: s.Client(), Wait: time.Millisecond}}, tries
}

func TestCRIDockerd(t *testing.T) {
	prog := program(elf.EM_X86_64, noise(1, 20_000))
	good := targz(t, entry{"cri-dockerd/", ""}, entry{"cri-dockerd/cri-dockerd", prog})
	// Noise does not compress: the program stands in the archive as it is.
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	archive := func(name, text string) []byte { return targz(t, entry{name, text}) }
	const member = "cri-dockerd/cri-dockerd"
	plain := func(b []byte) func(http.ResponseWriter, int) {
		return func(w http.ResponseWriter, _ int) { w.Write(b) }
	}
	for _, tt := range []struct {
		name    string
		version string // empty means v0.3.17
		want    layers.Digest
		serve   func(w http.ResponseWriter, try int)
		err     string // empty means success
		is      error
	}{
		{name: "trusted", serve: plain(good)},
		{name: "pinned", want: layers.DigestOf(good), serve: plain(good)},
		{name: "resumed", serve: func(w http.ResponseWriter, try int) {
			if try == 1 {
				breakOff(w, good, 5000)
			}
			w.Write(good)
		}},
		{name: "other digest", want: layers.DigestOf(nil), serve: plain(good), err: "tgz: content has digest " + string(layers.DigestOf(good))},
		{name: "not there", serve: func(w http.ResponseWriter, _ int) { w.WriteHeader(404) }, err: "the server says 404 Not Found", is: fs.ErrNotExist},
		{name: "other version", version: "v0.3.18", serve: plain(good), err: "v0.3.18/cri-dockerd-0.3.18.amd64.tgz: the server says 404 Not Found", is: fs.ErrNotExist},
		{name: "version without v", version: "0.3.17", serve: plain(good), err: `version "0.3.17": want one such as v0.3.17`},
		{name: "version that is a path", version: "v0.3.17/..", serve: plain(good), err: "want one such as"},
		{name: "never whole", serve: func(w http.ResponseWriter, _ int) { breakOff(w, good, 5000) }, err: "after 4 attempts: "},
		{name: "truncated archive", serve: plain(good[:len(good)/2]), err: "it is truncated, before its end"},
		{name: "archive without its last bytes", serve: plain(good[:len(good)-8]), err: "it is truncated, before its end"},
		{name: "damaged archive", serve: plain(damaged), err: "it is damaged, before its end: gzip: invalid checksum"},
		{name: "other machine", serve: plain(archive(member, program(elf.EM_AARCH64, "x"))), err: "cri-dockerd is for EM_AARCH64, want EM_X86_64"},
		{name: "script", serve: plain(archive(member, "#!/bin/sh\necho 'I am not a program'\n")), err: "it is not an ELF program"},
		{name: "symbolic link", serve: plain(archive(member, "-> /bin/sh")), err: "cri-dockerd/cri-dockerd is not a regular file"},
		{name: "parent directory", serve: plain(archive("cri-dockerd/../../cri-dockerd", prog)), err: "leads out of the archive"},
		{name: "elsewhere", serve: plain(archive("bin/cri-dockerd", prog)), err: "no cri-dockerd in cri-dockerd, which holds nothing; it is no archive of cri-dockerd"},
		{name: "HTML", serve: plain([]byte("<html>")), err: "not gzip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "v0.3.17"
			}
			store := open(t)
			o, _ := criDockerd(t, tt.serve)
			b, err := CRIDockerd(t.Context(), store, tt.version, tt.want, o)
			if tt.err == "" {
				must(t, err)
				if content(t, b) != prog {
					t.Error("other content")
				}
				return
			}
			var mismatch *cache.MismatchError
			switch {
			case err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("got %v, want an error with %q", err, tt.err)
			case errors.As(err, &mismatch) != (tt.name == "other digest"):
				t.Errorf("got %v (%T), a mismatch or not", err, err)
			}
			if left, _ := filepath.Glob(filepath.Join(store.Dir(), "keys/*/*")); len(left) > 0 {
				t.Errorf("kept %v", left)
			}
		})
	}
}

// A download without a checksum is trusted once, and the log says so; with
// one, and from the store, there is nothing to say.
func TestCRIDockerdTrust(t *testing.T) {
	good := targz(t, entry{"cri-dockerd/cri-dockerd", program(elf.EM_X86_64, "x")})
	store := open(t)
	o, tries := criDockerd(t, func(w http.ResponseWriter, _ int) { w.Write(good) })
	sum := layers.DigestOf(good)
	warning := fmt.Sprintf(`level=WARN msg="trusting a download for its TLS certificate alone, as no checksum is given; the lock pins it from now on" `+
		"url=%s/v0.3.17/cri-dockerd-0.3.17.amd64.tgz sha256=%s\n", strings.TrimRight(o.BaseURL, "/"), sum.Hex())
	for _, tt := range []struct {
		name  string
		want  layers.Digest
		log   string
		tries int
	}{
		{"first", "", warning, 1},
		{"again", "", "", 1},
		{"now with a checksum", sum, "", 1}, // the store has the archive
	} {
		var log bytes.Buffer
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		_, err := CRIDockerd(t.Context(), store, "v0.3.17", tt.want, o)
		must(t, err)
		if !strings.HasSuffix(log.String(), tt.log) || tt.log == "" && log.Len() > 0 || *tries != tt.tries {
			t.Errorf("%s: log %q after %d requests, want %q after %d", tt.name, &log, *tries, tt.log, tt.tries)
		}
	}
}

// An archive may not unpack to more than its kind does, nor its member.
func TestExtractLimits(t *testing.T) {
	blobOf := func(store *cache.Store, entries ...entry) cache.Blob { return put(t, store, targz(t, entries...)) }
	small := layout{kind: "test", what: "test", dir: "d", limit: 10_000, unpacked: 20_000}
	for _, tt := range []struct {
		name    string
		entries []entry
		err     string
	}{
		{"fits", []entry{{"d/p", program(elf.EM_X86_64, "x")}}, ""},
		{"large member", []entry{{"d/p", program(elf.EM_X86_64, noise(1, 10_000))}}, "d/p has 10064 bytes, more than 10000"},
		{"large beside it", []entry{{"zeros", strings.Repeat("\x00", 30_000)}, {"d/p", program(elf.EM_X86_64, "x")}}, "it unpacks to more than it may"},
	} {
		store := open(t)
		_, err := extract(t.Context(), store, blobOf(store, tt.entries...), small, "amd64", "p")
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.err)
		}
	}
}
