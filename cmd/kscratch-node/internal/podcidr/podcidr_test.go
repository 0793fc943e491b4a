package podcidr

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The loopback interface is a bridge that already has its address: its
// cluster is 127.0.0.0/8, its pod CIDR the same. Other CIDRs of the table end
// before the bridge is waited for.
const config = `{"role":"master","clusterCIDR":"127.0.0.0/8","serviceCIDR":"10.96.0.0/12","bridge":"lo",
 "dockerDataRoot":"/var/lib/docker","health":{"kubelet":"http://127.0.0.1:10248/healthz","ca":"/ca.crt"}}`

const good, other, bad = "127.0.0.0/8", "127.1.0.0/16", "10.244.1.7/24"

const (
	unit      = "run/credentials/kscratch-pod-cidr.service/kscratch.pod-cidr"
	system    = "run/credentials/@system/kscratch.pod-cidr"
	encrypted = "run/credentials/@encrypted/kscratch.pod-cidr"
	efi       = "efi/loader/credentials/kscratch.pod-cidr.cred"
	boot      = "boot/loader/credentials/kscratch.pod-cidr.cred"
	cmdline   = "proc/cmdline"
)

// tree makes a root with files, given as path and content in turn.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "etc/kscratch/node.json", config)
	put(t, dir, "dev/console", "")
	put(t, dir, cmdline, "ro quiet\n")
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

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func options(dir string) Options {
	return Options{
		Root: dir, Credentials: "/run/credentials/kscratch-pod-cidr.service",
		Interval: 10 * time.Millisecond, Repeat: 50 * time.Millisecond, BridgeWait: 100 * time.Millisecond,
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string // source of the value, or what is said while waiting
	}{
		{"unit", []string{unit, good + "\n", system, bad, cmdline, "kscratch.pod_cidr=" + bad}, "systemd credential /" + unit},
		{"system", []string{system, good, encrypted, bad, cmdline, "kscratch.pod_cidr=" + bad}, "systemd credential /" + system},
		{"ESP by the stub", []string{encrypted, good + "\r\n", cmdline, "kscratch.pod_cidr=" + bad}, "systemd credential /" + encrypted},
		{"kernel", []string{cmdline, `x="a b" kscratch.pod_cidr=` + good, userPath, bad}, "kernel argument kscratch.pod_cidr="},
		{"kernel, quoted", []string{cmdline, `kscratch.pod-cidr="` + good + `"`}, "kernel argument kscratch.pod_cidr="},
		{"user", []string{userPath, good, rememberedPath, bad}, "file /" + userPath},
		{"remembered", []string{rememberedPath, good}, "the value remembered in /" + rememberedPath},
		{"mounted ESP", []string{efi, good}, "systemd credential /" + efi},
		{"mounted ESP at /boot", []string{boot, good}, "systemd credential /" + boot},
		{"mounted ESP is newer than the stub's copy", []string{encrypted, bad, efi, good}, "systemd credential /" + efi},
		{"mounted ESP over a bad kernel argument", []string{cmdline, "kscratch.pod_cidr=x", efi, good}, "systemd credential /" + efi},
		{"mounted ESP is not looked at without need", []string{efi, bad, cmdline, "kscratch.pod_cidr=" + good}, "kernel argument kscratch.pod_cidr="},

		{"none", nil, "none was given. Give a range inside 127.0.0.0/8, such as 127.0.1.0/24, as systemd credential kscratch.pod-cidr"},
		{"bad does not fall through", []string{system, bad, rememberedPath, good},
			`bad value in systemd credential /` + system + `: "10.244.1.7/24" has host bits set: write the network address, 10.244.1.0/24. Lower sources are not used`},
		{"empty is bad", []string{cmdline, "kscratch.pod_cidr= ro", rememberedPath, good}, "bad value in kernel argument kscratch.pod_cidr=: it is empty"},
		{"outside", []string{userPath, "10.244.1.0/24"}, "bad value in file /" + userPath + ": 10.244.1.0/24 is not inside the cluster range 127.0.0.0/8"},
		{"remembered, of another cluster", []string{rememberedPath, "10.244.1.0/24"}, "bad value in the value remembered in /" + rememberedPath},
		{"long", []string{userPath, strings.Repeat("1.", 1<<16)}, "it has more than 65536 bytes"},
		{"not a file", []string{userPath + "/x", ""}, "bad value in file /" + userPath + ": read "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, c.files...)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			n, err := Run(ctx, options(dir))
			got := n.Source
			if err != nil {
				got = read(t, dir, "dev/console")
			}
			if !strings.Contains(got, c.want) || (err == nil) != (got == c.want) {
				t.Errorf("got %s, %v\nwant %s", got, err, c.want)
			}
			if _, serr := os.Stat(filepath.Join(dir, envPath)); (serr == nil) != (err == nil) {
				t.Errorf("node.env: %v after %v", serr, err)
			}
		})
	}
}

// TestResult looks at everything that a successful run leaves behind.
func TestResult(t *testing.T) {
	dir := tree(t, system, good)
	var host string
	o := options(dir)
	o.SetHostname = func(b []byte) error { host = string(b); return nil }
	n, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s %s %s", n.Name, n.Pod, n.Bridge, host)
	if want := "master-127-0-0-0 127.0.0.0/8 127.0.0.1/8 master-127-0-0-0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, want := range map[string]string{
		rememberedPath: "127.0.0.0/8\n",
		namePath:       "master-127-0-0-0\n",
		envPath:        "KSCRATCH_NODE_NAME=master-127-0-0-0\nKSCRATCH_POD_CIDR=127.0.0.0/8\nKSCRATCH_BRIDGE_ADDRESS=127.0.0.1/8\n",
		"run/systemd/network/50-lo.network.d/10-pod-cidr.conf": "[Network]\nAddress=127.0.0.1/8\n",
		"dev/console": "",
	} {
		if got := read(t, dir, name); got != want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
	}
}

// TestOperatorHelps is the whole life of a waiting node: nothing, then a bad
// value, then a good one put on the mounted ESP.
func TestOperatorHelps(t *testing.T) {
	dir := tree(t)
	var log lockedBuffer
	o := options(dir)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	status := statusSocket(t, &o)
	done := make(chan error, 1)
	go func() { _, err := Run(t.Context(), o); done <- err }()
	console := func() string { return read(t, dir, "dev/console") }
	until(t, "none was given is repeated", func() bool { return strings.Count(console(), "none was given") == 3 })
	put(t, dir, cmdline, "kscratch.pod_cidr=banana")
	until(t, "the bad value is named", func() bool { return strings.Contains(console(), `"banana" is not a range`) })
	select {
	case err := <-done:
		t.Fatalf("went on: %v", err)
	default:
	}
	put(t, dir, efi, good+"\n")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(console()) {
		if !strings.HasPrefix(l, "kscratch: waiting for this node's pod CIDR: ") {
			t.Errorf("console: %q", l)
		}
	}
	if !strings.Contains(log.String(), "banana") {
		t.Errorf("log: %s", log.String())
	}
	if s := <-status; !strings.HasPrefix(s, "STATUS=waiting for this node's pod CIDR: none was given") {
		t.Errorf("status: %q", s)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("did not happen: %s", what)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// statusSocket plays the service manager; it passes on what it is told.
func statusSocket(t *testing.T, o *Options) <-chan string {
	t.Helper()
	o.NotifySocket = filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: o.NotifySocket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	out := make(chan string, 100)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			select {
			case out <- string(b[:n]):
			default:
			}
		}
	}()
	return out
}

func TestNewValueWins(t *testing.T) {
	dir := tree(t, system, good, rememberedPath, other+"\n", namePath, "master-127-1-0-0\n",
		"var/lib/kubelet/pki/kubelet-client-current.pem", "old", "var/lib/kubelet/kubeconfig", "old", "var/lib/kubelet/pods/x", "kept")
	var log bytes.Buffer
	o := options(dir)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, rememberedPath) + read(t, dir, namePath) + read(t, dir, "var/lib/kubelet/pods/x"); got != "127.0.0.0/8\nmaster-127-0-0-0\nkept" {
		t.Errorf("got %q", got)
	}
	for _, gone := range []string{"var/lib/kubelet/pki", "var/lib/kubelet/kubeconfig"} {
		if _, err := os.Stat(filepath.Join(dir, gone)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	for _, want := range []string{"the given value wins", "remembered=127.1.0.0/16", "was=master-127-1-0-0"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, log.String())
		}
	}
}

func TestKeepsCertificate(t *testing.T) {
	const cert = "var/lib/kubelet/pki/kubelet-client-current.pem"
	for _, name := range []string{"", "master-127-0-0-0\n"} {
		dir := tree(t, system, good, rememberedPath, good, cert, "mine")
		if name != "" {
			put(t, dir, namePath, name)
		}
		if _, err := Run(t.Context(), options(dir)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir, cert); got != "mine" {
			t.Errorf("remembered name %q: certificate is %q", name, got)
		}
	}
}

// script writes a program that appends its arguments to calls and then runs body.
func script(t *testing.T, body string) (path string, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "calls", "")
	put(t, dir, "prog", "#!/bin/sh\necho \"$@\" >>"+dir+"/calls\n"+body+"\n")
	path = filepath.Join(dir, "prog")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, func() string { return read(t, dir, "calls") }
}

// TestBridgeWithoutAddress has networkd in every state that stands in the way.
func TestBridgeWithoutAddress(t *testing.T) {
	for _, c := range []struct {
		name, bridge, state, body string
		calls, want               string
	}{
		{"networkd gives another", "lo", "x", "exit 0", "reload", "lo has no address 127.1.0.1/16 after 100ms: its addresses are [127.0.0.1/8"},
		{"no bridge", "none0", "x", "exit 0", "reload", "none0 has no address 127.1.0.1/16 after 100ms: route ip+net: no such network interface"},
		{"networkd is not there", "lo", "", "exit 0", "", "systemd-networkd is not running"},
		{"networkd refuses", "lo", "x", "echo one >&2; echo no bus >&2; exit 3", "reload", `reloading systemd-networkd: prog: exit status 3: "no bus"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, system, other, "etc/kscratch/node.json", strings.Replace(config, `"lo"`, `"`+c.bridge+`"`, 1))
			if c.state != "" {
				put(t, dir, networkdState, c.state)
			}
			o := options(dir)
			prog, calls := script(t, c.body)
			o.Networkctl = prog
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { _, err := Run(ctx, o); done <- err }()
			until(t, c.want, func() bool { return strings.Count(read(t, dir, "dev/console"), c.want) >= 2 })
			cancel()
			if err := <-done; err == nil || !strings.Contains(err.Error(), "canceled") {
				t.Errorf("got %v", err)
			}
			if got := calls(); !strings.HasPrefix(got, c.calls) || (c.calls == "" && got != "") {
				t.Errorf("networkctl was called with %q", got)
			}
			if _, err := os.Stat(filepath.Join(dir, envPath)); err == nil {
				t.Error("node.env is there without a bridge")
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, with string
		files      []string
		want       string
	}{
		{"derived", ``, nil, "master-127-0-0-0"},
		{"fixed", `"nodeName":"n1",`, nil, "n1"},
		{"DHCP", `"nodeNameFromDHCP":true,`, []string{leases + "/2", "ADDRESS=1.2.3.4\nHOSTNAME=Rack1-N7.example.com\nMTU=1500\n"}, "rack1-n7.example.com"},
		{"DHCP, lowest index", `"nodeNameFromDHCP":true,`,
			[]string{leases + "/10", "HOSTNAME=ten\n", leases + "/3", "HOSTNAME=three\n", leases + "/2", "ADDRESS=1.2.3.4\n"}, "three"},
		{"DHCP, no lease", `"nodeNameFromDHCP":true,`, nil, "waiting for this node's name from DHCP: no lease in /run/systemd/netif/leases has a host name"},
		{"DHCP, no name", `"nodeNameFromDHCP":true,`, []string{leases + "/2", "HOSTNAME=a b\n"}, `node name "a b" is not a DNS name`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, append([]string{system, good, "etc/kscratch/node.json", strings.Replace(config, `{`, `{`+c.with, 1)}, c.files...)...)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			n, err := Run(ctx, options(dir))
			if err != nil {
				n.Name = read(t, dir, "dev/console")
			}
			if !strings.Contains(n.Name, c.want) {
				t.Errorf("got %s, want %s", n.Name, c.want)
			}
		})
	}
}

func FuzzLeaseHost(f *testing.F) {
	f.Add("ADDRESS=1.2.3.4\nHOSTNAME=\"n1\"\n")
	f.Add("HOSTNAME")
	f.Fuzz(func(t *testing.T, s string) {
		if h := leaseHost(s); strings.ContainsAny(h, "\n") {
			t.Fatalf("%q", h)
		}
	})
}

func TestDecryption(t *testing.T) {
	secret := strings.Repeat("k6iUCUh0RJCQyvL8k8q1UyAAAAABAAAADAAAABAAAAD", 4) + "\n"
	for _, c := range []struct{ name, body, want string }{
		{"good", "cat >/dev/null; printf 127.0.0.0/8", good},
		{"bad inside", "cat >/dev/null; printf 127.0.0.1/8", `"127.0.0.1/8" has host bits set`},
		{"cannot", "echo 'no TPM' >&2; exit 1", `decrypting it: prog: exit status 1: "no TPM"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, encrypted, secret)
			prog, calls := script(t, c.body)
			o := options(dir)
			o.SystemdCreds, o.Repeat = prog, time.Hour
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			n, err := Run(ctx, o)
			got := n.Pod.String()
			if err != nil {
				got = read(t, dir, "dev/console")
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if calls() != "decrypt --name=kscratch.pod-cidr - -\n" {
				t.Errorf("systemd-creds was called with %q", calls())
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"bad configuration", []string{"etc/kscratch/node.json", "{}"}, "checking /etc/kscratch/node.json: role"},
		{"state is not writable", []string{system, good, "var/lib/kscratch", ""}, "var/lib/kscratch"},
		{"run is not writable", []string{system, good, "run/systemd", ""}, "writing /run/systemd/network/50-lo.network.d/10-pod-cidr.conf"},
	} {
		if _, err := Run(t.Context(), options(tree(t, c.files...))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := Run(t.Context(), Options{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "reading configuration: openat etc/kscratch/node.json") {
		t.Errorf("no configuration: %v", err)
	}
}

// TestNamedByCard: where the cluster gives pod CIDRs, a node waits for none
// and is named after its lowest hardware address.
func TestNamedByCard(t *testing.T) {
	auto := strings.Replace(config, `"bridge"`, `"podCIDRByCluster":true,"bridge"`, 1)
	dir := tree(t, "etc/kscratch/node.json", auto,
		"sys/class/net/lo/address", "00:00:00:00:00:00\n",
		"sys/class/net/br0/address", "02:00:00:00:00:01\n",
		"sys/class/net/ib0/address", "80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:8d:99:51\n", "sys/class/net/ib0/device/x", "",
		"sys/class/net/ens4/address", "52:54:00:ab:cd:02\n", "sys/class/net/ens4/device/x", "",
		"sys/class/net/ens3/address", "52:54:00:AB:CD:01\n", "sys/class/net/ens3/device/x", "")
	n, err := Run(t.Context(), options(dir))
	if err != nil || n.Name != "master-525400abcd01" || n.Pod.IsValid() {
		t.Errorf("got %+v, %v", n, err)
	}
	if got := read(t, dir, envPath); got != "KSCRATCH_NODE_NAME=master-525400abcd01\n" {
		t.Errorf("node.env is %q", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	dir = tree(t, "etc/kscratch/node.json", auto)
	_, err = Run(ctx, options(dir))
	if said := read(t, dir, "dev/console"); err == nil || !strings.Contains(said, "waiting for this node's name from its network card: /sys/class/net has no Ethernet card.") {
		t.Errorf("got %v; said %q", err, said)
	}
}
