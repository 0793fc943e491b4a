package pki

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// kubeconfig is the part of client-go's clientcmd/api/v1 Config that is used
// here; its key order is the order in the file.
type kubeconfig struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Cert []byte `json:"client-certificate-data,omitempty"`
		Key  []byte `json:"client-key-data,omitempty"`
	} `json:"user"`
}

type namedContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

// Kubeconfig returns a kubeconfig for the API server at the URL server with
// everything embedded. The identity is that of the certificate; user is only
// its name in the file.
func (s Set) Kubeconfig(cluster, server, user string, cert, key Name) ([]byte, error) {
	var nc namedCluster
	var nu namedUser
	for name, to := range map[Name]*[]byte{CACert: &nc.Cluster.CA, cert: &nu.User.Cert, key: &nu.User.Key} {
		b, err := s.Bytes(name)
		if err != nil {
			return nil, fmt.Errorf("making the kubeconfig of %s: %w", user, err)
		}
		*to = b
	}
	nc.Name, nc.Cluster.Server = cluster, server
	nu.Name = user
	return kubeconfigOf(nc, nu)
}

// ParseKubeconfig returns the authority, and the certificate and key of the one
// user, that a kubeconfig made by [Set.Kubeconfig] holds.
func ParseKubeconfig(b []byte) (ca, cert, key []byte, err error) {
	var k kubeconfig
	if err := yaml.UnmarshalStrict(b, &k); err != nil {
		return nil, nil, nil, fmt.Errorf("reading a kubeconfig: %w", err)
	}
	if len(k.Clusters) != 1 || len(k.Users) != 1 {
		return nil, nil, nil, fmt.Errorf("reading a kubeconfig: it has %d clusters and %d users, want one of each", len(k.Clusters), len(k.Users))
	}
	u := k.Users[0].User
	return k.Clusters[0].Cluster.CA, u.Cert, u.Key, nil
}

// AnonymousKubeconfig returns a kubeconfig for the API server at the URL server
// that says how to know that server, and nothing about who asks.
func (s Set) AnonymousKubeconfig(cluster, server string) ([]byte, error) {
	ca, err := s.Bytes(CACert)
	if err != nil {
		return nil, fmt.Errorf("making an anonymous kubeconfig: %w", err)
	}
	nc, nu := namedCluster{Name: cluster}, namedUser{Name: "anonymous"}
	nc.Cluster.Server, nc.Cluster.CA = server, ca
	return kubeconfigOf(nc, nu)
}

func kubeconfigOf(nc namedCluster, nu namedUser) ([]byte, error) {
	cluster, user := nc.Name, nu.Name
	var nx namedContext
	nx.Name, nx.Context.Cluster, nx.Context.User = user+"@"+cluster, cluster, user
	out, err := yaml.Marshal(kubeconfig{
		APIVersion: "v1", Kind: "Config",
		Clusters: []namedCluster{nc}, Users: []namedUser{nu}, Contexts: []namedContext{nx}, CurrentContext: nx.Name,
	})
	if err != nil {
		return nil, fmt.Errorf("making the kubeconfig of %s: %w", user, err)
	}
	return out, nil
}
