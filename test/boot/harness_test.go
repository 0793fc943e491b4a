package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kscratch/kscratch/builder/vm"
)

// startAgent runs the guest's agent with the host's bash, a socket in the
// place of the virtio port.
func startAgent(t *testing.T, conn *os.File) *exec.Cmd {
	t.Helper()
	script := agent
	for old, now := range map[string]string{
		"exec 3<>/dev/virtio-ports/" + shellPort: ":",
		"/run/kscratch-test.":                    t.TempDir() + "/",
	} {
		if !strings.Contains(script, old) {
			t.Fatalf("the agent has no %q", old)
		}
		script = strings.Replace(script, old, now, 1)
	}
	c := exec.Command("bash", "-c", script)
	c.ExtraFiles = []*os.File{conn}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func socketPair(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	return c, os.NewFile(uintptr(fds[1]), "theirs")
}

func TestShell(t *testing.T) {
	conn, theirs := socketPair(t)
	a := startAgent(t, theirs)
	s := newShell(conn)
	boot, err := s.wait(t.Context(), "")
	if err != nil || boot == "" {
		t.Fatalf("got %q, %v", boot, err)
	}
	for _, tc := range []struct{ script, want string }{
		{"echo hello", `0 "hello\n" ""`},
		{"echo out; echo err >&2; exit 3", `3 "out\n" "err\n"`},
		{"true", `0 "" ""`},
		{`printf 'a\0b\xff'`, `0 "a\x00b\xff" ""`},
		{"cat; read -r x 2>/dev/null <&3 || exit 9", `9 "" ""`}, // neither input nor our port
		{"x='a b'\nfor i in 1 2; do echo \"$x $i\"; done", `0 "a b 1\na b 2\n" ""`},
	} {
		r, err := s.run(t.Context(), tc.script)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%d %q %q", r.Code, r.Stdout, r.Stderr)
		if got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.script, got, tc.want)
		}
	}
	if r, err := s.run(t.Context(), "head -c 3000000 /dev/zero"); err != nil || len(r.Stdout) != 3000000 {
		t.Errorf("got %d bytes, %v", len(r.Stdout), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if r, err := s.run(ctx, "sleep 60"); err != nil || r.Code != 124 {
		t.Errorf("a command that is too slow: got %d, %v", r.Code, err)
	}
	if r, err := s.run(t.Context(), "echo still there"); err != nil || r.Stdout != "still there\n" {
		t.Errorf("after a timeout: got %q, %v", r.Stdout, err)
	}

	// Another agent is a guest that has restarted.
	begun := filepath.Join(t.TempDir(), "begun")
	c, err := s.send("touch "+begun+"; sleep 5", 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(begun); err != nil; _, err = os.Stat(begun) {
		time.Sleep(10 * time.Millisecond)
	}
	a.Process.Kill()
	a.Wait()
	b := startAgent(t, theirs)
	if _, ok := <-c; ok {
		t.Error("a restarted guest has answered")
	}
	if r, err := s.run(t.Context(), "echo again"); err != nil || r.Stdout != "again\n" {
		t.Errorf("after a restart: got %q, %v", r.Stdout, err)
	}
	theirs.Close()
	b.Process.Kill()
	b.Wait()
	if _, err := s.run(t.Context(), "true"); !errors.Is(err, errEnded) {
		t.Errorf("without a guest: got %v", err)
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add("1 0 =aGVsbG8K =\n")
	f.Add("ready 123\n")
	f.Add("1 x = =")
	f.Fuzz(func(t *testing.T, line string) {
		if id, _, err := parseResponse(line); err == nil && id == "" {
			t.Error("accepted without an id")
		}
	})
}

func TestIgnitionConfig(t *testing.T) {
	b, err := ignitionConfig(map[string]string{"/etc/x": "y"})
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Ignition struct{ Version string }
		Storage  struct {
			Files []struct {
				Path     string
				Mode     int
				Contents struct{ Source string }
			}
		}
		Systemd struct {
			Units []struct {
				Name, Contents string
				Enabled        bool
			}
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	f := c.Storage.Files
	if c.Ignition.Version != "3.3.0" || len(f) != 2 || f[0].Mode != 0o755 || f[1].Path != "/etc/x" || f[1].Contents.Source != "data:;base64,eQ==" {
		t.Errorf("got %+v", c)
	}
	if u := c.Systemd.Units; len(u) != 1 || !u[0].Enabled || u[0].Contents != agentUnit {
		t.Errorf("got %+v", u)
	}
}

func TestStages(t *testing.T) {
	got := Table(parseStamps(`Id=docker.service
ActiveEnterTimestampMonotonic=25000000

ActiveEnterTimestampMonotonic=0
Id=kubelet.service

InitRDTimestampMonotonic=1500000
UserspaceTimestampMonotonic=9000000
`))
	want := "   25.0 s  docker.service\n    1.5 s  initrd\n    9.0 s  systemd\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	lines := []vm.Line{
		{At: 5 * time.Second, Text: "EFI stub: loaded"},
		{At: 6500 * time.Millisecond, Text: "[    0.000000] Linux version 6.12"},
		{At: 7 * time.Second, Text: "[    1.000000] later"},
		{At: 9 * time.Second, Text: "[    1.500000] late on the console"},
	}
	if at, ok := kernelStart(lines); !ok || at != 6*time.Second {
		t.Errorf("kernel start is %v, %v", at, ok)
	}
	if _, ok := kernelStart(lines[:1]); ok {
		t.Error("a kernel start without a kernel")
	}
}

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "a")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, err := range []error{f.Truncate(64 << 20), write(f, "middle", 32<<20), write(f, "start", 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	im, err := Image{Raw: p}.Copy(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := im.Flip(32 << 20); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(im.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 64<<20 || string(b[:5]) != "start" || string(b[32<<20:32<<20+6]) != "liddle" {
		t.Errorf("copied %d bytes: %q, %q", len(b), b[:5], b[32<<20:32<<20+6])
	}
	var st syscall.Stat_t
	if err := syscall.Stat(im.Raw, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes of disk, %v", st.Blocks*512, err)
	}
}

func write(f *os.File, s string, off int64) error {
	_, err := f.WriteAt([]byte(s), off)
	return err
}
