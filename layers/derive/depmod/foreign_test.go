//go:build foreign

package depmod

import (
	"bytes"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var modulesDir = flag.String("modules", "", "also compare on this directory of a kernel's modules")

// TestDepmodAgrees compares the text files with those of kmod's depmod, and
// the binary ones too where its version writes them like kmod 34.
func TestDepmodAgrees(t *testing.T) {
	dir := t.TempDir()
	version := "6.1.0-test"
	mods := filepath.Join(dir, "lib/modules", version)
	for p, k := range sample {
		p = strings.TrimSuffix(p, ".zst") // Debian's kmod may be built without
		write(t, filepath.Join(mods, p), k.content(t, p))
	}
	write(t, filepath.Join(mods, "modules.order"), []byte(sampleOrder+"kernel/drivers/d.ko\nkernel/drivers/non.ko\n")) // depmod puts others in the order of a hash table
	write(t, filepath.Join(mods, "modules.builtin"), []byte(sampleBuiltin))
	write(t, filepath.Join(mods, "modules.builtin.modinfo"), []byte(strings.ReplaceAll(strings.Replace(sampleModinfo, "part.alias=not-listed\n", "", 1), "\n", "\x00")))
	compare(t, dir, version)
}

func TestDepmodAgreesOnKernel(t *testing.T) {
	if *modulesDir == "" {
		t.Log("-modules is not set: only the sample was compared")
		return
	}
	dir := t.TempDir()
	version := filepath.Base(*modulesDir)
	to := filepath.Join(dir, "lib/modules", version)
	if err := os.CopyFS(to, os.DirFS(*modulesDir)); err != nil {
		t.Fatal(err)
	}
	compare(t, dir, version)
}

func compare(t *testing.T, dir, version string) {
	t.Helper()
	mods := filepath.Join(dir, "lib/modules", version)
	in := readDir(t, mods)
	got, err := Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "depmod", "-b", dir, version)
	for name, b := range got {
		theirs, err := os.ReadFile(filepath.Join(mods, name))
		if os.IsNotExist(err) && name == "modules.weakdep" {
			continue // before kmod 33
		}
		if err != nil {
			t.Fatal(err)
		}
		if name == "modules.symbols" { // in the order of a hash table
			b, theirs = sortLines(b), sortLines(theirs)
		}
		if !strings.HasSuffix(name, ".bin") && !bytes.Equal(b, theirs) {
			t.Errorf("%s differs from depmod's:\n%s\ntheirs:\n%s", name, b, theirs)
		}
	}
	want := resolveAll(t, dir, version, in)
	for name, b := range got {
		write(t, filepath.Join(mods, name), b)
	}
	if ours := resolveAll(t, dir, version, in); ours != want {
		t.Errorf("modprobe finds with our indexes:\n%s\nwith depmod's:\n%s", ours, want)
	}
}

// resolveAll asks modprobe for each module and alias.
func resolveAll(t *testing.T, dir, version string, in Input) string {
	t.Helper()
	args := []string{"-d", dir, "-S", version, "--show-depends", "-a", "--"}
	for _, m := range in.Modules {
		args = append(args, Name(m.Path))
	}
	names := args[7:]
	slices.Sort(names)
	out := run(t, "modprobe", args...)
	for _, a := range []string{"fs-b", "char-major-10-234", "pci:v00008086d00001234sv1", "fs-fuse", "symbol:c_init", "net-pf-17"} {
		b, err := exec.Command("modprobe", "-d", dir, "-S", version, "--resolve-alias", a).CombinedOutput()
		out += a + ": " + string(b)
		if err != nil {
			out += err.Error() + "\n"
		}
	}
	return out
}

func readDir(t *testing.T, dir string) Input {
	t.Helper()
	var in Input
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && IsModule(p) {
			in.Modules = append(in.Modules, Module{strings.TrimPrefix(p, dir+"/"), func() (io.ReadCloser, error) { return os.Open(p) }})
		}
		return err
	})
	for _, x := range []struct {
		name string
		to   *[]byte
	}{{"modules.order", &in.Order}, {"modules.builtin", &in.Builtin}, {"modules.builtin.modinfo", &in.BuiltinModinfo}} {
		if err == nil {
			*x.to, err = os.ReadFile(filepath.Join(dir, x.name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func sortLines(b []byte) []byte {
	lines := strings.SplitAfter(string(b), "\n")
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

func write(t *testing.T, p string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
