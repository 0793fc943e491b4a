package firstboot

import (
	"errors"
	"fmt"
	"net/netip"
)

// Where the image's Ignition config puts the pod of etcd, and where
// kscratch-node puts it for the kubelet once the member may start. From the
// root of the file system.
const (
	EtcdPodPath      = "etc/kscratch/etcd.yaml"
	EtcdManifestPath = "etc/kubernetes/manifests/etcd.yaml"
)

// EtcdReportPath has what kscratch-node says of this master's member of etcd,
// an [EtcdReport], from the root of the file system. It is there since the
// first look or failure of this boot.
const EtcdReportPath = "run/kscratch/etcd.json"

// Etcd says which members etcd has. A master finds itself by its addresses.
type Etcd struct {
	DataDir string       `json:"dataDir"` // absolute path
	PKI     string       `json:"pki"`     // absolute path of the directory with ca.crt, peer.crt and peer.key
	Members []EtcdMember `json:"members"` // one, three or five
}

// EtcdMember is a member of etcd.
type EtcdMember struct {
	Name    string     `json:"name"`    // a DNS label
	Address netip.Addr `json:"address"` // IPv4, of one of the master's interfaces
}

// EtcdReport is the state of a master's member of etcd.
type EtcdReport struct {
	Ready   bool   `json:"ready"`            // etcd answers with a majority behind it
	Others  bool   `json:"others,omitempty"` // it does not, for want of other masters: there is nothing wrong with this one
	Message string `json:"message"`          // for people; one line
}

// Check reports every law of a set of members that e breaks.
func (e *Etcd) Check() error {
	if e == nil {
		return nil
	}
	errs := []error{checkPath("etcd.dataDir", e.DataDir), checkPath("etcd.pki", e.PKI)}
	if n := len(e.Members); n != 1 && n != 3 && n != 5 {
		errs = append(errs, fmt.Errorf("etcd.members: %d of them: want 1, 3 or 5", n))
	}
	seen := map[string]bool{}
	for _, m := range e.Members {
		if !isLabel(m.Name) || len(m.Name) > maxNodeName {
			errs = append(errs, fmt.Errorf("etcd member %s: want a DNS label", quote(m.Name)))
		}
		if !m.Address.Is4() || m.Address.IsUnspecified() || m.Address.IsMulticast() {
			errs = append(errs, fmt.Errorf("etcd member %s: address %s: want an IPv4 address", quote(m.Name), m.Address))
		}
		if seen[m.Name] || seen[m.Address.String()] {
			errs = append(errs, fmt.Errorf("etcd member %s: its name or address stands twice", quote(m.Name)))
		}
		seen[m.Name], seen[m.Address.String()] = true, true
	}
	return errors.Join(errs...)
}
