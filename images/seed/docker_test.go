//go:build dockerd

// The judge of the whole package: docker itself on a baked store. It needs
// root, overlayfs, and dockerd, containerd, runc and docker in PATH.
package seed

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// program lists what it sees, so that a container tells how its layers look.
const program = `package main

import ("fmt"; "os"; "path/filepath"; "io/fs")

func main() {
	for _, d := range []string{"/data", "/opt"} {
		filepath.WalkDir(d, func(p string, e fs.DirEntry, err error) error {
			b, _ := os.ReadFile(p)
			fmt.Printf("%s %v %q\n", p, e.Type(), b)
			return nil
		})
	}
	if err := os.WriteFile("/data/mine", nil, 0o600); err != nil { fmt.Println(err) }
	st, _ := os.Stat("/opt/suid")
	fmt.Println(st.Mode())
}
`

// docker is a running dockerd.
type docker struct {
	t    *testing.T
	dir  string
	data string
	cmd  *exec.Cmd
}

func (d *docker) start() {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("dockerd", "--data-root", d.data, "--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"),
		"-H", "unix://"+d.dir+"/sock", "--config-file", filepath.Join(d.dir, "daemon.json"),
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=overlay2")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		d.t.Fatal(err)
	}
	for range 300 {
		if exec.Command("docker", "-H", "unix://"+d.dir+"/sock", "version").Run() == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	d.t.Fatalf("dockerd does not come up:\n%s", b)
}

func (d *docker) stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(unix.SIGTERM)
	d.cmd.Wait()
	d.cmd = nil
}

func (d *docker) try(args ...string) (string, error) {
	c := exec.Command("docker", append([]string{"-H", "unix://" + d.dir + "/sock"}, args...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func (d *docker) do(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
		d.t.Fatalf("%v\n%s", err, log)
	}
	return out
}

// layOut writes the baked store as the read-only root has it.
func layOut(t *testing.T, dir string, imgs ...images.Image) {
	t.Helper()
	l, err := images.Store(context.Background(), imgs, "docker")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := layers.Merge(l)
	if err == nil {
		err = images.Check(tree, "docker")
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Unmount(dir, unix.MNT_DETACH)
	os.RemoveAll(dir)
	for f := range tree.Under("docker") {
		if err := layOutFile(filepath.Join(dir, strings.TrimPrefix(f.Path, "docker")), f); err != nil {
			t.Fatal(err)
		}
	}
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount(dir, dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func layOutFile(p string, f layers.File) error {
	var err error
	switch f.Mode.Type() {
	case fs.ModeDir:
		err = os.Mkdir(p, 0o755)
	case fs.ModeSymlink:
		return os.Symlink(f.Link, p)
	case fs.ModeDevice | fs.ModeCharDevice:
		err = unix.Mknod(p, unix.S_IFCHR, int(f.Rdev))
	default:
		b, rerr := f.Read()
		if rerr != nil {
			return rerr
		}
		err = os.WriteFile(p, b, 0o600)
	}
	if err == nil {
		err = os.Chmod(p, f.Mode)
	}
	for k, v := range f.Xattrs {
		if err == nil {
			err = unix.Lsetxattr(p, k, []byte(v), 0)
		}
	}
	return err
}

func tarball(t *testing.T, hs ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range hs {
		body := h.Uname // carries the content in this test
		h.Uname, h.Size, h.ModTime = "", int64(len(body)), time.Unix(1e9, 0)
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func lister(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "main.go"), filepath.Join(dir, "list")
	if err := os.WriteFile(src, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-trimpath", "-o", bin, src)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// thing returns an image in which each layer changes what is below it.
func thing(t *testing.T, m images.Importer, ref, word string) images.Image {
	t.Helper()
	ls := [][]byte{
		tarball(t, tar.Header{Name: "./", Mode: 0o755}, tar.Header{Name: "./list", Mode: 0o755, Uname: lister(t)},
			tar.Header{Name: "./data/", Mode: 0o755}, tar.Header{Name: "./data/keep", Mode: 0o644, Uname: "keep"}, tar.Header{Name: "./data/drop", Mode: 0o644, Uname: "drop"},
			tar.Header{Name: "./opt/", Mode: 0o755}, tar.Header{Name: "./opt/hidden", Mode: 0o644, Uname: "hidden"}),
		tarball(t, tar.Header{Name: "data/.wh.drop"}, tar.Header{Name: "opt/", Mode: 0o755}, tar.Header{Name: "opt/.wh..wh..opq"},
			tar.Header{Name: "opt/suid", Mode: 0o4755, Uname: "suid"}, tar.Header{Name: "opt/hard", Mode: 0o4755, Typeflag: tar.TypeLink, Linkname: "opt/suid"},
			tar.Header{Name: "opt/soft", Typeflag: tar.TypeSymlink, Linkname: "suid"}),
		tarball(t, tar.Header{Name: "data/word", Mode: 0o644, Uname: word}),
	}
	dir := t.TempDir()
	var diffs, names []string
	for i, l := range ls {
		n := fmt.Sprintf("%d.tar", i)
		diffs, names = append(diffs, fmt.Sprintf("%q", layers.DigestOf(l))), append(names, fmt.Sprintf("%q", n))
		if err := os.WriteFile(filepath.Join(dir, n), l, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for n, s := range map[string]string{
		"c.json":        `{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/list"],"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":[` + strings.Join(diffs, ",") + `]}}`,
		"manifest.json": fmt.Sprintf(`[{"Config":"c.json","RepoTags":[%q],"Layers":[%s]}]`, ref, strings.Join(names, ",")),
	} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img, err := m.Load(context.Background(), dir, images.Pick{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func seen(word string) string {
	return fmt.Sprintf(`/data d--------- ""
/data/keep ---------- "keep"
/data/word ---------- %q
/opt d--------- ""
/opt/hard ---------- "suid"
/opt/soft L--------- "suid"
/opt/suid ---------- "suid"
urwxr-xr-x
`, word)
}

func TestDocker(t *testing.T) {
	ctx := context.Background()
	s, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := images.Importer{Store: s}
	dir := t.TempDir()
	baked := filepath.Join(dir, "baked")
	d := &docker{t: t, dir: dir, data: filepath.Join(dir, "data")}
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	boot := func(imgs ...images.Image) {
		t.Helper()
		d.stop()
		layOut(t, baked, imgs...)
		if err := Install(baked, d.data, nil); err != nil {
			t.Fatal(err)
		}
		d.start()
	}
	one, two, three := thing(t, m, "registry.k8s.io/thing:v1", "one"), thing(t, m, "two:2", "two"), thing(t, m, "registry.k8s.io/thing:v3", "three")
	run := func(ref string) string { return d.do("run", "--rm", "--network=none", ref) }
	same := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: got\n%s\nwant\n%s", what, got, want)
		}
	}

	boot(one, two)
	for _, img := range []images.Image{one, two} {
		same("images", d.do("images", "--no-trunc", "--format", "{{.ID}}", img.Ref), string(img.ID)+"\n")
	}
	same("inspect", d.do("inspect", "--format", "{{.Id}} {{.RepoTags}} {{.Config.Labels}} {{len .RootFS.Layers}} {{.GraphDriver.Name}}", "two:2"),
		fmt.Sprintf("%s [two:2] map[a:b] 3 overlay2\n", two.ID))
	id := strings.TrimSpace(d.do("create", "--network=none", "registry.k8s.io/thing:v1"))
	same("start", d.do("start", "-a", id), seen("one"))
	same("run", run("two:2"), seen("two"))

	// What docker saves is what was baked, bit for bit.
	saved := filepath.Join(dir, "saved.tar")
	d.do("save", "-o", saved, "two:2", "registry.k8s.io/thing:v1")
	empty, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []images.Image{one, two} {
		got, err := images.Importer{Store: empty}.Load(ctx, saved, images.Pick{Tag: want.Ref})
		if err != nil {
			t.Fatal(err)
		}
		same("saved", string(got.ID), string(want.ID))
	}

	// A baked image that was removed is back after the next boot.
	d.do("rm", id)
	d.do("rmi", "registry.k8s.io/thing:v1", "two:2")
	same("images after rmi", d.do("images", "-q"), "")
	boot(one, two)
	same("run after rmi", run("registry.k8s.io/thing:v1"), seen("one"))

	// Images that docker loads and commits live beside, on and under baked ones.
	archive := filepath.Join(dir, "archive.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.WriteDockerArchive(ctx, f, three); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d.do("load", "-i", archive)
	same("run loaded", run("registry.k8s.io/thing:v3"), seen("three"))
	d.do("run", "--network=none", "--name=con", "two:2")
	d.do("commit", "con", "mine:1")
	boot(one, two)
	same("run loaded after a boot", run("registry.k8s.io/thing:v3"), seen("three"))
	if out := run("mine:1"); !strings.Contains(out, "/data/mine") {
		t.Fatalf("committed: %s", out)
	}

	// The next root has other images. One that docker had loaded is baked now;
	// what stood on the old ones goes as soon as its container does.
	boot(three)
	same("run after the upgrade", run("registry.k8s.io/thing:v3"), seen("three"))
	same("images after the upgrade", d.do("images", "--format", "{{.Repository}}:{{.Tag}}"), "registry.k8s.io/thing:v3\n")
	if out := d.do("ps", "-a", "--format", "{{.Names}}"); out != "con\n" {
		t.Fatalf("containers: %q", out)
	}
	d.do("rm", "con")
	boot(three, two)
	same("run two again", run("two:2"), seen("two"))
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "level=error") {
		t.Errorf("dockerd complains:\n%s", log)
	}
}
