package etcoverlay

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a directory with files, given as path and content in turn.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		put(t, dir, files[i], files[i+1])
	}
	return dir
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// list returns the files below dir as "path=content".
func list(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out = append(out, rel+"="+strings.ReplaceAll(string(b), "\n", ";"))
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// system returns options for an initrd and a system root with files.
func system(t *testing.T, image string, files ...string) Options {
	t.Helper()
	sysroot := tree(t, append([]string{"usr/lib/os-release", "ID=debian\nIMAGE_ID=kscratch-master\nIMAGE_VERSION=7\n", "etc/machine-id", ""}, files...)...)
	return Options{
		Root: tree(t, ImageIDPath, image+"\n"), Sysroot: sysroot,
		Random: strings.NewReader("0123456789abcdef"),
	}
}

func prepare(o Options) error {
	return with(o, func(e *etc) error {
		if err := e.identify(ImageIDPath); err != nil {
			return err
		}
		return e.prepare()
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLife goes through first boot, reboot, upgrade, interrupted first boot
// and rollback, without the mounting.
func TestLife(t *testing.T) {
	o := system(t, "a")
	state := filepath.Join(o.Sysroot, statePath)
	boot := func(id, wantFlag, wantState string) {
		t.Helper()
		o.Root = tree(t, ImageIDPath, id) // an initrd and its /run are new on each boot
		must(t, prepare(o))
		if got := list(t, filepath.Join(o.Root, "run")); got != wantFlag {
			t.Errorf("boot of %s: /run has %s, want %s", id, got, wantFlag)
		}
		if got := list(t, state); got != wantState {
			t.Errorf("boot of %s: state is %s, want %s", id, got, wantState)
		}
	}
	fresh := func(id string) string {
		return strings.ReplaceAll("kscratch/first-boot=%; kscratch/image-id=%;", "%", id)
	}
	again := func(id string) string { return "kscratch/image-id=" + id + ";" }
	ignite := func(id, content string) { put(t, state, id+"/upper/docker.conf", content) }
	const stamp = "/ignition-done=IMAGE_ID=kscratch-master;IMAGE_VERSION=7;"

	boot("a", fresh("a"), "a/sequence=1;")
	ignite("a", "half")
	boot("a", fresh("a"), "a/sequence=1;") // the power went: nothing half-written is left
	ignite("a", "A")
	must(t, Done(o))
	if got := list(t, filepath.Join(o.Root, "run")); got != again("a") {
		t.Errorf("after Done, /run has %s", got)
	}
	const a1 = "a" + stamp + " a/sequence=1; a/upper/docker.conf=A"
	boot("a", again("a"), a1)
	boot("b", fresh("b"), a1+" b/sequence=2;")
	ignite("b", "B")
	must(t, Done(o))
	boot("a", again("a"), "a"+stamp+" a/sequence=3; a/upper/docker.conf=A b"+stamp+" b/sequence=2; b/upper/docker.conf=B")
	boot("a", again("a"), "a"+stamp+" a/sequence=3; a/upper/docker.conf=A b"+stamp+" b/sequence=2; b/upper/docker.conf=B")
}

func TestUpperIsReadable(t *testing.T) {
	o := system(t, "a")
	must(t, prepare(o))
	st, err := os.Stat(filepath.Join(o.Sysroot, statePath, "a/upper"))
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
}

func TestImageID(t *testing.T) {
	for _, c := range []struct{ flag, file, want string }{
		{"", "abc-DEF_1.2\n", ""},
		{"x", "../y", ""}, // the flag goes before the file
		{"", "", "image id \"\""},
		{"..", "", "image id \"..\""},
		{"a/b", "", "image id \"a/b\""},
		{"a,b", "", "image id"},
		{"a:b", "", "image id"},
		{strings.Repeat("a", 201), "", "image id"},
	} {
		o := system(t, c.file)
		o.Image = c.flag
		err := prepare(o)
		if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q, %q: got %v, want %s", c.flag, c.file, err, c.want)
		}
	}
	o := system(t, "")
	must(t, os.Remove(filepath.Join(o.Root, ImageIDPath)))
	if err := Start(o); err == nil || !strings.Contains(err.Error(), "reading image id") {
		t.Errorf("no file: %v", err)
	}
}

func TestDoneWithoutStart(t *testing.T) {
	o := system(t, "a")
	if err := Done(o); err == nil || !strings.Contains(err.Error(), "syncing /etc") {
		t.Errorf("got %v", err)
	}
	if got := list(t, filepath.Join(o.Sysroot, statePath)); got != "" {
		t.Errorf("made %s", got)
	}
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name, current string
		have          []string // id and sequence in turn
		removed       []string
	}{
		{"few", "a", []string{"a", "1", "b", "2", "c", "3"}, nil},
		{"oldest goes", "d", []string{"a", "1", "b", "2", "c", "10", "d", "11"}, []string{"a"}},
		{"rolled back", "a", []string{"a", "14", "b", "11", "c", "12", "d", "13"}, []string{"b"}},
		{"the running one stays, whatever its number", "a", []string{"a", "1", "b", "2", "c", "3", "d", "4"}, []string{"b"}},
		{"broken numbers are oldest", "d", []string{"a", "x", "b", "", "c", "-1", "d", "4", "e", "5", "f", "6"}, []string{"a", "b", "c"}},
	} {
		dir := tree(t, currentPath, c.current, statePath+"/.hidden/x", "")
		for i := 0; i < len(c.have); i += 2 {
			put(t, dir, statePath+"/"+c.have[i]+"/sequence", c.have[i+1])
			put(t, dir, statePath+"/"+c.have[i]+"/upper/deep/file", "x")
		}
		got, err := Prune(Options{Root: dir, Sysroot: dir})
		if err != nil || !slices.Equal(got, c.removed) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.removed)
		}
		for i := 0; i < len(c.have); i += 2 {
			_, err := os.Stat(filepath.Join(dir, statePath, c.have[i]))
			if os.IsNotExist(err) != slices.Contains(c.removed, c.have[i]) {
				t.Errorf("%s: %s: %v", c.name, c.have[i], err)
			}
		}
	}
}

// TestPruneDropsStampFirst stops a removal half-way, as a loss of power would:
// what is left must not pass for a whole /etc.
func TestPruneDropsStampFirst(t *testing.T) {
	dir := tree(t, statePath+"/a/ignition-done", "", statePath+"/a/upper/f", "")
	e := func(f func(*etc) error) error { return with(Options{Root: dir, Sysroot: dir, Image: "a"}, f) }
	must(t, os.Chmod(filepath.Join(dir, statePath, "a/upper"), 0o555))
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, statePath, "a/upper"), 0o755) })
	_ = e(func(e *etc) error { return e.clear("a") }) // fails for all but root
	if err := e(func(e *etc) error {
		first, err := e.isFirst()
		if !first {
			t.Error("the stamp outlived its /etc")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

const randomID = "3031323334354637b839616263646566" // "0123456789abcdef" with the marks of a version 4 UUID

func TestMachineID(t *testing.T) {
	const uuid = "4C4C4544-0042-3510-8052-B4C04F4E3232\n"
	const kept = "0123456789abcdef0123456789abcdef"
	const vm, metal = "processor: 0\nflags\t\t: fpu sse hypervisor lahf_lm\n", "flags: fpu hypervisors\n"
	for _, c := range []struct{ name, remembered, uuid, cpu, want string }{
		{"remembered", kept + "\n", uuid, vm, kept},
		{"virtual machine", "", uuid, vm, "4c4c45440042351080 52b4c04f4e3232"},
		{"hardware", "", uuid, metal, ""},
		{"no UUID", "", "", vm, ""},
		{"zeros", "", "00000000-0000-0000-0000-000000000000\n", vm, ""},
		{"all f", "", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n", vm, ""},
		{"text", "", "Not Settable\n", vm, ""},
		{"broken", "abc\n", uuid, vm, "error: machine id \"abc\" in /var/lib/kscratch/machine-id: want 32"},
		{"empty", "\n", uuid, vm, "error: machine id \"\" in"},
	} {
		o := system(t, "a")
		put(t, o.Root, "proc/cpuinfo", c.cpu)
		if c.uuid != "" {
			put(t, o.Root, "sys/class/dmi/id/product_uuid", c.uuid)
		}
		if c.remembered != "" {
			put(t, o.Sysroot, machineIDPath, c.remembered)
		}
		err := with(o, (*etc).machineID)
		if text, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want %s", c.name, err, text)
			}
			continue
		}
		must(t, err)
		want := strings.ReplaceAll(c.want, " ", "")
		if want == "" {
			want = randomID
		}
		for _, p := range []string{"etc/machine-id", machineIDPath} {
			b, err := os.ReadFile(filepath.Join(o.Sysroot, p))
			if err != nil || string(b) != want+"\n" {
				t.Errorf("%s: %s is %q, %v, want %s", c.name, p, b, err, want)
			}
		}
	}
}
