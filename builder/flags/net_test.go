//go:build net

package flags

import (
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/gomod"
	"github.com/kscratch/kscratch/layers/kubernetes"
	"github.com/kscratch/kscratch/test/userstore"
)

// TestRealPrograms asks the programs of Kubernetes and etcd themselves.
// KSCRATCH_CACHE names the content store, kscratch's own if empty: an image
// needs the same programs, which take minutes to build.
func TestRealPrograms(t *testing.T) {
	store, err := userstore.Open()
	must(t, err)
	a := Asker{Store: store}
	real := realPrograms(t, a.Store)
	for _, tt := range []struct{ program, name, value, want string }{
		{"kubelet", "node-labels", "a=b", ""},
		{"kubelet", "v", "3", ""},
		{"kubelet", "node-label", "a=b", "node-label: is no flag of kubelet v1.36.3; did you mean node-labels?"},
		{"kubelet", "v", "three", `v: is refused by kubelet v1.36.3: invalid argument "three" for "-v, --v" flag: strconv.ParseUint: parsing "three": invalid syntax`},
		{"kubelet", "eviction-hard", "memory.available<100Mi", ""},
		{"kube-proxy", "v", "2", ""},
		{"kube-proxy", "log-json-split-streams", "true", "log-json-split-streams: is no flag of kube-proxy v1.36.3; did you mean log-json-split-stream?"},
		{"kube-apiserver", "audit-log-path", "-", ""},
		{"kube-apiserver", "audit-log-paht", "-", "audit-log-paht: is no flag of kube-apiserver v1.36.3; did you mean audit-log-path?"},
		{"kube-apiserver", "max-requests-inflight", "lots", `max-requests-inflight: is refused by kube-apiserver v1.36.3: invalid argument "lots" for "--max-requests-inflight" flag: strconv.ParseInt: parsing "lots": invalid syntax`},
		{"kube-controller-manager", "concurrent-gc-syncs", "3", ""},
		{"kube-controller-manager", "node-monitor-period", "5", `node-monitor-period: is refused by kube-controller-manager v1.36.3: invalid argument "5" for "--node-monitor-period" flag: time: missing unit in duration "5"`},
		{"kube-scheduler", "leader-elect", "maybe", `leader-elect: is refused by kube-scheduler v1.36.3: invalid argument "maybe" for "--leader-elect" flag: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{"kube-scheduler", "pod-max-in-unschedulable-pods-duration", "5m", ""},
		{"etcd", "quota-backend-bytes", "8589934592", ""},
		{"etcd", "quota-backend-byte", "1", "quota-backend-byte: is no flag of etcd v3.6.8; did you mean quota-backend-bytes?"},
		{"etcd", "snapshot-count", "few", `snapshot-count: is refused by etcd v3.6.8: invalid value "few" for flag -snapshot-count: parse error`},
	} {
		got, err := a.Check(t.Context(), real[tt.program], map[string]string{tt.name: tt.value})
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if text := strings.Join(text, "\n"); text != tt.want {
			t.Errorf("%s --%s=%s: got\n%s\nwant\n%s", tt.program, tt.name, tt.value, text, tt.want)
		}
	}
	for name, p := range real {
		if names, err := (&executable{Program: p, store: a.Store}).names(t.Context()); err != nil || len(names) < 50 {
			t.Errorf("%s lists %d flags, %v", name, len(names), err)
		}
	}
}

// TestOwnedFlagsExist: flags that are kscratch's are flags of the release.
func TestOwnedFlagsExist(t *testing.T) {
	store, err := userstore.Open()
	must(t, err)
	a := Asker{Store: store}
	for name, p := range realPrograms(t, a.Store) {
		e := &executable{Program: p, store: a.Store}
		defer e.close()
		known, err := e.names(t.Context())
		must(t, err)
		owned := ignition.OwnedBy(name)
		if len(owned) == 0 {
			t.Errorf("nothing of %s is owned", name)
		}
		for _, o := range owned {
			prefix, all := strings.CutSuffix(o.Flag, "*")
			there := slices.ContainsFunc(known, func(k string) bool { return k == o.Flag || all && strings.HasPrefix(k, prefix) })
			if o.Flag == "" || there {
				continue
			}
			if said, err := e.ask(t.Context(), "--"+o.Flag+"="); err != nil || said.Code != 0 { // not in the list, but taken
				t.Errorf("%s has no --%s: %s, %v", name, o.Flag, said.Errors, err)
			}
		}
	}
}

func realPrograms(t *testing.T, store *cache.Store) map[string]Program {
	t.Helper()
	const kube, etcd = "v1.36.3", "v3.6.8"
	goTool, err := exec.LookPath("go")
	must(t, err)
	build, log := gomod.Options{Go: goTool, Env: os.Environ()}, slog.New(slog.DiscardHandler)
	sources, err := kubernetes.Sources(store, []string{"cache", "modules"}, kubernetes.Options{Go: build, Log: log})
	must(t, err)
	tarball, err := kubernetes.Get(t.Context(), kube, log, sources...)
	must(t, err)
	blobs, err := kubernetes.Extract(t.Context(), store, tarball.Blob, "", "kubelet", "kube-proxy", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
	must(t, err)
	built, err := gomod.Build(t.Context(), store, gomod.Etcd(etcd), build)
	must(t, err)
	out := map[string]Program{"etcd": {"etcd", etcd, built["etcd"].Digest, built["etcd"].ReadCloser}}
	for name, b := range blobs {
		out[name] = Program{name, kube, b.Digest, b.ReadCloser}
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
