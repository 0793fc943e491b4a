package ignition

import (
	"maps"
	"strings"

	proxyv1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"

	"github.com/kscratch/kscratch/ignition/field"
)

// KubeletConfigProblems returns what is wrong with a user's own part of the
// kubelet's configuration: what KubeletConfiguration (kubelet.config.k8s.io/
// v1beta1) does not have, and what is kscratch's. The kubelet itself may
// still object to a value, which it says when it starts.
func KubeletConfigProblems(extra map[string]any) []field.Problem {
	return configProblems("kubelet", extra, new(kubeletv1.KubeletConfiguration))
}

// ProxyConfigProblems does the same for kube-proxy and KubeProxyConfiguration
// (kubeproxy.config.k8s.io/v1alpha1).
func ProxyConfigProblems(extra map[string]any) []field.Problem {
	return configProblems("kube-proxy", extra, new(proxyv1.KubeProxyConfiguration))
}

func configProblems(component string, extra map[string]any, into any) []field.Problem {
	var out []field.Problem
	for _, o := range ownedBy[component] {
		if o.Key == "" {
			continue
		}
		names := strings.Split(o.Key, ".")
		n, at := field.Lookup(extra, names...)
		switch {
		case n == len(names):
			out = append(out, field.Problem{Path: o.Key, Msg: "may not be set: " + o.Why})
		case n > 0 && at == nil: // it would take ours away with the rest
			out = append(out, field.Problem{Path: strings.Join(names[:n], "."), Msg: "may not be removed: of " + o.Key + ", " + o.Why})
		}
	}
	if len(extra) > 0 {
		out = append(out, field.Decode(extra, into)...)
	}
	return out
}

// config writes a component's configuration as YAML, with the user's own part
// over it.
func config(ours any, extra map[string]any) ([]byte, error) {
	m, err := fields(ours)
	if err != nil {
		return nil, err
	}
	return asYAML(overlay(m, extra))
}

// overlay returns base with what over has in it, as RFC 7386 merges JSON: maps
// are merged, null removes, anything else replaces.
func overlay(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range over {
		if v == nil {
			delete(out, k)
			continue
		}
		if m, ok := v.(map[string]any); ok {
			below, _ := out[k].(map[string]any)
			if below == nil {
				below = map[string]any{}
			}
			v = overlay(below, m)
		}
		out[k] = v
	}
	return out
}
