package kubernetes

import (
	"debug/elf"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/fetch"
)

func TestFlannel(t *testing.T) {
	prog := program(elf.EM_X86_64, noise(1, 20_000))
	for _, tt := range []struct {
		name, version string
		want          layers.Digest
		serve         string
		err           string // empty means success
		is            error
	}{
		{name: "trusted", version: "v0.28.0", serve: prog},
		{name: "pinned", version: "v0.28.0", want: layers.DigestOf([]byte(prog)), serve: prog},
		{name: "other digest", version: "v0.28.0", want: layers.DigestOf(nil), serve: prog, err: "content has digest"},
		{name: "not there", version: "v0.28.1", err: "v0.28.1/flanneld-amd64: the server says 404 Not Found", is: fs.ErrNotExist},
		{name: "version that is a path", version: "v0.28.0/..", err: "want one such as"},
		{name: "other machine", version: "v0.28.0", serve: program(elf.EM_AARCH64, "x"), err: "is for EM_AARCH64, want EM_X86_64"},
		{name: "empty", version: "v0.28.0", err: "not an ELF program"},
		{name: "page", version: "v0.28.0", serve: "<html>", err: "not an ELF program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/base/v0.28.0/flanneld-amd64" {
					http.NotFound(w, r)
					return
				}
				w.Write([]byte(tt.serve))
			}))
			defer s.Close()
			o := Options{BaseURL: s.URL + "/base", Fetch: fetch.Options{Client: s.Client(), Wait: time.Millisecond}}
			b, err := Flannel(t.Context(), open(t), tt.version, tt.want, o)
			switch {
			case tt.err == "":
				must(t, err)
				if content(t, b) != prog {
					t.Error("other content")
				}
			case err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
		})
	}
}
