package ignition

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// agent configures kscratch-node, the one program of ours on a node, and the
// units that run it.
func agent(n Node) (part, error) {
	conf := firstboot.Config{
		Role: string(n.Role), ClusterCIDR: n.Network.ClusterCIDR, ServiceCIDR: n.Network.ServiceCIDR,
		Bridge: n.Network.Bridge, DockerDataRoot: n.Docker.DataRoot, NodeName: n.Name, NodeNameFromDHCP: n.NameFromDHCP,
		PodCIDRByCluster: n.Network.Auto,
		Cluster: firstboot.Cluster{
			Kubeconfig: n.kubeletKubeconfig(), Publish: !n.Network.Auto,
			Peers: n.Network.Mode == Routable && !n.Network.NoPeers,
		},
		Health: firstboot.Health{Kubelet: "http://" + host + ":10248/healthz"},
	}
	if n.Role == Master {
		conf.Health.APIServer = n.localServer() + "/readyz"
		conf.Health.CA = pkiDir + "ca.crt"
		conf.Cluster.APIServer = n.ControlPlane.Names
		conf.Etcd = n.Etcd.onNode()
	}
	if err := conf.Check(); err != nil {
		return part{}, fmt.Errorf("writing node.json: %w", err)
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return part{}, fmt.Errorf("writing node.json: %w", err)
	}
	p := part{
		files: []file{{"/" + firstboot.ConfigPath, 0o644, append(b, '\n')}},
		units: []unit{podCIDRUnit(), imagesUnit(n), clusterUnit(n.Role), healthUnit(), pruneUnit()},
	}
	if n.Role == Worker {
		p.units = append(p.units, joinUnit())
	}
	if n.Role == Master && !n.anonymous() {
		p.units = append(p.units, approveUnit())
	}
	return p, nil
}

// localServer returns the URL of a master's own API server.
func (n Node) localServer() string {
	return "https://" + host + ":" + strconv.Itoa(n.ControlPlane.Port)
}

// podCIDRUnit waits for the one thing a node has to be given, for as long as
// it takes. RestartMode=direct keeps a restart from failing what waits for it.
//
// There is no ImportCredential= in it: systemd would fail the unit when the
// credential on the ESP is not encrypted. kscratch-node looks for credentials
// itself, so nothing here may hide /run/credentials from it.
func podCIDRUnit() unit {
	return unit{name: "kscratch-pod-cidr.service", enabled: true, contents: ini(
		"[Unit]",
		"Description=Pod CIDR of this node",
		"Wants=systemd-networkd.service",
		"After=systemd-networkd.service dbus.socket",
		"Before=docker.service cri-docker.service kubelet.service kube-proxy.service",
		"RequiresMountsFor=/var/lib/kscratch",
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"NotifyAccess=main",
		"RuntimeDirectory=kscratch",
		"RuntimeDirectoryPreserve=yes",
		"ExecStart=/usr/bin/kscratch-node pod-cidr",
		"TimeoutStartSec=infinity",
		"Restart=on-failure",
		"RestartMode=direct",
		"RestartSec=2",
		"[Install]",
		"WantedBy=multi-user.target",
	)}
}

func imagesUnit(n Node) unit {
	return unit{name: "kscratch-images.service", enabled: true, contents: ini(
		"[Unit]",
		"Description=Baked container images",
		"Before=docker.service",
		"RequiresMountsFor="+n.Docker.DataRoot,
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"ExecStart=/usr/bin/kscratch-node images",
		"[Install]",
		"WantedBy=multi-user.target",
	)}
}

// joinUnit lets the kubelet start once no other machine has this one's pod
// CIDR or name. A master has nobody to ask: its own API server starts later.
func joinUnit() unit {
	return unit{name: joinService, enabled: true, contents: ini(
		"[Unit]",
		"Description=This node's place in the cluster",
		"Wants=network-online.target",
		"Requires=kscratch-pod-cidr.service",
		"After=network-online.target systemd-resolved.service kscratch-pod-cidr.service",
		"Before=kubelet.service",
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"NotifyAccess=main",
		"EnvironmentFile="+nodeEnv,
		command("/usr/bin/kscratch-node", "join", "--kubeconfig="+etcKubernetes+"kube-proxy.kubeconfig"),
		"TimeoutStartSec=infinity",
		"Restart=on-failure",
		"RestartMode=direct",
		"RestartSec=2",
		"[Install]",
		"WantedBy=multi-user.target",
	)}
}

const joinService = "kscratch-join.service"

// clusterUnit publishes the node's pod CIDR and keeps routes to its peers. A
// master has better things to do before its API server knows what nodes may.
func clusterUnit(r Role) unit {
	after := "After=network-online.target kscratch-pod-cidr.service kubelet.service"
	if r == Master {
		after += " kscratch-bootstrap.service"
	}
	return service("kscratch-cluster.service", "Pod network of this node", "cluster", "Requires=kscratch-pod-cidr.service", after)
}

// approveUnit approves the serving certificates that kubelets ask for.
func approveUnit() unit {
	return service("kscratch-approve.service", "Approval of kubelets' serving certificates", "approve --kubeconfig="+etcKubernetes+"approver.kubeconfig",
		"After=network-online.target kscratch-bootstrap.service")
}

// service is one of kscratch-node's programs that runs for as long as the node.
func service(name, about, words string, order ...string) unit {
	lines := append([]string{"[Unit]", "Description=" + about, "Wants=network-online.target"}, order...)
	return unit{name: name, enabled: true, contents: ini(append(lines,
		"StartLimitIntervalSec=0",
		"[Service]",
		"Type=exec",
		"ExecStart=/usr/bin/kscratch-node "+words,
		"Restart=always",
		"RestartSec=5",
		"[Install]",
		"WantedBy=multi-user.target",
	)...)}
}

// healthUnit decides whether this boot counts as a good one; boot counting
// falls back to the image before otherwise.
func healthUnit() unit {
	return unit{name: "kscratch-health.service", enabled: true, contents: ini(
		"[Unit]",
		"Description=Health of this node",
		"After=multi-user.target kubelet.service",
		"Before=boot-complete.target",
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"ExecStart=/usr/bin/kscratch-node health --timeout 10m",
		"TimeoutStartSec=infinity",
		"[Install]",
		"RequiredBy=boot-complete.target",
	)}
}

// pruneUnit removes what older images left in /etc's overlay, once this one
// has proved itself. It is ordered after the target that wants it, which needs
// the default dependencies off.
func pruneUnit() unit {
	return unit{name: "kscratch-etc-prune.service", enabled: true, contents: ini(
		"[Unit]",
		"Description=Removal of older images' configuration",
		"DefaultDependencies=no",
		"Requires=boot-complete.target",
		"After=local-fs.target boot-complete.target",
		"Conflicts=shutdown.target",
		"Before=shutdown.target",
		"[Service]",
		"Type=oneshot",
		"RemainAfterExit=yes",
		"ExecStart=/usr/bin/kscratch-node etc --prune",
		"[Install]",
		"WantedBy=boot-complete.target",
	)}
}
