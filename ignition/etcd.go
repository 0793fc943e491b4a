package ignition

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// etcd runs the cluster's store as a static pod. Its data outlives images on
// the state partition. The flags are those that 3.5 and 3.6 have in common.
//
// By default it is a cluster of one that only this node can reach. Where there
// are members, every master has this same configuration: kscratch-node finds
// out which one the machine is, and gives the pod to the kubelet, with the
// flags that are the member's own, once the member may run.
func etcd(n Node) (part, error) {
	args := map[string]string{
		"data-dir":              n.Etcd.DataDir,
		"listen-metrics-urls":   etcdMetrics,
		"cert-file":             pkiDir + "etcd/server.crt",
		"key-file":              pkiDir + "etcd/server.key",
		"trusted-ca-file":       pkiDir + "etcd/ca.crt",
		"client-cert-auth":      "true",
		"peer-cert-file":        pkiDir + "etcd/peer.crt",
		"peer-key-file":         pkiDir + "etcd/peer.key",
		"peer-trusted-ca-file":  pkiDir + "etcd/ca.crt",
		"peer-client-cert-auth": "true",
	}
	if len(n.Etcd.Members) == 0 {
		const client, peer = "https://" + host + ":2379", "https://" + host + ":2380"
		args["name"] = "master"
		args["listen-client-urls"] = client
		args["advertise-client-urls"] = client
		args["listen-peer-urls"] = peer
		args["initial-advertise-peer-urls"] = peer
		args["initial-cluster"] = "master=" + peer
	} else {
		args["initial-cluster"] = n.Etcd.initialCluster()
	}
	p, err := n.manifest(staticPod{
		name: "etcd", image: n.Images.Etcd,
		command: append([]string{"etcd"}, flags(args, n.Etcd.Args)...),
		mounts: []mount{
			{"pki", pkiDir + "etcd", corev1.HostPathDirectory, false},
			{"data", n.Etcd.DataDir, corev1.HostPathDirectoryOrCreate, true},
		},
		cpu: "50m", memory: "64Mi",
		probes: probes{corev1.URISchemeHTTP, 2381, "/livez", "/readyz"},
	})
	if err != nil || len(n.Etcd.Members) == 0 || n.Role != Master {
		return p, err
	}
	p.files[0].path = "/" + firstboot.EtcdPodPath
	p.units = []unit{etcdUnit(n)}
	return p, nil
}

// etcdMetrics is where etcd says how it is, to its own machine.
const etcdMetrics = "http://" + host + ":2381"

// onNode returns what kscratch-node is told of the members; nil if there are
// none.
func (e Etcd) onNode() *firstboot.Etcd {
	if len(e.Members) == 0 {
		return nil
	}
	return &firstboot.Etcd{DataDir: e.DataDir, PKI: pkiDir + "etcd", Members: e.Members}
}

// several reports whether there is more than one master.
func (e Etcd) several() bool { return len(e.Members) > 1 }

func (e Etcd) initialCluster() string {
	var all []string
	for _, m := range e.Members {
		all = append(all, m.Name+"=https://"+m.Address.String()+":2380")
	}
	return strings.Join(all, ",")
}

// etcdUnit looks after the member. A pod of the boot before is taken away
// before the kubelet sees it: since then the disk may have been lost, or the
// member replaced. One of this boot goes on while the unit restarts.
func etcdUnit(n Node) unit {
	return unit{name: "kscratch-etcd.service", enabled: true, contents: ini(
		"[Unit]",
		"Description=This master's member of etcd",
		"Wants=network-online.target",
		"After=network-online.target",
		"Before=kubelet.service",
		"RequiresMountsFor="+n.Etcd.DataDir,
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=exec",
		"NotifyAccess=main",
		"RuntimeDirectory=kscratch",
		"RuntimeDirectoryPreserve=yes",
		`ExecStartPre=/usr/bin/bash -c "test -e /`+firstboot.EtcdReportPath+` || rm -f /`+firstboot.EtcdManifestPath+`"`,
		"ExecStart=/usr/bin/kscratch-node etcd",
		"Restart=always",
		"RestartSec=5",
		"[Install]",
		"WantedBy=multi-user.target",
	)}
}
