package ignition

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
)

// kubelet configures the kubelet and its unit. Masters and workers get their
// client certificate alike: by a signing request under the bootstrap identity.
// The kubelet makes that in the background, so static pods start without it.
func kubelet(n Node) (part, error) {
	conf, err := kubeletConfig(n)
	if err != nil {
		return part{}, err
	}
	return part{
		files: []file{{etcKubernetes + "kubelet.yaml", 0o644, conf}},
		units: []unit{{name: "kubelet.service", enabled: true, contents: kubeletUnit(n)}},
	}, nil
}

// kubeletKubeconfig is where the kubelet says who it is to the API server.
func (n Node) kubeletKubeconfig() string { return n.Kubelet.RootDir + "/kubeconfig" }

func kubeletUnit(n Node) string {
	kubeconfig := n.kubeletKubeconfig()
	words := []string{
		"/usr/bin/kubelet",
		"--config=" + etcKubernetes + "kubelet.yaml",
		"--kubeconfig=" + kubeconfig,
		"--root-dir=" + n.Kubelet.RootDir,
		"--cert-dir=" + n.Kubelet.RootDir + "/pki",
		"--hostname-override=${KSCRATCH_NODE_NAME}",
	}
	// The kubelet writes it from the bootstrap kubeconfig and its certificate,
	// and would keep an older image's idea of where the API server is.
	prepare := "/usr/bin/rm -f " + kubeconfig
	if n.anonymous() {
		prepare = "/usr/bin/install -m 0600 " + etcKubernetes + "kubelet.kubeconfig " + kubeconfig
	} else {
		words = append(words, "--bootstrap-kubeconfig="+etcKubernetes+"bootstrap.kubeconfig")
	}
	if n.Kubelet.NodeIP != "" {
		words = append(words, "--node-ip="+n.Kubelet.NodeIP)
	}
	words = append(words, unitFlags(n.Kubelet.Args)...)
	needs := "cri-docker.service kscratch-pod-cidr.service"
	if n.Role == Worker {
		needs += " " + joinService
	}
	return ini(
		"[Unit]",
		"Description=Kubernetes node agent",
		"Documentation=https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
		"Wants=network-online.target",
		"Requires="+needs,
		"After=network-online.target systemd-resolved.service "+needs,
		"RequiresMountsFor="+n.Kubelet.RootDir,
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=notify",
		"EnvironmentFile="+nodeEnv,
		"ExecStartPre="+prepare,
		// Pods that ask the node's resolvers, the cluster's DNS server among
		// them, must not be sent back to the cluster's DNS.
		fmt.Sprintf("ExecStartPre=/usr/bin/bash -c \"grep -vxF 'nameserver %s' /run/systemd/resolve/resolv.conf >%s || :\"", n.Network.DNS, podResolvers),
		command(words...),
		"Restart=always",
		"RestartSec=5",
		"TimeoutStartSec=10min", // to the first sign of life, without KVM
		"KillMode=process",      // leave mount helpers alone
		"LimitNOFILE=1048576",
		"TasksMax=infinity",
		"[Install]",
		"WantedBy=multi-user.target",
	)
}

// podResolvers has the resolvers of the node without the cluster's own.
const podResolvers = "/run/kscratch/resolv.conf"

// kubeletAccess says who may use the kubelet's own API. Behind a firewall that
// is whoever is let through, and its serving certificate is of its own making:
// nobody could tell who asks for one.
func kubeletAccess(c *kubeletv1.KubeletConfiguration, anonymous bool) {
	c.Authentication.X509.ClientCAFile = pkiDir + "ca.crt"
	c.Authentication.Webhook.Enabled = new(!anonymous)
	c.Authentication.Anonymous.Enabled = new(anonymous)
	c.Authorization.Mode = kubeletv1.KubeletAuthorizationModeAlwaysAllow
	if !anonymous {
		c.Authorization.Mode = kubeletv1.KubeletAuthorizationModeWebhook
		c.RotateCertificates, c.ServerTLSBootstrap = true, true
	}
}

func kubeletConfig(n Node) ([]byte, error) {
	c := kubeletv1.KubeletConfiguration{
		TypeMeta:      metav1.TypeMeta{APIVersion: kubeletv1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		StaticPodPath: manifestDir,
		RegisterNode:  n.Kubelet.RegisterNode,
		MaxPods:       int32(n.Kubelet.MaxPods),

		ContainerRuntimeEndpoint: criSocket,
		CgroupDriver:             "systemd",
		ProtectKernelDefaults:    true,
		VolumePluginDir:          n.Kubelet.RootDir + "/volumeplugins", // its default is below /usr
		// Baked images are in the read-only root: removing them frees nothing and
		// would have to be undone by a pull.
		ImageGCHighThresholdPercent: new(int32(100)),

		ClusterDNS:         []string{n.Network.DNS.String()},
		ClusterDomain:      n.Network.Domain,
		ResolverConfig:     new(podResolvers), // not the stub, which pods cannot reach
		RegisterWithTaints: n.taints(),

		// cri-dockerd names its streams by URLs without a scheme. The kubelet of
		// 1.36 began to translate WebSockets to it itself and takes such a URL for
		// https, so that exec, attach and port-forward fail; without the gate the
		// API server translates, as it did before.
		FeatureGates: map[string]bool{"ExtendWebSocketsToKubelet": false},
	}
	kubeletAccess(&c, n.anonymous())
	b, err := config(trimmed{c}, n.Kubelet.Config)
	if err != nil {
		return nil, fmt.Errorf("writing kubelet.yaml: %w", err)
	}
	return b, nil
}
