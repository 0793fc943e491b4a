//go:build net

package apt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/fetch"
)

// role is the package list of a node.
const role = `systemd systemd-sysv udev dbus systemd-resolved systemd-timesyncd docker.io docker-cli containerd
	runc iptables nftables iproute2 kmod conntrack ethtool socat ignition systemd-boot systemd-boot-efi systemd-repart
	systemd-cryptsetup cryptsetup-bin e2fsprogs dosfstools linux-image-cloud-amd64 ca-certificates mount util-linux bash
	coreutils netbase libpam-systemd`

// lists are resolved by us and by apt. The later ones have choices between
// alternatives and long closures.
var lists = []string{
	role,
	"mail-transport-agent- exim4-daemon-light mailutils",
	"python3-pip nginx postgresql",
	"build-essential git default-jre-headless",
}

// TestHostMirror resolves package lists against the mirror of this machine and
// compares with what apt-get makes of them, from the same indexes. Those of
// the role are downloaded and unpacked too.
//
// KSCRATCH_CACHE names a content store to use instead of an empty one.
func TestHostMirror(t *testing.T) {
	m, err := apt.HostMirror("/")
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("KSCRATCH_CACHE")
	if dir == "" {
		dir = t.TempDir()
	}
	store, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	x, err := apt.Open(t.Context(), store, m, time.Now(), apt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("read the indexes in %v", time.Since(start))
	for _, r := range x.Releases {
		t.Logf("%s %s of %s, %s, signed by %v", r.Suite, r.Version, r.Date, r.Digest, r.Signers)
	}
	root := newAptRoot(t, m)
	for _, names := range lists {
		t.Run(strings.Join(strings.Fields(names)[:1], " "), func(t *testing.T) {
			start := time.Now()
			ps, err := x.Resolve(strings.Fields(names))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("resolved %d packages in %v", len(ps), time.Since(start))
			var got []string
			for _, p := range ps {
				got = append(got, p.String())
			}
			slices.Sort(got)
			want := root.simulate(t, strings.Fields(names))
			if !slices.Equal(got, want) {
				t.Errorf("not what apt-get picks:\nonly ours:\n\t%s\nonly apt's:\n\t%s", minus(got, want), minus(want, got))
			}
		})
	}
	ps, err := x.Resolve(strings.Fields(role))
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, store, m, ps)
}

// unpack fetches and unpacks packages and merges them into one tree.
func unpack(t *testing.T, store *cache.Store, m apt.Mirror, ps []apt.Package) {
	ls := make([]layers.Layer, len(ps))
	g, ctx := errgroup.WithContext(context.Background())
	g.SetLimit(runtime.NumCPU())
	start := time.Now()
	for i, p := range ps {
		g.Go(func() error {
			b, err := m.Fetch(ctx, fetch.Options{}, store, p)
			if err != nil {
				return err
			}
			d, err := deb.Layer(ctx, store, b, p.String(), deb.Options{})
			if err == nil {
				ls[i] = d.Layer
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("fetched and unpacked %d packages in %v", len(ps), time.Since(start))
	start = time.Now()
	tree, err := layers.Merge(ls...)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Check(); err != nil {
		t.Error(err)
	}
	t.Logf("merged %d files in %v", tree.Len(), time.Since(start))
}

func minus(a, b []string) string {
	a = slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	return strings.Join(a, "\n\t")
}

// aptRoot is a configuration of apt for trixie with nothing installed.
type aptRoot string

func newAptRoot(t *testing.T, m apt.Mirror) aptRoot {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := filepath.Glob("keys/*.asc")
	if err != nil || len(keys) != 3 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	var trusted []byte
	for _, k := range keys {
		b, err := os.ReadFile(k)
		if err != nil {
			t.Fatal(err)
		}
		trusted = append(trusted, b...)
	}
	source := func(url, suite string) string {
		return fmt.Sprintf("deb [signed-by=%s/trusted.asc] %s %s main\n", dir, url, suite)
	}
	write := map[string]string{
		"trusted.asc":         string(trusted),
		"var/lib/dpkg/status": "",
		"etc/apt/sources.list": source(m.Archive, "trixie") + source(m.Archive, "trixie-updates") +
			source(m.Security, "trixie-security"),
		"apt.conf": fmt.Sprintf("Dir %q;\nDir::State::status \"%s/var/lib/dpkg/status\";\nAPT::Architecture \"amd64\";\n"+
			"APT::Architectures { \"amd64\"; };\nAPT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"\";\n", dir, dir),
	}
	for p, text := range write {
		if err := os.WriteFile(filepath.Join(dir, p), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	aptRoot(dir).run(t, "update")
	return aptRoot(dir)
}

func (r aptRoot) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+string(r)+"/apt.conf", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("apt-get %v: %v\n%s", args, err, out)
	}
	return string(out)
}

var inst = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `)

// simulate returns what apt-get would install, as "name=version", sorted.
func (r aptRoot) simulate(t *testing.T, names []string) []string {
	t.Helper()
	out := r.run(t, append([]string{"-s", "install", "--no-install-recommends"}, names...)...)
	var got []string
	for _, m := range inst.FindAllStringSubmatch(out, -1) {
		got = append(got, m[1]+"="+m[2])
	}
	slices.Sort(got)
	return got
}
