//go:build foreign

package hwdb

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var sourceDir = flag.String("hwdb.d", "", "also compare on the *.hwdb of this directory")

// TestSystemdHwdbAgrees asks for the same bytes as systemd-hwdb's.
func TestSystemdHwdbAgrees(t *testing.T) {
	for name, sources := range map[string]map[string]string{
		"sample": {"20-a.hwdb": sample, "60-b.hwdb": later},
		"tree": {"10.hwdb": "abc\nabd\n X=1\n Y=bc\n\nab\n X=2\n\nabcdef\n Z=c\n", "11.hwdb": "a\n X=abc\n\nb*\n A=x\n Y=yx\n A=z\n",
			"99.hwdb": "abc\n Y=new\n"},
	} {
		t.Run(name, func(t *testing.T) { compare(t, sources) })
	}
	if *sourceDir == "" {
		return
	}
	all := map[string]string{}
	names, err := filepath.Glob(*sourceDir + "/*.hwdb")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(n)] = string(b)
	}
	compare(t, all)
}

func compare(t *testing.T, sources map[string]string) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "etc/udev/hwdb.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range sources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("systemd-hwdb", "--root="+root, "update").CombinedOutput(); err != nil {
		t.Fatalf("systemd-hwdb: %v\n%s", err, out)
	}
	theirs, err := os.ReadFile(filepath.Join(root, "etc/udev/hwdb.bin"))
	if err != nil {
		t.Fatal(err)
	}
	// With --root, systemd-hwdb records paths with the root in front.
	ours := compileDir(t, dir, dir)
	if !bytes.Equal(ours, theirs) {
		t.Errorf("%d bytes, systemd-hwdb writes %d:\n%s\ntheirs:\n%s", len(ours), len(theirs), list(t, ours), list(t, theirs))
	}
}

func compileDir(t *testing.T, dir, recorded string) []byte {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.hwdb")
	if err != nil {
		t.Fatal(err)
	}
	var src []Source
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, Source{filepath.Join(recorded, filepath.Base(n)), b})
	}
	out, err := Compile(version(t), src)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func version(t *testing.T) uint64 {
	t.Helper()
	out, err := exec.Command("systemd-hwdb", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.Fields(string(out))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
