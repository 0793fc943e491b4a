package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// elfFile is the smallest program that the readers of ELF take for one.
func elfFile(t *testing.T, m elf.Machine, text string) []byte {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(m), Version: 1, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	b.WriteString(text)
	return b.Bytes()
}

func criDockerdArchive(t *testing.T, program []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: "cri-dockerd/cri-dockerd", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))})
	_, werr := w.Write(program)
	if err := errors.Join(err, werr, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCRIDockerd asks a release, then falls back to a program at hand.
func TestCRIDockerd(t *testing.T) {
	released, local := elfFile(t, elf.EM_X86_64, "released"), elfFile(t, elf.EM_X86_64, "local")
	good := criDockerdArchive(t, released)
	serve := func(b []byte) http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) } }
	for _, tt := range []struct {
		name     string
		serve    http.HandlerFunc // nil means that the host's name cannot be resolved
		sha256   string
		from     string // source
		log      string // what the log has
		tampered bool
	}{
		{"served", serve(good), "", "release", "trusting a download for its TLS certificate alone", false},
		{"served and checked", serve(good), layers.DigestOf(good).Hex(), "release", "source=release", false},
		{"not there", http.NotFound, "", "path", "the server says 404 Not Found", false},
		{"wrong sha256", serve(good), layers.DigestOf(nil).Hex(), "", "", true},
		{"truncated", serve(good[:len(good)-20]), "", "path", "it is truncated", false},
		{"wrong machine", serve(criDockerdArchive(t, elfFile(t, elf.EM_AARCH64, ""))), "", "path", "cri-dockerd is for EM_AARCH64, want EM_X86_64", false},
		{"offline", nil, "", "path", "no such host", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v0.3.17/cri-dockerd-0.3.17.amd64.tgz" {
					t.Errorf("asked for %s", r.URL)
				}
				tt.serve(w, r)
			}))
			defer srv.Close()
			o := releaseOptions(t, srv.Client(), local)
			c := Program{Version: "v0.3.17", Sources: []string{"release", "path"}, Release: srv.URL, SHA256: tt.sha256, Path: "cri"}
			if tt.serve == nil {
				o.Client = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
					return nil, &net.DNSError{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}
				}}}
			}
			var log bytes.Buffer
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			start := time.Now()
			f, err := criDockerd(t.Context(), c, o)
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
			var input *InputError
			var mismatch *cache.MismatchError
			if tt.tampered {
				if !errors.As(err, &input) || !input.Tampered || !errors.As(err, &mismatch) {
					t.Errorf("got %v (%T), want an input that is not what was pinned", err, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]byte{"release": released, "path": local}[tt.from]
			if f.From != tt.from || f.Digest != layers.DigestOf(want) || f.Size != int64(len(want)) || f.Name != "cri-dockerd" {
				t.Errorf("got %+v, want it from %s", f, tt.from)
			}
			if !strings.Contains(log.String(), tt.log) || !strings.Contains(log.String(), "source="+tt.from) {
				t.Errorf("log:\n%s\nwant it to have %q", &log, tt.log)
			}
		})
	}
}

// TestGoOffline: the go command itself says that it would ask nobody.
func TestGoOffline(t *testing.T) {
	o := Options{Env: append(os.Environ(), "GOPROXY=https://proxy.invalid", "GOPRIVATE=example.org", "GOSUMDB=sum.invalid"), Offline: true}
	cmd := exec.CommandContext(t.Context(), "go", "env", "GOPROXY", "GONOPROXY", "GOSUMDB")
	cmd.Env = goOptions(o).Env
	got, err := cmd.Output()
	if err != nil || string(got) != "off\nnone\noff\n" {
		t.Errorf("got %q, %v", got, err)
	}
	o.Offline = false
	if got := goOptions(o).Env; !slices.Equal(got, o.Env) {
		t.Errorf("with the network: %q", got)
	}
}

// releaseOptions has a client that trusts a test's server and a directory with
// the program "cri".
func releaseOptions(t *testing.T, c *http.Client, program []byte) Options {
	t.Helper()
	dir := t.TempDir()
	store, err := cache.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cri"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return Options{Dir: dir, Store: store, Client: c, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}
