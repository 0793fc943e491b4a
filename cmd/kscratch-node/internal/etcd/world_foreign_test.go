//go:build foreign && net

package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/cmd/internal/etcdadmin"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers/gomod"
	"github.com/kscratch/kscratch/test/userstore"
)

// version is that of the etcd under test, the default of cluster files.
const version = "v3.6.8"

// What this program is, by its environment: the test outside of its network
// (none is set), the test inside, or a master with this root directory.
const (
	insideEnv = "KSCRATCH_TEST_INSIDE"
	masterEnv = "KSCRATCH_TEST_MASTER"
	etcdEnv   = "KSCRATCH_TEST_ETCD"
)

// TestMain runs the tests in a network of their own, a switch at 192.0.2.254.
func TestMain(m *testing.M) {
	runtime.LockOSThread() // whose end would kill what it started
	if root := os.Getenv(masterEnv); root != "" {
		fatal(runMaster(root, os.Getenv(etcdEnv)))
	}
	if os.Getenv(insideEnv) != "" {
		fatal(ip("link set lo up", "link add br0 type bridge", "addr add 192.0.2.254/24 dev br0", "link set br0 up"))
		os.Exit(m.Run())
	}
	cmd := self(insideEnv + "=1")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	fatal(err)
	os.Exit(0)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// self is this program in a new network, which takes root.
func self(env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func ip(commands ...string) error {
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}

// runMaster is a master: kscratch-node's own code, and a loop in the place of
// the kubelet. Its root directory is on its disk.
func runMaster(root, etcd string) error {
	address, err := os.ReadFile(filepath.Join(root, "address"))
	if err != nil {
		return err
	}
	for range 100 { // the switch plugs the cable in
		if err = ip("link show eth0"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := errors.Join(err, ip("link set lo up", "addr add "+string(address)+"/24 dev eth0", "link set eth0 up")); err != nil {
		return err
	}
	failed := make(chan error)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() {
		failed <- Run(context.Background(), Options{Root: root, Interval: 300 * time.Millisecond, Repeat: 2 * time.Second, Log: log})
	}()
	go func() {
		runtime.LockOSThread()
		failed <- kubelet(root, etcd)
	}()
	return <-failed
}

// kubelet runs the pod of etcd as long as its manifest is there.
func kubelet(root, etcd string) error {
	out, err := os.Create(filepath.Join(root, "etcd.log"))
	if err != nil {
		return err
	}
	var running []byte
	var cmd *exec.Cmd
	ended := make(chan error, 1)
	for {
		manifest, err := os.ReadFile(filepath.Join(root, firstboot.EtcdManifestPath))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if cmd != nil && !bytes.Equal(manifest, running) {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			<-ended
			cmd = nil
		}
		if cmd == nil && manifest != nil {
			if cmd, err = podCommand(root, etcd, manifest); err != nil {
				return err
			}
			cmd.Stdout, cmd.Stderr, running = out, out, manifest
			if err := cmd.Start(); err != nil {
				return err
			}
			go func(c *exec.Cmd) { ended <- c.Wait() }(cmd)
		}
		select {
		case <-ended:
			cmd = nil
			time.Sleep(time.Second)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// podCommand is what the pod of etcd runs, with the paths of this machine.
func podCommand(root, etcd string, manifest []byte) (*exec.Cmd, error) {
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(manifest, &pod); err != nil {
		return nil, err
	}
	c := pod.Spec.Containers[0]
	cmd := exec.Command(etcd)
	for _, a := range c.Command[1:] {
		cmd.Args = append(cmd.Args, strings.Replace(a, "=/", "="+root+"/", 1))
	}
	cmd.Env = []string{}
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// program builds a program of etcd's, or takes it from the store.
func program(t *testing.T, r gomod.Recipe, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := install(t.Context(), r, name, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func install(ctx context.Context, r gomod.Recipe, name, path string) error {
	store, err := userstore.Open()
	if err != nil {
		return err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return err
	}
	blobs, err := gomod.Build(ctx, store, r, gomod.Options{Go: goTool, Env: os.Environ()})
	if err != nil {
		return err
	}
	from, err := blobs[name].Open()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// world is masters in a network of their own, each in one of its own in turn.
type world struct {
	t       *testing.T
	etcd    string // program
	masters map[string]*master
	admin   etcdadmin.Cluster
}

type master struct {
	w           *world
	self        firstboot.EtcdMember
	root        string
	cmd         *exec.Cmd // of this boot; nil: off
	stateBefore []byte    // the last restore
}

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, etcd: program(t, gomod.Etcd(version), "etcd"), masters: map[string]*master{}}
	var members []firstboot.EtcdMember
	o := pki.Options{Cluster: "test", Domain: "cluster.local", ServiceIP: netip.MustParseAddr("10.96.0.1"), Now: time.Now(), Rand: rand.Reader}
	for i, name := range names {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		members = append(members, firstboot.EtcdMember{Name: name, Address: a})
		o.EtcdSANs = append(o.EtcdSANs, a.String())
	}
	keys := filepath.Join(t.TempDir(), "pki")
	if err := pki.New(keys, o); err != nil {
		t.Fatal(err)
	}
	set, err := pki.Load(keys)
	if err != nil {
		t.Fatal(err)
	}
	_, report, err := ignition.Ignition(ignition.Node{
		Role: ignition.Master, PKI: set, Etcd: ignition.Etcd{Members: members},
		Images: ignition.Images{Pause: "p:1", Etcd: "e:1", APIServer: "a:1", ControllerManager: "c:1", Scheduler: "s:1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		w.masters[m.Name] = w.install(m, report)
	}
	pair, authority, err := pki.EtcdClient(keys, memberapi.Operator, o)
	if err != nil {
		t.Fatal(err)
	}
	w.admin = etcdadmin.Cluster{Members: members, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if w.admin.TLS, err = memberapi.TLS(authority, pair); err != nil {
		t.Fatal(err)
	}
	return w
}

// install writes what the image has into a master's root directory.
func (w *world) install(self firstboot.EtcdMember, r ignition.Report) *master {
	m := &master{w: w, self: self, root: filepath.Join(w.t.TempDir(), self.Name)}
	files := map[string][]byte{"address": []byte(self.Address.String()), "dev/console": nil}
	for _, e := range r.Entries {
		if strings.HasPrefix(e.Path, "/etc/kscratch/") || strings.HasPrefix(e.Path, "/etc/kubernetes/pki/etcd/") {
			files[e.Path] = e.Body
		}
	}
	for name, body := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(m.path(name)), 0o755), os.WriteFile(m.path(name), body, 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(func() {
		m.kill()
		if w.t.Failed() {
			for _, name := range []string{"log", "etcd.log", "var/lib/etcd/" + stateFile} {
				b, _ := os.ReadFile(m.path(name)) // may not be there
				w.t.Logf("%s of %s:\n%s", name, self.Name, b[max(0, len(b)-6000):])
			}
		}
	})
	return m
}

func (m *master) path(name string) string { return filepath.Join(m.root, name) }

// boot switches the machine on: /run is empty, and so is the console. The
// kubelet's manifest of the last boot is what kscratch-etcd.service removes.
func (m *master) boot() {
	m.w.t.Helper()
	for _, err := range []error{
		os.RemoveAll(m.path("run")), os.Truncate(m.path("dev/console"), 0), os.RemoveAll(m.path(firstboot.EtcdManifestPath)),
	} {
		if err != nil {
			m.w.t.Fatal(err)
		}
	}
	log, err := os.Create(m.path("log"))
	if err != nil {
		m.w.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = self(masterEnv+"="+m.root, etcdEnv+"="+m.w.etcd)
	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		m.w.t.Fatal(err)
	}
	port := "port-" + m.self.Name
	// A network goes some time after its last process, and its cards with it.
	m.eventually("cable", func() error {
		return ip("link add "+port+" type veth peer name eth0 netns "+strconv.Itoa(m.cmd.Process.Pid), "link set "+port+" master br0 up")
	})
}

// kill takes the power away: kscratch-node and etcd end at once.
func (m *master) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // killed
	m.cmd = nil
	_ = ip("link del port-" + m.self.Name) // it may have gone with the network
}

// loseDisk puts a new disk in.
func (m *master) loseDisk() {
	m.w.t.Helper()
	if err := os.RemoveAll(m.path("var")); err != nil {
		m.w.t.Fatal(err)
	}
}

// eventually tries something until it works.
func (m *master) eventually(what string, try func() error) {
	m.w.t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 90*time.Second; time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	m.w.t.Fatalf("%s: %s: not in time: %v", m.self.Name, what, err)
}

func (m *master) endpoint() string {
	return netip.AddrPortFrom(m.self.Address, memberapi.ClientPort).String()
}

// client does something with the etcd of one master.
func (m *master) client(do func(context.Context, *clientv3.Client) error) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + m.endpoint()}, TLS: m.w.admin.TLS.Clone(), Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(m.w.t.Context(), 3*time.Second)
	defer cancel()
	return do(ctx, c)
}

// answers waits until the master's etcd does, with a majority behind it.
func (m *master) answers() {
	m.w.t.Helper()
	start := time.Now()
	m.eventually("etcd answers", func() error {
		return m.client(func(ctx context.Context, c *clientv3.Client) error { _, err := c.Get(ctx, "x"); return err })
	})
	m.w.t.Logf("etcd of %s answers after %.1f s", m.self.Name, time.Since(start).Seconds())
}

// listens reports whether the master's etcd takes connections.
func (m *master) listens() bool {
	return (&peers{self: m.self}).listening(m.w.t.Context())
}

// silentAfter returns an address whose connections go to another, and have a
// number of bytes from there. Then nothing comes, and they stay open.
func (w *world) silentAfter(to string, bytes int64) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			w.t.Cleanup(func() { from.Close(); there.Close() })
			go func() {
				_, _ = io.Copy(there, from)
				there.Close()
			}()
			go func() { _, _ = io.CopyN(from, there, bytes) }()
		}
	}()
	return l.Addr().String()
}

func (w *world) allAnswer() {
	w.t.Helper()
	for _, m := range w.masters {
		m.answers()
	}
}

// put writes by way of whichever master can.
func (w *world) put(key, value string) {
	w.t.Helper()
	w.any(func(ctx context.Context, c *clientv3.Client) error { _, err := c.Put(ctx, key, value); return err })
}

// has compares what every master that runs has under a key.
func (w *world) has(key, want string) {
	w.t.Helper()
	for _, m := range w.masters {
		m.eventually("reading "+key, func() error {
			return m.client(func(ctx context.Context, c *clientv3.Client) error {
				r, err := c.Get(ctx, key)
				got := ""
				if err == nil && len(r.Kvs) > 0 {
					got = string(r.Kvs[0].Value)
				}
				if err == nil && got != want {
					err = fmt.Errorf("%s is %q, want %q", key, got, want)
				}
				return err
			})
		})
	}
}

func (w *world) clusterID() (id uint64) {
	w.t.Helper()
	w.any(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.MemberList(ctx)
		if err == nil {
			id = r.Header.ClusterId
		}
		return err
	})
	return id
}

// any does something with the first master that can.
func (w *world) any(do func(context.Context, *clientv3.Client) error) {
	w.t.Helper()
	var errs error
	for range 30 {
		errs = nil
		for _, m := range w.masters {
			if m.cmd == nil {
				continue
			}
			err := m.client(do)
			if err == nil {
				return
			}
			errs = errors.Join(errs, err)
		}
	}
	w.t.Fatal(errs)
}
