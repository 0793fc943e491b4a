//go:build net

package gomod

import (
	"os"
	"os/exec"
	"testing"

	"github.com/kscratch/kscratch/test/userstore"
)

// TestFlanneldRuns builds flanneld from the module proxy and asks it for its
// version. KSCRATCH_CACHE names the content store, kscratch's own if empty:
// an image with flannel needs the same program.
func TestFlanneldRuns(t *testing.T) {
	store, err := userstore.Open()
	must(t, err)
	goTool, err := exec.LookPath("go")
	must(t, err)
	blobs, err := Build(t.Context(), store, Flannel("v0.28.0"), Options{Go: goTool, Env: os.Environ()})
	must(t, err)
	if out := say(t, blobs["flanneld"], "--version"); out != "v0.28.0\n" {
		t.Errorf("flanneld --version says %q", out)
	}
}
