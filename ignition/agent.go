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
		Health: firstboot.Health{Kubelet: "http://" + host + ":10248/healthz"},
	}
	if n.Role == Master {
		conf.Health.APIServer = n.localServer() + "/readyz"
		conf.Health.CA = pkiDir + "ca.crt"
	}
	if err := conf.Check(); err != nil {
		return part{}, fmt.Errorf("writing node.json: %w", err)
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return part{}, fmt.Errorf("writing node.json: %w", err)
	}
	return part{
		files: []file{{"/" + firstboot.ConfigPath, 0o644, append(b, '\n')}},
		units: []unit{podCIDRUnit(), imagesUnit(n), healthUnit(), pruneUnit()},
	}, nil
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
