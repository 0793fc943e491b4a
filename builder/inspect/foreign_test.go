//go:build foreign && net

package inspect_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/sbom"
	"github.com/kscratch/kscratch/test/userstore"
)

// realImage builds a master's image of Debian's and Kubernetes' own files, from
// the content store of the user, and returns its path.
func realImage(t *testing.T) string {
	t.Helper()
	s, err := userstore.Open()
	must(t, err)
	goTool, err := exec.LookPath("go")
	must(t, err)
	dir := t.TempDir()
	o := builder.Options{Dir: dir, Store: s, Go: goTool, Env: os.Environ(), Now: time.Now()}
	spec := builder.Default()
	_, err = builder.EnsurePKI(spec, dir, o.Now, rand.Reader)
	must(t, err)
	lock, err := builder.Resolve(t.Context(), spec, o)
	must(t, err)
	img, err := builder.Build(t.Context(), spec, lock, builder.Master, o)
	must(t, err)
	_, err = builder.Pack(t.Context(), img, dir, o)
	must(t, err)
	return filepath.Join(dir, "master.raw")
}

// TestForeign holds the answers about a real image to what erofs-utils, mtools,
// cryptsetup, dpkg and the go command find in it.
func TestForeign(t *testing.T) {
	raw := realImage(t)
	i := openImage(t, raw)
	r, err := i.Report(t.Context(), true)
	must(t, err)
	must(t, r.Damage())
	dir := t.TempDir()
	parts := map[string]string{}
	for _, p := range r.Partitions {
		size := p.Size
		if p.Type == "root" {
			size = r.Verity.DataSize
		}
		parts[p.Type] = filepath.Join(dir, p.Type)
		copyPart(t, raw, parts[p.Type], p.Offset, size)
	}
	run(t, "veritysetup", "verify", parts["root"], parts["root-verity"], r.Verity.RootHash)
	root := filepath.Join(dir, "tree")
	run(t, "fsck.erofs", "--no-preserve-owner", "--preserve-perms", "--extract="+root, parts["root"])
	t.Run("files", func(t *testing.T) { sameFiles(t, i, r, root) })
	t.Run("ESP", func(t *testing.T) {
		var b bytes.Buffer
		must(t, inspect.Cat(i.ESP, "/loader/loader.conf", &b))
		if got := run(t, "mtype", "-i", parts["esp"], "::/loader/loader.conf"); got != b.String() {
			t.Errorf("mtype says %q, cat %q", got, b.String())
		}
	})
	t.Run("packages", func(t *testing.T) {
		want := strings.Split(strings.TrimSpace(run(t, "dpkg-query", "--admindir="+filepath.Join(root, "usr/lib/kscratch/dpkg"),
			"-W", "-f", "${Package} ${Version} ${Architecture}\n")), "\n")
		var got []string
		for _, p := range r.Packages {
			got = append(got, p.Name+" "+p.Version+" "+p.Arch)
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("modules", func(t *testing.T) { sameModules(t, i, root) })
}

// sameFiles compares what there is, its modes and its digests.
func sameFiles(t *testing.T, i *inspect.Image, r inspect.Report, root string) {
	there := map[string]bool{}
	var setuid []string
	owners := i.Record.ByPath()
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		there[rel] = true
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 && info.Mode().IsRegular() {
			setuid = append(setuid, "/"+rel)
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		found := owners[rel]
		if sum := fmt.Sprintf("%x", h.Sum(nil)); sum != found.Sum && found.Owner != "kscratch:record" {
			t.Errorf("/%s of %s: the record has %s, the file %s", rel, found.Owner, found.Sum, sum)
		}
		return nil
	}))
	for p := range owners {
		if !there[p] {
			t.Errorf("/%s is recorded and not there", p)
		}
	}
	if len(owners) != len(there) {
		t.Errorf("%d paths are recorded, %d there", len(owners), len(there))
	}
	if d := cmp.Diff(setuid, r.Setuid); d != "" {
		t.Errorf("set-user-ID programs: %s", d)
	}
}

// sameModules compares the Go modules of the kubelet with what the go command
// finds in it.
func sameModules(t *testing.T, i *inspect.Image, root string) {
	b, err := i.Bill(t.Context(), "test")
	must(t, err)
	names := map[string]string{}
	var needs []string
	for _, c := range b.Components {
		names[c.ID] = c.Name + " " + c.Version
		if c.Path == "/usr/bin/kubelet" {
			needs = c.Needs
		}
	}
	var got, want []string
	for _, id := range needs {
		got = append(got, names[id])
	}
	for line := range strings.Lines(run(t, "go", "version", "-m", filepath.Join(root, "usr/bin/kubelet"))) {
		switch f := strings.Fields(line); {
		case len(f) == 0:
		case f[0] == "dep":
			want = append(want, f[1]+" "+f[2])
		case f[0] == "=>":
			want[len(want)-1] = f[1] + " " + f[2]
		case strings.HasSuffix(f[0], ":"):
			want = append(want, "stdlib "+strings.TrimPrefix(f[1], "go"))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" || len(got) < 50 {
		t.Errorf("the kubelet has %d modules: %s", len(got), d)
	}
	for name, render := range map[string]func(sbom.Bill) ([]byte, error){"SPDX": sbom.SPDX, "CycloneDX": sbom.CycloneDX} {
		if _, err := render(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// copyPart copies a part of a file into another.
func copyPart(t *testing.T, from, to string, offset, size int64) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.Create(to)
	must(t, err)
	defer out.Close()
	_, err = io.Copy(out, io.NewSectionReader(in, offset, size))
	must(t, err)
}
