//go:build foreign && net

package builder

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
)

// Debian's own etcd, wrapped into an image, runs in that image's files alone
// and serves. It is judged by the kernel, its dynamic linker and itself.
func TestDistroRuns(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	version := unpackEtcd(t, root)
	out, err := inRoot(t, root, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "etcd Version: "+version+"\n") {
		t.Fatalf("etcd --version: %v, %s", err, out)
	}
	client, peer := freeAddr(t), freeAddr(t)
	cmd := inRoot(t, root, "--data-dir=/data", "--log-level=error",
		"--listen-client-urls=http://"+client, "--advertise-client-urls=http://"+client,
		"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer, "--initial-cluster=default=http://"+peer)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	key, value := encoded("/registry/x"), encoded("wrapped")
	var put error
	for range 100 { // until it is up
		if _, put = ask(t, client, "put", fmt.Sprintf(`{"key":%q,"value":%q}`, key, value)); put == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if put != nil {
		t.Fatalf("putting: %v", put)
	}
	answer, err := ask(t, client, "range", fmt.Sprintf(`{"key":%q}`, key))
	var got struct{ Kvs []struct{ Value string } }
	if err != nil || json.Unmarshal(answer, &got) != nil || len(got.Kvs) != 1 || got.Kvs[0].Value != value {
		t.Errorf("getting: %v, %s, want the value %s", err, answer, value)
	}
}

// unpackEtcd makes the image twice, compares, and unpacks it with tar. It
// returns the version of etcd.
func unpackEtcd(t *testing.T, root string) string {
	t.Helper()
	s := Default()
	s.Components.Etcd.Sources = []string{"distro"}
	var ids []string
	for range 2 {
		o := releaseOptions(t, nil, nil)
		o.Now = time.Now()
		index, err := openDebian(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		version := upstreamVersion(index.Versions("etcd-server")[0])
		s.Components.Etcd.Version = "v" + version
		im, _, err := component(t.Context(), s, &Lock{}, "etcd", s.Components.Etcd, gomod.Recipe{}, opener(t.Context(), s, o), o)
		if err != nil {
			t.Fatal(err)
		}
		img, err := distroImage(t.Context(), s, &Lock{}, im, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range im.Packages {
			t.Logf("%s=%s", p.Name, p.Version)
		}
		t.Logf("%s, %d bytes", img.ID, img.Size())
		if ids = append(ids, string(img.ID)); len(ids) == 2 {
			untar(t, img.Layers()[0].Blob, root)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("made twice, the image is %s and %s", ids[0], ids[1])
	}
	return strings.TrimPrefix(s.Components.Etcd.Version, "v")
}

func untar(t *testing.T, b cache.Blob, root string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-x", "--no-same-owner", "-f", b.Path, "-C", root).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v, %s", err, out)
	}
}

// inRoot runs etcd with nothing but the files below root; a user that is not
// root does so in a user namespace.
func inRoot(t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/etcd", args...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// ask calls etcd's gateway (https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/).
func ask(t *testing.T, addr, call, body string) ([]byte, error) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://"+addr+"/v3/kv/"+call, "application/json", bytes.NewBufferString(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}
