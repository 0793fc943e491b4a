package ignition

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// apiServer runs kube-apiserver as a static pod. Clients prove who they are
// with certificates of the cluster's authority or with service account
// tokens; nodes may do what nodes need, everyone else what RBAC says.
func apiServer(n Node) (part, error) {
	args := map[string]string{
		"secure-port":              strconv.Itoa(n.ControlPlane.Port),
		"allow-privileged":         "true",
		"authorization-mode":       "Node,RBAC",
		"enable-admission-plugins": "NodeRestriction",
		"profiling":                "false",
		"service-cluster-ip-range": n.Network.ServiceCIDR.String(),

		"client-ca-file":       pkiDir + "ca.crt",
		"tls-cert-file":        pkiDir + "apiserver.crt",
		"tls-private-key-file": pkiDir + "apiserver.key",

		"etcd-servers":  "https://" + host + ":2379",
		"etcd-cafile":   pkiDir + "etcd/ca.crt",
		"etcd-certfile": pkiDir + "apiserver-etcd-client.crt",
		"etcd-keyfile":  pkiDir + "apiserver-etcd-client.key",

		"kubelet-client-certificate":      pkiDir + "apiserver-kubelet-client.crt",
		"kubelet-client-key":              pkiDir + "apiserver-kubelet-client.key",
		"kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",

		"service-account-issuer":           "https://kubernetes.default.svc." + n.Network.Domain,
		"service-account-key-file":         pkiDir + "sa.pub",
		"service-account-signing-key-file": pkiDir + "sa.key",

		"proxy-client-cert-file":             pkiDir + "front-proxy-client.crt",
		"proxy-client-key-file":              pkiDir + "front-proxy-client.key",
		"requestheader-client-ca-file":       pkiDir + "front-proxy-ca.crt",
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
	}
	mounts := []mount{{"pki", strings.TrimSuffix(pkiDir, "/"), corev1.HostPathDirectory, false}}
	var files []file
	if n.anonymous() {
		// Only this file lets anonymous requests in together with AlwaysAllow:
		// the flag of that name is then ignored.
		args["authorization-mode"] = "AlwaysAllow"
		args["authentication-config"] = authenticationConfig
		delete(args, "enable-admission-plugins")
		mounts = append(mounts, mount{"authentication", authenticationConfig, corev1.HostPathFile, false})
		files = append(files, text(authenticationConfig,
			"apiVersion: apiserver.config.k8s.io/v1", "kind: AuthenticationConfiguration", "anonymous: {enabled: true}"))
	} else {
		args["kubelet-certificate-authority"] = pkiDir + "ca.crt"
	}
	if n.ControlPlane.AdvertiseAddress != "" {
		args["advertise-address"] = n.ControlPlane.AdvertiseAddress
	}
	command := append([]string{"kube-apiserver"}, flags(args, n.ControlPlane.APIServerArgs)...)
	if len(n.Etcd.Members) > 0 {
		// Its etcd may have to wait for other masters.
		command = append([]string{nodeProgram.path, "after", "--url=" + etcdMetrics + "/readyz"}, command...)
		mounts = append(mounts, nodeProgram)
	}
	p, err := n.manifest(staticPod{
		name: "kube-apiserver", image: n.Images.APIServer,
		command: command,
		mounts:  mounts,
		cpu:     "100m", memory: "256Mi",
		probes: probes{corev1.URISchemeHTTPS, n.ControlPlane.Port, "/livez", "/readyz"},
	})
	p.files = append(p.files, files...)
	return n.onMaster(p), err
}

const authenticationConfig = etcKubernetes + "authentication.yaml"

// nodeProgram is kscratch-node inside of a container.
var nodeProgram = mount{"kscratch-node", "/usr/bin/kscratch-node", corev1.HostPathFile, false}

// afterAPI returns the command line of a program that is to start once the API
// server of a kubeconfig is ready. Both clients of the API server give up after
// ten seconds without one, and until then they take processor time that it
// needs for its own start.
func afterAPI(kubeconfig, program string, args []string) []string {
	return append([]string{"/usr/bin/kscratch-node", "after", "--kubeconfig=" + kubeconfig, program}, args...)
}

// controllerManager runs kube-controller-manager as a static pod. It signs the
// certificates that nodes ask for. It gives pod CIDRs away only if nodes are
// not told their own. Of several masters one leads; a single master has no
// leader to elect, which would cost the first start some seconds.
func controllerManager(n Node) (part, error) {
	const kubeconfig = etcKubernetes + "controller-manager.kubeconfig"
	args := map[string]string{
		"kubeconfig":                       kubeconfig,
		"authentication-kubeconfig":        kubeconfig,
		"authorization-kubeconfig":         kubeconfig,
		"bind-address":                     host,
		"leader-elect":                     strconv.FormatBool(n.Etcd.several()),
		"profiling":                        "false",
		"cluster-name":                     n.Cluster,
		"allocate-node-cidrs":              strconv.FormatBool(n.Network.Auto),
		"cluster-cidr":                     n.Network.ClusterCIDR.String(),
		"service-cluster-ip-range":         n.Network.ServiceCIDR.String(),
		"client-ca-file":                   pkiDir + "ca.crt",
		"requestheader-client-ca-file":     pkiDir + "front-proxy-ca.crt",
		"root-ca-file":                     pkiDir + "ca.crt",
		"cluster-signing-cert-file":        pkiDir + "ca.crt",
		"cluster-signing-key-file":         pkiDir + "ca.key",
		"service-account-private-key-file": pkiDir + "sa.key",
		"use-service-account-credentials":  "true",
	}
	if n.Network.Auto {
		args["configure-cloud-routes"] = "false"
		args["node-cidr-mask-size"] = strconv.Itoa(max(24, n.Network.ClusterCIDR.Bits()))
	}
	return n.manifest(staticPod{
		name: "kube-controller-manager", image: n.Images.ControllerManager,
		command: afterAPI(kubeconfig, "kube-controller-manager", flags(args, n.ControlPlane.ControllerManagerArgs)),
		mounts: []mount{
			nodeProgram,
			{"pki", strings.TrimSuffix(pkiDir, "/"), corev1.HostPathDirectory, false},
			{"kubeconfig", kubeconfig, corev1.HostPathFile, false},
		},
		cpu: "50m", memory: "64Mi",
		probes: probes{corev1.URISchemeHTTPS, 10257, "/healthz", "/healthz"},
	})
}

// scheduler runs kube-scheduler as a static pod.
func scheduler(n Node) (part, error) {
	const kubeconfig = etcKubernetes + "scheduler.kubeconfig"
	args := map[string]string{
		"kubeconfig":                kubeconfig,
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              host,
		"leader-elect":              strconv.FormatBool(n.Etcd.several()), // as in the controller manager
		"profiling":                 "false",
	}
	return n.manifest(staticPod{
		name: "kube-scheduler", image: n.Images.Scheduler,
		command: afterAPI(kubeconfig, "kube-scheduler", flags(args, n.ControlPlane.SchedulerArgs)),
		mounts:  []mount{nodeProgram, {"kubeconfig", kubeconfig, corev1.HostPathFile, false}},
		cpu:     "50m", memory: "32Mi",
		probes: probes{corev1.URISchemeHTTPS, 10259, "/livez", "/readyz"},
	})
}
