//go:build cluster

package e2e

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/images"
)

// TestArchives makes the images twice. The suite itself must ask for each.
func TestArchives(t *testing.T) {
	ctx := t.Context()
	o, err := Local(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	suite, err := Suite(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "e2e.test")
	if err := Install(suite, exe); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, exe, "-list-images").Output()
	if err != nil {
		t.Fatal(err)
	}
	asked := strings.Fields(string(out))
	var sums [2]string
	for i := range sums {
		start, dir := time.Now(), t.TempDir()
		got, err := Archives(ctx, dir, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("made in %v", time.Since(start))
		var names []string
		for _, im := range got {
			b, err := os.ReadFile(im.Path)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, im.Name)
			sums[i] += fmt.Sprintf("%s %d %x\n", im.Name, len(b), sha256.Sum256(b))
			if !slices.Contains(asked, im.Name) {
				t.Errorf("the suite does not ask for %s", im.Name)
			}
			if _, err := (images.Importer{Store: o.Store}).Load(ctx, im.Path, images.Pick{As: im.Name}); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(names, Names) {
			t.Errorf("made %v, want %v", names, Names)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("two runs differ:\n%s\n%s", sums[0], sums[1])
	}
	t.Log(sums[0])
}
