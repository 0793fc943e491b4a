package ignition

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/config/v1alpha1"
	proxyv1 "k8s.io/kube-proxy/config/v1alpha1"
)

// proxy configures kube-proxy and its unit. Traffic is a pod's when it comes
// from the pod bridge; the node's pod CIDR need not be known to the API server.
//
// Its conntrack settings are left alone: it raises the limits by the number of
// processors, which a virtual machine's kernel allows too.
func proxy(n Node) (part, error) {
	conf, err := proxyConfig(n)
	if err != nil {
		return part{}, err
	}
	// On a master kube-proxy would only spin, with ever longer pauses, until
	// the API server answers.
	after := "After=network-online.target kscratch-pod-cidr.service"
	if n.Role == Master {
		after += " kscratch-bootstrap.service"
	} else {
		after += " " + joinService
	}
	return part{
		files: []file{{etcKubernetes + "kube-proxy.yaml", 0o644, conf}},
		units: []unit{{name: "kube-proxy.service", enabled: true, contents: ini(
			"[Unit]",
			"Description=Kubernetes service proxy",
			"Documentation=https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/",
			"Wants=network-online.target",
			"Requires=kscratch-pod-cidr.service",
			after,
			"StartLimitIntervalSec=0",
			"[Service]",
			"Type=exec",
			"EnvironmentFile="+nodeEnv,
			command(append([]string{
				"/usr/bin/kube-proxy", "--config=" + etcKubernetes + "kube-proxy.yaml", "--hostname-override=${KSCRATCH_NODE_NAME}",
			}, unitFlags(n.Proxy.Args)...)...),
			"Restart=always",
			"RestartSec=5",
			"LimitNOFILE=1048576",
			"[Install]",
			"WantedBy=multi-user.target",
		)}},
	}, nil
}

func proxyConfig(n Node) ([]byte, error) {
	c := proxyv1.KubeProxyConfiguration{
		TypeMeta:         metav1.TypeMeta{APIVersion: proxyv1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		ClientConnection: v1alpha1.ClientConnectionConfiguration{Kubeconfig: etcKubernetes + "kube-proxy.kubeconfig"},
		Mode:             proxyv1.ProxyMode(n.Proxy.Mode),
		DetectLocalMode:  "BridgeInterface",
		DetectLocal:      proxyv1.DetectLocalConfiguration{BridgeInterface: n.Network.Bridge},
	}
	b, err := config(trimmed{c}, n.Proxy.Config)
	if err != nil {
		return nil, fmt.Errorf("writing kube-proxy.yaml: %w", err)
	}
	return b, nil
}

// trimmed leaves out of a component's configuration what is not for us
// to say but serialises as zeros.
type trimmed struct{ config any }

func (w trimmed) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(w.config)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	for _, k := range []string{"logging", "winkernel", "ipvs"} {
		delete(m, k)
	}
	return json.Marshal(m)
}
