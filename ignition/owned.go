package ignition

import (
	"maps"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/ignition/field"
)

// Owned is what the user may not set of a component.
type Owned struct {
	Key  string // of its configuration file, such as "authorization.mode"; may be empty
	Flag string // for the same, without dashes; one with * at its end stands for all that begin so; may be empty
	Why  string // not, to be read after "may not be set: "
}

// Components are the programs that take a user's flags and configuration.
var Components = []string{"kubelet", "kube-proxy", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"}

// OwnedBy returns what is kscratch's own of a component, one of [Components].
func OwnedBy(component string) []Owned { return slices.Clone(ownedBy[component]) }

// Why something is owned.
const (
	written      = "kscratch writes it"
	podsNeedIt   = "docker and the baked images are set up for it"
	identity     = "it is how the node proves who it is"
	bySecurity   = "it follows from security"
	healthNeeds  = "the node's health is asked there"
	ofMachine    = "each node finds its own"
	clusterCerts = "it is the cluster's PKI"
	byMembers    = "it follows from etcd.members"
	stopsAtOnce  = "the program would print something and end"
)

var ownedBy = map[string][]Owned{
	"kubelet": {
		{"apiVersion", "config", written},
		{"kind", "config-dir", written},
		{"", "kubeconfig", written},
		{"", "bootstrap-kubeconfig", written},
		{"", "root-dir", "it is kubelet.rootDir"},
		{"", "cert-dir", "it lies in kubelet.rootDir"},
		{"volumePluginDir", "volume-plugin-dir", "it lies in kubelet.rootDir"},
		{"", "hostname-override", "kubelet.nodeNames decides it"},
		{"registerNode", "register-node", "it is kubelet.registerNode"},
		{"maxPods", "max-pods", "it is kubelet.maxPods"},
		{"registerWithTaints", "register-with-taints", "controlPlane.schedulable decides it"},
		{"staticPodPath", "pod-manifest-path", "the control plane's manifests are there"},
		{"containerRuntimeEndpoint", "container-runtime-endpoint", podsNeedIt},
		{"imageServiceEndpoint", "image-service-endpoint", podsNeedIt},
		{"cgroupDriver", "cgroup-driver", "docker has the same one"},
		{"clusterDNS", "cluster-dns", "it is network.clusterDNS"},
		{"clusterDomain", "cluster-domain", "it is network.clusterDomain"},
		{"resolvConf", "resolv-conf", "pods must not get the node's own stub resolver"},
		{"podCIDR", "pod-cidr", ofMachine},
		{"authentication.x509", "client-ca-file", clusterCerts},
		{"authentication.anonymous", "anonymous-auth", bySecurity},
		{"authentication.webhook.enabled", "authentication-token-webhook", bySecurity},
		{"authorization.mode", "authorization-mode", bySecurity},
		{"rotateCertificates", "rotate-certificates", identity},
		{"serverTLSBootstrap", "rotate-server-certificates", identity},
		{"tlsCertFile", "tls-cert-file", identity},
		{"tlsPrivateKeyFile", "tls-private-key-file", identity},
		{"port", "port", "the API server and the packet filter know it as 10250"},
		{"enableServer", "enable-server", "the API server asks it for logs and exec"},
		{"healthzPort", "healthz-port", healthNeeds},
		{"healthzBindAddress", "healthz-bind-address", healthNeeds},
		{"runOnce", "runonce", "the node has to stay"},
		{"featureGates.ExtendWebSocketsToKubelet", "feature-gates",
			"cri-dockerd cannot do without ExtendWebSocketsToKubelet=false; other gates go into kubelet.extraConfig.featureGates"},
	},
	"kube-proxy": {
		{"apiVersion", "config", written},
		{"kind", "", written},
		{"clientConnection.kubeconfig", "kubeconfig", written},
		{"hostnameOverride", "hostname-override", "kubelet.nodeNames decides it"},
		{"mode", "proxy-mode", "it is kubeProxy.mode"},
		{"detectLocalMode", "detect-local-mode", "a pod's traffic is what comes from network.bridge"},
		{"detectLocal", "", "a pod's traffic is what comes from network.bridge"},
	},
	"kube-apiserver": {
		{"", "secure-port", "nodes, probes and the packet filter know it"},
		{"", "bind-address", "nodes and probes reach it at different addresses"},
		{"", "authorization-mode", bySecurity},
		{"", "authorization-config", bySecurity},
		{"", "authentication-config", bySecurity},
		{"", "anonymous-auth", bySecurity},
		{"", "service-cluster-ip-range", "it is network.serviceCIDR"},
		{"", "client-ca-file", clusterCerts},
		{"", "tls-cert-file", clusterCerts},
		{"", "tls-private-key-file", clusterCerts},
		{"", "etcd-servers", "it is the etcd of the same machine"},
		{"", "etcd-cafile", clusterCerts},
		{"", "etcd-certfile", clusterCerts},
		{"", "etcd-keyfile", clusterCerts},
		{"", "kubelet-client-certificate", clusterCerts},
		{"", "kubelet-client-key", clusterCerts},
		{"", "kubelet-certificate-authority", clusterCerts},
		{"", "service-account-key-file", clusterCerts},
		{"", "service-account-signing-key-file", clusterCerts},
		{"", "proxy-client-cert-file", clusterCerts},
		{"", "proxy-client-key-file", clusterCerts},
		{"", "requestheader-*", clusterCerts},
	},
	"kube-controller-manager": {
		{"", "kubeconfig", written},
		{"", "authentication-kubeconfig", written},
		{"", "authorization-kubeconfig", written},
		{"", "master", written},
		{"", "secure-port", healthNeeds},
		{"", "cluster-name", "it is name"},
		{"", "cluster-cidr", "it is network.clusterCIDR"},
		{"", "service-cluster-ip-range", "it is network.serviceCIDR"},
		{"", "allocate-node-cidrs", "network.cbr0 decides it"},
		{"", "client-ca-file", clusterCerts},
		{"", "root-ca-file", clusterCerts},
		{"", "cluster-signing-cert-file", clusterCerts},
		{"", "cluster-signing-key-file", clusterCerts},
		{"", "service-account-private-key-file", clusterCerts},
		{"", "requestheader-client-ca-file", clusterCerts},
	},
	"kube-scheduler": {
		{"", "kubeconfig", written},
		{"", "authentication-kubeconfig", written},
		{"", "authorization-kubeconfig", written},
		{"", "master", written},
		{"", "secure-port", healthNeeds},
		{"", "write-config-to", stopsAtOnce},
	},
	"etcd": {
		{"", "config-file", "etcd ignores its flags beside it"},
		{"", "name", byMembers},
		{"", "data-dir", "it is the directory that lasts, on the state partition"},
		{"", "wal-dir", "it lies in the directory that lasts"},
		{"", "listen-client-*", byMembers},
		{"", "listen-peer-urls", byMembers},
		{"", "advertise-client-urls", byMembers},
		{"", "initial-*", byMembers},
		{"", "discovery*", byMembers},
		{"", "listen-metrics-urls", healthNeeds},
		{"", "cert-file", clusterCerts},
		{"", "key-file", clusterCerts},
		{"", "trusted-ca-file", clusterCerts},
		{"", "client-cert-auth", clusterCerts},
		{"", "auto-tls", clusterCerts},
		{"", "peer-cert-file", clusterCerts},
		{"", "peer-key-file", clusterCerts},
		{"", "peer-trusted-ca-file", clusterCerts},
		{"", "peer-client-cert-auth", clusterCerts},
		{"", "peer-auto-tls", clusterCerts},
	},
}

// FlagProblems returns what is wrong with a user's flags for a component, by
// name without dashes, as far as the component need not be asked: names and
// values that no command line should have, and flags that are kscratch's. The
// component is one of [Components].
func FlagProblems(component string, args map[string]string) []field.Problem {
	var out []field.Problem
	for _, name := range slices.Sorted(maps.Keys(args)) {
		switch why := ownedFlag(component, name); {
		case !flagName.MatchString(name):
			out = append(out, field.Problem{Path: name, Msg: "is not the name of a flag", Fix: "write it in lower case, without dashes before it"})
		case !printable.MatchString(args[name]):
			out = append(out, field.Problem{Path: name, Msg: "has a value that is not one line of text"})
		case why != "":
			out = append(out, field.Problem{Path: name, Msg: "may not be set: " + why})
		case component == "kube-proxy" && !loggingFlag(name):
			// cmd/kube-proxy/app/options.go: Complete replaces what flags said
			// by what the file says, but for logging.
			out = append(out, field.Problem{Path: name, Msg: "has no effect: kube-proxy ignores it beside its configuration file", Fix: "use kubeProxy.extraConfig"})
		case component == "kube-apiserver" && name == "enable-admission-plugins" && !slices.Contains(strings.Split(args[name], ","), nodeRestriction):
			out = append(out, field.Problem{Path: name, Msg: "leaves out " + nodeRestriction + ", without which a node may change others", Fix: "add it to the list"})
		}
	}
	return out
}

// nodeRestriction is the admission plugin that keeps a kubelet to its own node.
const nodeRestriction = "NodeRestriction"

func loggingFlag(name string) bool {
	return name == "v" || name == "vmodule" || name == "logging-format" || strings.HasPrefix(name, "log-")
}

// ownedFlag returns why a flag of a component is kscratch's; "" if it is not.
func ownedFlag(component, name string) string {
	if name == "help" || name == "version" {
		return stopsAtOnce
	}
	for _, o := range ownedBy[component] {
		prefix, all := strings.CutSuffix(o.Flag, "*")
		if o.Flag == name || all && strings.HasPrefix(name, prefix) {
			return o.Why
		}
	}
	return ""
}
