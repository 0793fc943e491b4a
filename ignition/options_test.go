package ignition

import (
	"errors"
	"slices"
	"strings"
	"testing"

	proxyv1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/kscratch/kscratch/ignition/field"
)

func tree(t *testing.T, text string) (v any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func mapping(t *testing.T, text string) map[string]any {
	t.Helper()
	m, _ := tree(t, text).(map[string]any)
	return m
}

func lines(ps []field.Problem) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return strings.Join(out, "\n")
}

func TestConfigProblems(t *testing.T) {
	for _, tt := range []struct {
		name  string
		check func(map[string]any) []field.Problem
		in    string
		want  string
	}{
		{"nothing", KubeletConfigProblems, "{}", ""},
		{"good", KubeletConfigProblems, "{evictionHard: {memory.available: 100Mi}, featureGates: {NodeSwap: true}, authentication: {webhook: {cacheTTL: 1m}}, logging: {verbosity: 3}}", ""},
		{"typo", KubeletConfigProblems, "evictionHrad: {}", "evictionHrad: is no field of KubeletConfiguration; did you mean evictionHard?"},
		{"owned, and a typo beside it", KubeletConfigProblems, "{cgroupDriver: cgroupfs, podPidLimit: 1}",
			"cgroupDriver: may not be set: docker has the same one\npodPidLimit: is no field of KubeletConfiguration; did you mean podPidsLimit?"},
		{"owned below", KubeletConfigProblems, "authentication: {webhook: {enabled: false}, anonymous: {}}",
			"authentication.anonymous: may not be set: it follows from security\nauthentication.webhook.enabled: may not be set: it follows from security"},
		{"a field of its own", KubeletConfigProblems, "maxPods: 3", "maxPods: may not be set: it is kubelet.maxPods"},
		{"taken away with the rest", KubeletConfigProblems, "featureGates:",
			"featureGates: may not be removed: of featureGates.ExtendWebSocketsToKubelet, cri-dockerd cannot do without ExtendWebSocketsToKubelet=false; other gates go into kubelet.extraConfig.featureGates"},
		{"taken away though owned", KubeletConfigProblems, "staticPodPath:", "staticPodPath: may not be set: the control plane's manifests are there"},
		{"not a map", KubeletConfigProblems, "featureGates: [a]", "featureGates: want a mapping, found array"},
		{"proxy", ProxyConfigProblems, "{conntrack: {maxPerCore: 0}, iptables: {syncPeriod: 1m}}", ""},
		{"proxy's typo", ProxyConfigProblems, "conntrack: {maxPerCor: 0}", "conntrack.maxPerCor: is no field of KubeProxyConfiguration; did you mean maxPerCore?"},
		{"proxy's own", ProxyConfigProblems, "{mode: ipvs, clientConnection: {kubeconfig: /x, qps: 7}}",
			"clientConnection.kubeconfig: may not be set: kscratch writes it\nmode: may not be set: it is kubeProxy.mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lines(tt.check(mapping(t, tt.in))); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestOwnedKeysExist: each key that is kscratch's is one that the type has.
func TestOwnedKeysExist(t *testing.T) {
	for component, into := range map[string]any{"kubelet": new(kubeletv1.KubeletConfiguration), "kube-proxy": new(proxyv1.KubeProxyConfiguration)} {
		for _, o := range ownedBy[component] {
			var v any
			names := strings.Split(o.Key, ".")
			for _, name := range slices.Backward(names) {
				v = map[string]any{name: v}
			}
			if got := field.Decode(v, into); o.Key != "" && len(got) > 0 {
				t.Errorf("%s: %v", component, got)
			}
		}
	}
}

// TestOurOwnKeysAreOwned: what the rendered configuration says is either
// kscratch's, or the user may change it without breaking the node.
func TestOurOwnKeysAreOwned(t *testing.T) {
	changeable := []string{"imageGCHighThresholdPercent", "protectKernelDefaults", "authentication", "authorization", "featureGates", "clientConnection",
		"bindAddressHardFail", "conntrack", "enableProfiling", "iptables", "nftables"}
	for component, path := range map[string]string{"kubelet": "kubelet.yaml", "kube-proxy": "kube-proxy.yaml"} {
		for key := range mapping(t, string(rendered(t, testNode(Worker))[etcKubernetes+path].Body)) {
			owned := slices.ContainsFunc(ownedBy[component], func(o Owned) bool { return o.Key == key })
			if !owned && !slices.Contains(changeable, key) {
				t.Errorf("%s: we set %s, and the user may too", component, key)
			}
		}
	}
}

// TestConfigOverlay shows what of a configuration a user's part changes.
func TestConfigOverlay(t *testing.T) {
	n := testNode(Worker)
	n.Kubelet.MaxPods = 250
	n.Kubelet.Config = mapping(t, `
enforceNodeAllocatable: []
evictionHard: {memory.available: 200Mi, nodefs.available: 5%}
featureGates: {NodeSwap: true}
imageGCHighThresholdPercent: 90
logging: {verbosity: 3}
protectKernelDefaults: null
systemReserved: {cpu: 0s}
`)
	n.Proxy.Config = mapping(t, "conntrack: {maxPerCore: 0}\nclientConnection: {qps: 7}\nmetricsBindAddress: 0.0.0.0:10249\n")
	golden(t, "kubelet-extra.yaml", rendered(t, n)[etcKubernetes+"kubelet.yaml"].Body)
	golden(t, "kube-proxy-extra.yaml", rendered(t, n)[etcKubernetes+"kube-proxy.yaml"].Body)
}

func TestFlagProblems(t *testing.T) {
	for _, tt := range []struct{ component, name, value, want string }{
		{"kubelet", "node-labels", "a=b", ""},
		{"kubelet", "config", "/x", "config: may not be set: kscratch writes it"},
		{"kubelet", "max-pods", "3", "max-pods: may not be set: it is kubelet.maxPods"},
		{"kubelet", "help", "true", "help: may not be set: the program would print something and end"},
		{"kubelet", "--v", "2", "--v: is not the name of a flag; write it in lower case, without dashes before it"},
		{"kubelet", "cert_dir", "/x", "cert_dir: is not the name of a flag; write it in lower case, without dashes before it"},
		{"kubelet", "v", "2\n", "v: has a value that is not one line of text"},
		{"kube-proxy", "v", "2", ""},
		{"kube-proxy", "log-flush-frequency", "1s", ""},
		{"kube-proxy", "conntrack-min", "3", "conntrack-min: has no effect: kube-proxy ignores it beside its configuration file; use kubeProxy.extraConfig"},
		{"kube-proxy", "hostname-override", "x", "hostname-override: may not be set: kubelet.nodeNames decides it"},
		{"kube-apiserver", "audit-log-path", "-", ""},
		{"kube-apiserver", "secure-port", "1", "secure-port: may not be set: nodes, probes and the packet filter know it"},
		{"kube-apiserver", "requestheader-allowed-names", "x", "requestheader-allowed-names: may not be set: it is the cluster's PKI"},
		{"kube-apiserver", "enable-admission-plugins", "AlwaysPullImages,NodeRestriction", ""},
		{"kube-apiserver", "enable-admission-plugins", "AlwaysPullImages", "enable-admission-plugins: leaves out NodeRestriction, without which a node may change others; add it to the list"},
		{"kube-controller-manager", "leader-elect", "true", ""},
		{"kube-controller-manager", "cluster-cidr", "x", "cluster-cidr: may not be set: it is network.clusterCIDR"},
		{"kube-scheduler", "write-config-to", "x", "write-config-to: may not be set: the program would print something and end"},
		{"etcd", "quota-backend-bytes", "8", ""},
		{"etcd", "data-dir", "/x", "data-dir: may not be set: it is the directory that lasts, on the state partition"},
		{"etcd", "wal-dir", "/x", "wal-dir: may not be set: it lies in the directory that lasts"},
		{"etcd", "discovery-srv", "x", "discovery-srv: may not be set: it follows from etcd.members"},
		{"etcd", "listen-client-http-urls", "x", "listen-client-http-urls: may not be set: it follows from etcd.members"},
	} {
		got := lines(FlagProblems(tt.component, map[string]string{tt.name: tt.value}))
		if got != tt.want {
			t.Errorf("%s --%s: got\n%s\nwant\n%s", tt.component, tt.name, got, tt.want)
		}
	}
	if got := FlagProblems("etcd", map[string]string{"B": "", "A": ""}); len(got) != 2 || got[0].Path != "A" {
		t.Errorf("want two problems, sorted: %v", got)
	}
}

// TestUnitFlags: what systemd would change is quoted (systemd.service(5)).
func TestUnitFlags(t *testing.T) {
	got := strings.Join(unitFlags(map[string]string{
		"v": "2", "node-labels": "a=b,c/d=e", "percent": "5%", "dollar": "$HOME", "space": "a b", "quote": `"a" \b`, "empty": "",
	}), "\n")
	want := `"--dollar=$$HOME"
--empty=
--node-labels=a=b,c/d=e
"--percent=5%%"
"--quote=\"a\" \\b"
"--space=a b"
--v=2`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFlagsArrive(t *testing.T) {
	n := testNode(Master)
	n.Kubelet.Args = map[string]string{"node-labels": "a=b", "v": "2"}
	n.Proxy.Args = map[string]string{"v": "4"}
	n.ControlPlane.APIServerArgs = map[string]string{"audit-log-path": "-", "profiling": "true"}
	n.ControlPlane.ControllerManagerArgs = map[string]string{"concurrent-gc-syncs": "3"}
	n.Etcd.Args = map[string]string{"quota-backend-bytes": "8589934592"}
	got := rendered(t, n)
	for path, want := range map[string][]string{
		"/etc/systemd/system/kubelet.service":                       {" \\\n    --node-labels=a=b \\\n    --v=2\n"},
		"/etc/systemd/system/kube-proxy.service":                    {"--hostname-override=${KSCRATCH_NODE_NAME} \\\n    --v=4\n"},
		"/etc/kubernetes/manifests/kube-apiserver.yaml":             {"- --audit-log-path=-\n", "- --profiling=true\n"},
		"/etc/kubernetes/manifests/kube-controller-manager.yaml":    {"- --concurrent-gc-syncs=3\n", "- --profiling=false\n"},
		"/etc/kubernetes/manifests/etcd.yaml":                       {"- --quota-backend-bytes=8589934592\n"},
		"/etc/kubernetes/manifests/kube-scheduler.yaml":             {"- --leader-elect=false\n"},
		"/etc/systemd/system/docker.service.d/10-kscratch.conf":     {"LimitNOFILE=1000000"},
		"/etc/systemd/system/containerd.service.d/10-kscratch.conf": {"LimitNOFILE=1000000"},
	} {
		for _, w := range want {
			if body := string(got[path].Body); strings.Count(body, w) != 1 {
				t.Errorf("%s: want %q once in\n%s", path, w, body)
			}
		}
	}
}

// TestPatches shows the manifests that patches make.
func TestPatches(t *testing.T) {
	n := testNode(Master)
	n.Patches = []Patch{
		{"kube-scheduler", Strategic, tree(t, `
metadata: {annotations: {example.org/why: test}}
spec:
  containers:
    - name: kube-scheduler
      env: [{name: GOGC, value: "0s"}, {name: EMPTY, value: ""}]
      resources: {requests: {memory: 1Gi}}
      volumeMounts: [{name: extra, mountPath: /extra}]
  volumes:
    - {name: extra, emptyDir: {}}
  securityContext: {seccompProfile: {$patch: replace, type: Unconfined}}
`)},
		{"kube-scheduler", JSON, tree(t, `
- {op: test, path: /spec/containers/0/name, value: kube-scheduler}
- {op: add, path: /spec/containers/0/command/-, value: --v=3}
- {op: replace, path: /spec/containers/0/startupProbe/failureThreshold, value: 500}
- {op: remove, path: /metadata/labels/tier}
`)},
		{"etcd", JSON, tree(t, "[{op: add, path: /spec/terminationGracePeriodSeconds, value: 60}]")},
	}
	got, plain := rendered(t, n), rendered(t, testNode(Master))
	golden(t, "kube-scheduler-patched.yaml", got[manifestDir+"/kube-scheduler.yaml"].Body)
	if want := strings.Replace(string(plain[manifestDir+"/etcd.yaml"].Body), "  volumes:", "  terminationGracePeriodSeconds: 60\n  volumes:", 1); string(got[manifestDir+"/etcd.yaml"].Body) != want {
		t.Errorf("etcd: got\n%s", got[manifestDir+"/etcd.yaml"].Body)
	}
	for path, e := range plain {
		if !strings.HasSuffix(path, "etcd.yaml") && !strings.HasSuffix(path, "kube-scheduler.yaml") && string(got[path].Body) != string(e.Body) {
			t.Errorf("%s has changed", path)
		}
	}
}

func TestBadPatches(t *testing.T) {
	const broken = "makes a pod that does not start: "
	for _, tt := range []struct{ name, kind, patch, want string }{
		{"typo", Strategic, "spec: {containers: [{name: etcd}, {nam: x}]}", "spec.containers[1].nam: is no field of Pod; did you mean name?"},
		{"type", Strategic, "spec: {hostNetwork: maybe}", "spec.hostNetwork: want true or false, found string"},
		{"not a mapping", Strategic, "[a]", "is not a mapping; write the part of the pod that is to change, as YAML without quotes or |"},
		{"text", Strategic, "'spec: {}'", "is not a mapping; write the part of the pod that is to change, as YAML without quotes or |"},
		{"directive", Strategic, "spec: {volumes: [{$patch: nosuch, name: data}]}", "unknown patch type: nosuch in map: map[$patch:nosuch name:data]"},
		{"secret", Strategic, "spec: {volumes: [{name: x, secret: {secretName: s}}]}",
			broken + "spec.volumes[0].secret refers to a Secret, which a static pod may not; use a file of the node by way of hostPath"},
		{"account", JSON, "[{op: add, path: /spec/serviceAccountName, value: x}]",
			broken + "spec.serviceAccountName refers to a ServiceAccount, which a static pod may not; use a file of the node by way of hostPath"},
		{"renamed", Strategic, "metadata: {name: other}", broken + "metadata the pod has another kind, name or namespace; leave apiVersion, kind, metadata.name and metadata.namespace alone"},
		{"volume gone", Strategic, "spec: {volumes: [{name: data, $patch: delete}]}", broken + "spec.containers[0].volumeMounts[1] names the volume data, which is not there"},
		{"wrong pod", JSON, "[{op: add, path: /spec/nosuch, value: 1}]", broken + "spec.nosuch is no field of Pod"},
		{"no such place", JSON, "[{op: add, path: /spec/hostname, value: x}, {op: remove, path: /spec/nosuch}]",
			"[1]: error in remove for path: '/spec/nosuch': Unable to remove nonexistent key: nosuch: missing value"},
		{"no such operation", JSON, "[{op: ad, path: /a}]", `[0].op: "ad" is not known; use one of add, remove, replace, move, copy, test`},
		{"no such key", JSON, "[{op: add, pth: /a}]", "[0].pth: is no field of operation; did you mean path?"},
		{"no pointer", JSON, "[{op: add, path: spec}]", `[0].path: "spec" is not a JSON pointer into the pod; begin it with /`},
		{"not a list", JSON, "{op: add}", "is not a list; write a list of operations such as {op: add, path: /spec/hostname, value: x}"},
		{"nothing", JSON, "", "is not a list; write a list of operations such as {op: add, path: /spec/hostname, value: x}"},
		{"no such type", "yaml", "{}", `type "yaml" is not known`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := testNode(Master)
			n.Patches = []Patch{{"kube-scheduler", JSON, []any{}}, {"etcd", tt.kind, tree(t, tt.patch)}}
			_, err := Butane(n)
			var bad *PatchError
			if !errors.As(err, &bad) || bad.Index != 1 || bad.Target != "etcd" {
				t.Fatalf("got %v", err)
			}
			if got := lines(bad.Problems); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	n := testNode(Master)
	n.Patches = []Patch{{Target: "kube-proxy", Type: JSON}}
	if _, err := Butane(n); err == nil || !strings.Contains(err.Error(), `patch 0: no static pod "kube-proxy"`) {
		t.Errorf("got %v", err)
	}
}

func FuzzPatch(f *testing.F) {
	f.Add("strategic", []byte("spec: {volumes: [{name: data, $patch: delete}], containers: [{name: etcd, $retainKeys: [name]}]}"))
	f.Add("strategic", []byte("$patch: replace"))
	f.Add("json", []byte("[{op: move, from: /spec, path: /spec/containers/0}]"))
	f.Add("json", []byte("[{op: add, path: /spec/containers/-1, value: {}}, {op: copy, from: '', path: /a}]"))
	pod, err := fields(staticPod{name: "etcd", image: "e:1", cpu: "1", memory: "1Gi"}.pod())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		var v any
		if yaml.Unmarshal(b, &v) != nil {
			return
		}
		if out, bad := (Patch{"etcd", kind, v}).apply(pod); len(bad) == 0 {
			checkPatched(out, "etcd")
		}
	})
}
