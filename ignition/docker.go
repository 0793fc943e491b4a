package ignition

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/ignition/field"
)

// docker configures the daemon, containerd below it and their units. There
// is never a docker0, nor a rule of docker's in the packet filter: its bridge
// is ours, and kube-proxy owns the rules.
func docker(n Node) (part, error) {
	conf, err := daemonJSON(n)
	if err != nil {
		return part{}, err
	}
	// The drop-in lifts the distribution's limit of three starts a minute: a
	// node without its runtime is no use, so it keeps trying.
	unitLimits := fmt.Sprintf("LimitNOFILE=%d", n.Docker.NoFile)
	return part{
		files: []file{{"/etc/docker/daemon.json", 0o644, conf}},
		units: []unit{
			{name: "containerd.service", enabled: true, dropins: []dropin{{"10-kscratch.conf", ini(
				"[Unit]", "StartLimitIntervalSec=0",
				"[Service]", unitLimits,
			)}}},
			{name: "docker.service", enabled: true, dropins: []dropin{{"10-kscratch.conf", ini(
				"[Unit]",
				"Requires=kscratch-pod-cidr.service kscratch-images.service",
				"After=kscratch-pod-cidr.service kscratch-images.service",
				"RequiresMountsFor="+n.Docker.DataRoot,
				"StartLimitIntervalSec=0",
				"[Service]", unitLimits,
			)}}},
		},
	}, nil
}

// daemonJSON renders dockerd's configuration file. Each key is one of
// dockerd 26.1.5: it refuses to start with an unknown one, or with one that is
// on its command line too.
func daemonJSON(n Node) ([]byte, error) {
	d := n.Docker
	bridge := n.Network.Bridge
	if n.Network.Auto {
		bridge = "none" // kubenet makes it, and gives pods their addresses
	}
	conf := map[string]any{
		"bridge":              bridge,
		"data-root":           d.DataRoot,
		"exec-opts":           []string{"native.cgroupdriver=systemd"},
		"insecure-registries": append([]string{}, d.InsecureRegistries...), // [] rather than null
		"ip-masq":             d.IPMasq,
		"ip6tables":           false,
		"iptables":            false,
		"live-restore":        d.LiveRestore,
		"log-driver":          d.LogDriver,
		"mtu":                 n.Network.MTU,
		"storage-driver":      "overlay2", // the layout of the baked images
		"userland-proxy":      *d.UserlandProxy,
	}
	if d.LogDriver == "json-file" { // journald's limits are the journal's
		conf["log-opts"] = map[string]string{"max-size": d.LogMaxSize, "max-file": strconv.Itoa(d.LogMaxFiles)}
	}
	maps.Copy(conf, d.Options)
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing daemon.json: %w", err)
	}
	return append(b, '\n'), nil
}

// free and taken are every key of daemon.json that dockerd 26.1.5 knows on
// Linux (daemon/config and cmd/dockerd of moby). A free one may be set by the
// user; for a taken one the value says why not.
var (
	free = []string{
		"allow-nondistributable-artifacts", "api-cors-header", "authorization-plugins", "builder", "cdi-spec-dirs",
		"cgroup-parent", "containerd-namespace", "containerd-plugins-namespace", "cpu-rt-period", "cpu-rt-runtime", "debug",
		"default-address-pools", "default-cgroupns-mode", "default-ipc-mode", "default-network-opts",
		"default-runtime", "default-shm-size", "default-ulimits", "dns", "dns-opts", "dns-search", "experimental",
		"features", "host-gateway-ip", "icc", "init", "init-path", "ip", "ip-forward", "labels", "log-format",
		"log-level", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "metrics-addr",
		"network-control-plane-mtu", "network-diagnostic-port", "no-new-privileges", "node-generic-resources", "proxies",
		"raw-logs", "registry-mirrors", "runtimes", "seccomp-profile", "selinux-enabled", "shutdown-timeout",
		"storage-opts", "swarm-default-advertise-addr", "userland-proxy-path",
	}
	taken = map[string]string{
		"bip":                    perNode,
		"bridge":                 "it is network.bridge",
		"containerd":             onCommandLine,
		"cri-containerd":         onCommandLine,
		"data-root":              "it is docker.dataRoot",
		"default-gateway":        perNode,
		"default-gateway-v6":     noIPv6,
		"exec-opts":              "the kubelet needs the systemd cgroup driver",
		"exec-root":              "the units expect /run/docker",
		"fixed-cidr":             perNode,
		"fixed-cidr-v6":          noIPv6,
		"group":                  onCommandLine,
		"hosts":                  onCommandLine,
		"insecure-registries":    "it is docker.insecureRegistries",
		"ip-masq":                "it is docker.ipMasq",
		"ip6tables":              "kube-proxy owns the packet filter",
		"iptables":               "kube-proxy owns the packet filter",
		"ipv6":                   noIPv6,
		"live-restore":           "it is docker.liveRestore",
		"log-driver":             "it is docker.logDriver",
		"log-opts":               "it is docker.logMaxSize and docker.logMaxFiles",
		"mtu":                    "it is network.mtu",
		"pidfile":                "the units expect /run/docker.pid",
		"rootless":               "pods need a daemon with root's rights",
		"storage-driver":         "the baked images are laid out for overlay2",
		"tls":                    onSocketOnly,
		"tlscacert":              onSocketOnly,
		"tlscert":                onSocketOnly,
		"tlskey":                 onSocketOnly,
		"tlsverify":              onSocketOnly,
		"userland-proxy":         "it is docker.userlandProxy",
		"userns-remap":           "it moves the data root, where the baked images are",
		"containerd-snapshotter": "it belongs below features, and the baked images are laid out for overlay2",
	}
)

// Why a key is taken.
const (
	perNode       = "it follows from the node's pod CIDR"
	onCommandLine = "docker.service gives it on the command line"
	onSocketOnly  = "the daemon listens on a local socket only"
	noIPv6        = "the bridge has no IPv6"
)

// DockerOptionProblems returns what is wrong with a user's own keys of
// daemon.json: those that dockerd does not know, and those that are kscratch's.
func DockerOptionProblems(options map[string]any) []field.Problem {
	var out []field.Problem
	bad := func(path, msg, fix string) { out = append(out, field.Problem{Path: path, Msg: msg, Fix: fix}) }
	for _, k := range slices.Sorted(maps.Keys(options)) {
		why, isTaken := taken[k]
		switch {
		case isTaken:
			bad(k, "may not be set: "+why, "")
		case !slices.Contains(free, k):
			bad(k, "is unknown: dockerd 26.1 has no such key and would not start", field.DidYouMean(k, free))
		}
		if _, err := json.Marshal(options[k]); err != nil {
			bad(k, "is not a value of JSON: "+err.Error(), "")
		}
	}
	if n, at := field.Lookup(options, "features", "containerd-snapshotter"); n == 2 && at == true {
		bad("features.containerd-snapshotter", "may not be set: "+taken["storage-driver"], "")
	}
	return out
}

// criDocker runs cri-dockerd, through which the kubelet drives docker. With an
// empty network plugin docker itself gives pods their addresses on its bridge;
// kubenet does so in a range that the cluster has given the node. It learns
// that range from the kubelet once, so a new cri-dockerd wants a new kubelet.
func criDocker(n Node) (part, error) {
	network, after := []string{"--network-plugin="}, []string{}
	if n.Network.Auto {
		network = []string{
			"--network-plugin=kubenet", "--cni-bin-dir=/usr/lib/cni", "--hairpin-mode=hairpin-veth",
			"--network-plugin-mtu=" + strconv.Itoa(n.Network.MTU),
		}
		after = []string{"ExecStartPost=-/usr/bin/systemctl --no-block try-restart kubelet.service"}
	}
	words := slices.Concat([]string{
		"/usr/bin/cri-dockerd",
		"--container-runtime-endpoint=" + criSocket,
		"--docker-endpoint=unix:///run/docker.sock",
	}, network, []string{
		"--pod-infra-container-image=" + n.Images.Pause,
		"--streaming-bind-addr=" + host,
	})
	lines := slices.Concat([]string{
		"[Unit]",
		"Description=Kubernetes container runtime interface for docker",
		"Documentation=https://mirantis.github.io/cri-dockerd/",
		"Requires=docker.service kscratch-pod-cidr.service",
		"After=docker.service kscratch-pod-cidr.service",
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=notify",
		command(words...),
	}, after, []string{
		"Restart=always",
		"RestartSec=2",
		"TimeoutStartSec=5min",
		"Delegate=yes",
		"KillMode=process",
		"LimitNOFILE=infinity",
		"TasksMax=infinity",
		"OOMScoreAdjust=-500",
		"[Install]",
		"WantedBy=multi-user.target",
	})
	return part{units: []unit{{name: "cri-docker.service", enabled: true, contents: ini(lines...)}}}, nil
}

// unitFlags returns --name=value for every entry, sorted by name, as a unit
// file has it: systemd gives quotes, spaces, backslashes, % and $ a meaning
// (systemd.service(5), "Command lines").
func unitFlags(args map[string]string) []string {
	out := flags(nil, args)
	for i, w := range out {
		if !plainWord.MatchString(w) {
			out[i] = `"` + unitQuotes.Replace(w) + `"`
		}
	}
	return out
}

var (
	plainWord  = regexp.MustCompile(`^[A-Za-z0-9_./:=,@+-]*$`)
	unitQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`)
)

// command returns an ExecStart= with an argument to a line.
func command(words ...string) string {
	s := "ExecStart=" + words[0]
	for _, w := range words[1:] {
		s += " \\\n    " + w
	}
	return s
}
