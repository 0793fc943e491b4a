// Package test holds the proofs that are about the whole program.
package test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/kscratch/kscratch/"

// rank orders the top of the tree: a package imports only packages of a lower
// rank, or of its own directory.
var rank = map[string]int{"layers": 0, "images": 1, "ignition": 1, "builder": 2, "cmd": 3, "test": 4}

// leaves may import nothing of ours but layers itself, the content store and
// the decoder of .xz.
var leaves = []string{
	"layers/cache", "layers/deb", "layers/fetch", "layers/xz", "builder/direct", "ignition/field", "ignition/pki", "images/seed",
	"builder/erofs", "builder/verity", "builder/uki", "builder/fat", "builder/vm", "builder/programs", "builder/record",
}

func TestImportsGoOneWay(t *testing.T) {
	for pkg, imports := range packages(t) {
		for _, imp := range imports {
			if a, b := top(pkg), top(imp); a != b && rank[a] <= rank[b] {
				t.Errorf("%s imports %s: imports go cmd → builder → {layers, images, ignition} → leaves", pkg, imp)
			}
		}
		for _, leaf := range leaves {
			if pkg != leaf {
				continue
			}
			for _, imp := range imports {
				if imp != "layers" && imp != "layers/cache" && imp != "layers/xz" && !strings.HasPrefix(imp, leaf+"/") {
					t.Errorf("%s is a leaf, but imports %s", pkg, imp)
				}
			}
		}
	}
}

// TestLibrariesAskNobody keeps the surroundings out of what makes bytes: the
// clock, the environment and randomness come in as parameters.
func TestLibrariesAskNobody(t *testing.T) {
	for pkg, imports := range allImports(t) {
		if top(pkg) == "cmd" || top(pkg) == "test" {
			continue
		}
		for _, imp := range imports {
			if imp == "math/rand" || imp == "math/rand/v2" {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

func top(pkg string) string {
	t, _, _ := strings.Cut(pkg, "/")
	return t
}

// packages returns our packages and which of ours each imports.
func packages(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for pkg, imports := range allImports(t) {
		out[pkg] = nil
		for _, imp := range imports {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				out[pkg] = append(out[pkg], ours)
			}
		}
	}
	return out
}

func allImports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v", err)
	}
	out := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(b))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
}
