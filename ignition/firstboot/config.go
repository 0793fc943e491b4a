package firstboot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"
)

// ConfigPath is where the image's Ignition config puts the configuration of
// kscratch-node, from the root of the file system.
const ConfigPath = "etc/kscratch/node.json"

// Config is what kscratch-node is told by the image: [ConfigPath].
type Config struct {
	Role             string       `json:"role"`                       // "master", …; first part of derived node names
	ClusterCIDR      netip.Prefix `json:"clusterCIDR"`                // contains every pod CIDR
	ServiceCIDR      netip.Prefix `json:"serviceCIDR"`                // shares no address with a pod CIDR
	Bridge           string       `json:"bridge"`                     // name of the pod bridge's interface
	DockerDataRoot   string       `json:"dockerDataRoot"`             // absolute path
	NodeName         string       `json:"nodeName,omitempty"`         // fixed name; empty: derived
	NodeNameFromDHCP bool         `json:"nodeNameFromDHCP,omitempty"` // take the host name that DHCP gives
	PodCIDRByCluster bool         `json:"podCIDRByCluster,omitempty"` // the cluster gives the pod CIDR: none is waited for
	Cluster          Cluster      `json:"cluster"`
	Health           Health       `json:"health"`
	Etcd             *Etcd        `json:"etcd,omitempty"` // masters only; nil: a member of its own that nobody else reaches
}

// Cluster says what kscratch-node does in the cluster.
type Cluster struct {
	Kubeconfig string   `json:"kubeconfig"`          // absolute path of the kubelet's kubeconfig, which may come later
	Publish    bool     `json:"publish,omitempty"`   // say this node's pod CIDR in its Node object
	Peers      bool     `json:"peers,omitempty"`     // keep a route to each other node's pod CIDR
	APIServer  []string `json:"apiServer,omitempty"` // names and addresses in the API server's certificate; masters only
}

// Health says what the health gate of a boot asks.
type Health struct {
	Kubelet   string `json:"kubelet"`             // URL of the kubelet's healthz
	APIServer string `json:"apiserver,omitempty"` // URL of the API server's readyz; masters only
	CA        string `json:"ca,omitempty"`        // absolute path of the cluster's CA certificate, PEM; with APIServer
}

// ParseConfig reads the text of [ConfigPath]. An unknown key is an error: the
// file and its reader come from the same build.
func ParseConfig(b []byte) (Config, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var c Config
	if err := d.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("parsing /%s: %w", ConfigPath, err)
	}
	if d.More() {
		return Config{}, fmt.Errorf("parsing /%s: text after its end", ConfigPath)
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("checking /%s: %w", ConfigPath, err)
	}
	return c, nil
}

// Networks returns the address plan in c.
func (c Config) Networks() Networks { return Networks{Cluster: c.ClusterCIDR, Service: c.ServiceCIDR} }

// Check reports every law of a configuration that c breaks.
func (c Config) Check() error {
	return errors.Join(
		checkRole(c.Role),
		checkRange("clusterCIDR", c.ClusterCIDR),
		checkRange("serviceCIDR", c.ServiceCIDR),
		checkInterface(c.Bridge),
		checkPath("dockerDataRoot", c.DockerDataRoot),
		c.checkName(),
		c.checkCluster(),
		checkURL("health.kubelet", c.Health.Kubelet),
		c.checkAPIServer(),
		c.Etcd.Check(),
	)
}

// maxRole leaves room for the address in a derived node name.
const maxRole = maxNodeName - len("-255-255-255-255")

func checkRole(role string) error {
	if !isLabel(role) || len(role) > maxRole {
		return fmt.Errorf("role %s: want a DNS label of at most %d bytes", quote(role), maxRole)
	}
	return nil
}

func checkRange(key string, p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
		return fmt.Errorf("%s %s: want an IPv4 network such as 10.244.0.0/16", key, p)
	}
	return nil
}

// checkInterface applies the kernel's rules (dev_valid_name) and networkd's
// dislike of glob characters in what also becomes a file name.
func checkInterface(name string) error {
	if name == "" || len(name) > 15 || name[0] == '.' || strings.ContainsAny(name, "/: \t\n\v\f\r%*?[]\\\x00") {
		return fmt.Errorf("bridge %s: want an interface name of at most 15 bytes", quote(name))
	}
	return nil
}

func checkPath(key, p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return fmt.Errorf("%s %s: want a clean absolute path", key, quote(p))
	}
	return nil
}

func (c Config) checkName() error {
	if c.NodeName == "" {
		return nil
	}
	if c.NodeNameFromDHCP {
		return errors.New("nodeName and nodeNameFromDHCP: want only one of them")
	}
	return CheckNodeName(c.NodeName)
}

func (c Config) checkCluster() error {
	if c.Cluster.Kubeconfig == "" && !c.Cluster.Publish && !c.Cluster.Peers {
		return nil
	}
	if c.PodCIDRByCluster && c.Cluster.Publish {
		return errors.New("podCIDRByCluster and cluster.publish: want only one of them")
	}
	return checkPath("cluster.kubeconfig", c.Cluster.Kubeconfig)
}

func (c Config) checkAPIServer() error {
	if c.Health.APIServer == "" {
		return nil
	}
	return errors.Join(checkURL("health.apiserver", c.Health.APIServer), checkPath("health.ca", c.Health.CA))
}

func checkURL(key, s string) error {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("%s %s: want a URL with http or https", key, quote(s))
	}
	return nil
}
