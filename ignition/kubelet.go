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

func kubeletUnit(n Node) string {
	kubeconfig := n.Kubelet.RootDir + "/kubeconfig"
	words := []string{
		"/usr/bin/kubelet",
		"--config=" + etcKubernetes + "kubelet.yaml",
		"--kubeconfig=" + kubeconfig,
		"--bootstrap-kubeconfig=" + etcKubernetes + "bootstrap.kubeconfig",
		"--root-dir=" + n.Kubelet.RootDir,
		"--cert-dir=" + n.Kubelet.RootDir + "/pki",
		"--hostname-override=${KSCRATCH_NODE_NAME}",
	}
	if n.Kubelet.NodeIP != "" {
		words = append(words, "--node-ip="+n.Kubelet.NodeIP)
	}
	return ini(
		"[Unit]",
		"Description=Kubernetes node agent",
		"Documentation=https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
		"Wants=network-online.target",
		"Requires=cri-docker.service kscratch-pod-cidr.service",
		"After=network-online.target systemd-resolved.service cri-docker.service kscratch-pod-cidr.service",
		"RequiresMountsFor="+n.Kubelet.RootDir,
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=notify",
		"EnvironmentFile="+nodeEnv,
		// The kubelet writes it from the bootstrap kubeconfig and its certificate,
		// and would keep an older image's idea of where the API server is.
		"ExecStartPre=/usr/bin/rm -f "+kubeconfig,
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

func kubeletConfig(n Node) ([]byte, error) {
	c := kubeletv1.KubeletConfiguration{
		TypeMeta:      metav1.TypeMeta{APIVersion: kubeletv1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		StaticPodPath: manifestDir,
		RegisterNode:  n.Kubelet.RegisterNode,

		RotateCertificates: true,
		Authentication: kubeletv1.KubeletAuthentication{
			X509:      kubeletv1.KubeletX509Authentication{ClientCAFile: pkiDir + "ca.crt"},
			Webhook:   kubeletv1.KubeletWebhookAuthentication{Enabled: new(true)},
			Anonymous: kubeletv1.KubeletAnonymousAuthentication{Enabled: new(false)},
		},
		Authorization: kubeletv1.KubeletAuthorization{Mode: kubeletv1.KubeletAuthorizationModeWebhook},

		ContainerRuntimeEndpoint: criSocket,
		CgroupDriver:             "systemd",
		ProtectKernelDefaults:    true,
		VolumePluginDir:          n.Kubelet.RootDir + "/volumeplugins", // its default is below /usr
		// Baked images are in the read-only root: removing them frees nothing and
		// would have to be undone by a pull.
		ImageGCHighThresholdPercent: new(int32(100)),

		ClusterDNS:         []string{n.Network.DNS.String()},
		ClusterDomain:      n.Network.Domain,
		ResolverConfig:     new("/run/systemd/resolve/resolv.conf"), // not the stub, which pods cannot reach
		RegisterWithTaints: n.taints(),
	}
	b, err := object(trimmed{c})
	if err != nil {
		return nil, fmt.Errorf("writing kubelet.yaml: %w", err)
	}
	return b, nil
}
