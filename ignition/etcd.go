package ignition

import corev1 "k8s.io/api/core/v1"

// etcd runs the cluster's store as a static pod, a cluster of one that only
// this node can reach. Its data outlives images on the state partition. The
// flags are those that 3.5 and 3.6 have in common.
func etcd(n Node) (part, error) {
	const client, peer = "https://" + host + ":2379", "https://" + host + ":2380"
	args := map[string]string{
		"name":                        "master",
		"data-dir":                    n.Etcd.DataDir,
		"listen-client-urls":          client,
		"advertise-client-urls":       client,
		"listen-peer-urls":            peer,
		"initial-advertise-peer-urls": peer,
		"initial-cluster":             "master=" + peer,
		"listen-metrics-urls":         "http://" + host + ":2381",
		"cert-file":                   pkiDir + "etcd/server.crt",
		"key-file":                    pkiDir + "etcd/server.key",
		"trusted-ca-file":             pkiDir + "etcd/ca.crt",
		"client-cert-auth":            "true",
		"peer-cert-file":              pkiDir + "etcd/peer.crt",
		"peer-key-file":               pkiDir + "etcd/peer.key",
		"peer-trusted-ca-file":        pkiDir + "etcd/ca.crt",
		"peer-client-cert-auth":       "true",
	}
	return n.manifest(staticPod{
		name: "etcd", image: n.Images.Etcd,
		command: append([]string{"etcd"}, flags(args, n.Etcd.Args)...),
		mounts: []mount{
			{"pki", pkiDir + "etcd", corev1.HostPathDirectory, false},
			{"data", n.Etcd.DataDir, corev1.HostPathDirectoryOrCreate, true},
		},
		cpu: "50m", memory: "64Mi",
		probes: probes{corev1.URISchemeHTTP, 2381, "/livez", "/readyz"},
	})
}
