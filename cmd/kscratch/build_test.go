package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/test/fakeworld"
)

// odd is kscratch for somebody whose new files are nobody else's business.
func odd() {
	syscall.Umask(0o077)
	main()
}

// full is kscratch where no file can be larger than FULL bytes: to a program, a
// file system that is full at a chosen moment.
func full() {
	n, err := strconv.ParseUint(os.Getenv("FULL"), 10, 64)
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n})
	}
	if err != nil {
		panic(err)
	}
	main()
}

// process is a kscratch under way in a world.
type process struct {
	*exec.Cmd
	dir            string
	stdout, stderr bytes.Buffer
}

// begin starts a program with the world's cache and a role's build.
func begin(t *testing.T, dir, program string, env ...string) *process {
	t.Helper()
	p := &process{dir: dir, Cmd: exec.CommandContext(t.Context(), program, "image", "build", "--role", "master")}
	p.Dir, p.Stdout, p.Stderr = dir, &p.stdout, &p.stderr
	p.Env = append(append(os.Environ(), "KSCRATCH_CACHE="+filepath.Join(dir, "cache")), env...)
	must(t, p.Start())
	return p
}

// ends waits for a process and checks its exit code; -1 is death by a signal.
func (p *process) ends(t *testing.T, code int) {
	t.Helper()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := p.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s exited with %d, want %d\n%s", p.Path, got, code, p.stderr.String())
	}
}

// digest returns what a build that is done said of its disk image.
func (p *process) digest(t *testing.T) string {
	t.Helper()
	p.leaves(t, "master.manifest.json master.raw")
	line, _, _ := strings.Cut(p.stdout.String(), "\n")
	d, ok := strings.CutPrefix(line, "out/master.raw  sha256:")
	if !ok {
		t.Fatalf("kscratch says\n%s", p.stdout.String())
	}
	return d
}

// isWhole holds the disk image to its digest.
func (p *process) isWhole(t *testing.T, digest string) {
	t.Helper()
	f, err := os.Open(filepath.Join(p.dir, "out", "master.raw"))
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != digest {
		t.Errorf("the image has the digest %s, want %s", got, digest)
	}
}

// leaves checks what is in the output directory, that nothing is under way in
// the cache, and that no half of a lock is about.
func (p *process) leaves(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(names(t, filepath.Join(p.dir, "out")), " "); got != want {
		t.Errorf("the output directory has %q, want %q", got, want)
	}
	if got := names(t, filepath.Join(p.dir, "cache", "tmp")); len(got) > 0 {
		t.Errorf("the cache keeps %q", got)
	}
	for _, n := range names(t, p.dir) {
		if strings.HasPrefix(n, ".") {
			t.Errorf("%s is left", n)
		}
	}
}

// fails checks that a process ended with a code and one line that has a text.
func (p *process) fails(t *testing.T, code int, text string) {
	t.Helper()
	p.ends(t, code)
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "kscratch: ") || !strings.Contains(last, text) {
		t.Errorf("kscratch ended with %q, want %q in it", last, text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// names lists a directory; one that is not there is empty.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func world(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, fakeworld.Write(t.Context(), dir))
	return dir
}

// reference is the lock and the PKI of a world that has been built, and the
// digest of its image.
var reference struct {
	sync.Once
	files  []savedFile
	digest string
}

type savedFile struct {
	path string
	mode fs.FileMode
	body []byte
}

// built returns a new world with the lock and the PKI of the reference, and the
// digest that its image must have.
func built(t *testing.T) (dir, digest string) {
	t.Helper()
	reference.Do(func() {
		d := world(t)
		p := begin(t, d, "kscratch")
		p.ends(t, 0)
		reference.files = append(save(t, d, "pki"), save(t, d, "kscratch.lock")...)
		reference.digest = p.digest(t)
	})
	if reference.digest == "" {
		t.Fatal("the reference was not built")
	}
	dir = world(t)
	for _, f := range reference.files {
		at := filepath.Join(dir, f.path)
		if f.mode.IsDir() {
			must(t, os.Mkdir(at, f.mode.Perm()))
		} else {
			must(t, os.WriteFile(at, f.body, f.mode.Perm()))
		}
	}
	return dir, reference.digest
}

// save reads the files at and below a path of a directory.
func save(t *testing.T, dir, path string) (out []savedFile) {
	t.Helper()
	root := os.DirFS(dir)
	must(t, fs.WalkDir(root, path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := savedFile{path: p, mode: info.Mode()}
		if !d.IsDir() {
			f.body, err = fs.ReadFile(root, p)
		}
		out = append(out, f)
		return err
	}))
	return out
}

// The lock and the PKI decide about every byte: not the place, the time zone,
// the mask of new files, the number of processors, or what the cache has.
func TestSameLockSameBytes(t *testing.T) {
	dir, want := built(t)
	lock, err := os.ReadFile(filepath.Join(dir, "kscratch.lock"))
	must(t, err)
	p := begin(t, dir, "kscratch-odd", "TZ=Asia/Kathmandu", "LC_ALL=C", "GOMAXPROCS=1", "GOGC=20")
	p.ends(t, 0)
	if got := p.digest(t); got != want {
		t.Errorf("the same lock gave %s and %s", want, got)
	}
	after, err := os.ReadFile(filepath.Join(dir, "kscratch.lock"))
	must(t, err)
	if !bytes.Equal(lock, after) {
		t.Error("the lock was made anew")
	}
}

// Two builds at once, from nothing and into one directory, both succeed: one
// PKI, one lock, one image.
func TestTwoAtOnce(t *testing.T) {
	dir := world(t)
	a := begin(t, dir, "kscratch")
	b := begin(t, dir, "kscratch")
	b.ends(t, 0)
	a.ends(t, 0)
	if one, other := a.digest(t), b.digest(t); one != other {
		t.Errorf("one made %s, the other %s", one, other)
	}
	a.isWhole(t, a.digest(t))
}

// A build that is killed leaves no half of a file under a name that counts, and
// the next one is as good as if nothing had been.
func TestKilled(t *testing.T) {
	dir, want := built(t)
	for _, at := range []string{"cache/tmp/*", "out/.master.raw.*"} {
		p := begin(t, dir, "kscratch")
		p.until(t, at)
		must(t, p.Process.Kill())
		p.ends(t, -1)
		for _, n := range names(t, filepath.Join(dir, "out")) {
			if !strings.HasPrefix(n, ".") {
				t.Errorf("killed at %s, it left %s", at, n)
			}
		}
	}
	for _, n := range names(t, filepath.Join(dir, "cache", "tmp")) {
		// As old as a leftover must be to be swept.
		old := time.Now().Add(-time.Hour)
		must(t, os.Chtimes(filepath.Join(dir, "cache", "tmp", n), old, old))
	}
	p := begin(t, dir, "kscratch")
	p.ends(t, 0)
	if got := p.digest(t); got != want {
		t.Errorf("after two kills the image has %s, want %s", got, want)
	}
	p.isWhole(t, want)
}

// until waits until there is a file that a pattern matches.
func (p *process) until(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		must(t, err)
		if len(found) > 0 {
			return
		}
	}
	t.Fatalf("no %s came\n%s", pattern, p.stderr.String())
}

// Ctrl-C ends a build soon, wherever it is, and leaves nothing.
func TestInterrupted(t *testing.T) {
	t.Run("while writing", func(t *testing.T) {
		dir, _ := built(t)
		p := begin(t, dir, "kscratch")
		p.until(t, "out/.master.raw.*")
		must(t, p.Process.Signal(os.Interrupt))
		p.fails(t, exitInterrupted, "kscratch: interrupted")
		p.leaves(t, "")
	})
	t.Run("while fetching", func(t *testing.T) {
		dir, _ := built(t)
		p := begin(t, dir, "kscratch", stalling(t, dir, func(p string) bool { return strings.HasSuffix(p, "/bash_1.0-1_amd64.deb") })...)
		p.until(t, "asked")
		must(t, p.Process.Signal(os.Interrupt))
		p.fails(t, exitInterrupted, "kscratch: interrupted")
		p.leaves(t, "")
	})
	t.Run("while resolving", func(t *testing.T) {
		dir := world(t)
		p := begin(t, dir, "kscratch", stalling(t, dir, func(p string) bool { return strings.Contains(p, "/dists/trixie/main/") })...)
		p.until(t, "asked")
		must(t, p.Process.Signal(os.Interrupt))
		p.fails(t, exitInterrupted, "kscratch: interrupted")
		p.leaves(t, "")
		if slices.Contains(names(t, dir), "kscratch.lock") {
			t.Error("there is a lock")
		}
	})
}

// stalling serves the archive of a world over HTTP. A request that is chosen
// gets some bytes and then no more; the file "asked" in the world tells of it.
// The cluster file leaves the archive to the environment, which is returned.
func stalling(t *testing.T, dir string, chosen func(path string) bool) []string {
	t.Helper()
	file := filepath.Join(dir, fakeworld.ClusterFile)
	var kept []string
	for line := range strings.Lines(fakeworld.Cluster) {
		if !strings.Contains(line, "irror:") {
			kept = append(kept, line)
		}
	}
	must(t, os.WriteFile(file, []byte(strings.Join(kept, "")), 0o644))
	files := http.FileServerFS(os.DirFS(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !chosen(r.URL.Path) {
			files.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", "1000000")
		fmt.Fprint(w, "!<arch>\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("stalling: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "asked"), nil, 0o644); err != nil {
			t.Errorf("stalling: %v", err)
		}
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	return []string{
		"KSCRATCH_MIRROR=" + srv.URL + "/" + fakeworld.Archive,
		"KSCRATCH_SECURITY_MIRROR=" + srv.URL + "/" + fakeworld.Archive + "-security",
	}
}

// A full disk is told as such, wherever it happens, and leaves nothing.
func TestDiskFull(t *testing.T) {
	dir, _ := built(t)
	for _, tt := range []struct {
		bytes int
		text  string
	}{
		{4 << 10, "file too large"}, // packages, or what is fetched beside them
		{4 << 20, "file too large"}, // our own programs, on their way into the cache
		{256 << 20, "writing master.raw: preparing disk image: "},
	} {
		p := begin(t, dir, "kscratch-full", "FULL="+strconv.Itoa(tt.bytes))
		p.fails(t, exitOutput, tt.text)
		p.leaves(t, "")
	}
}
