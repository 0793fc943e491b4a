package vm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	requestTime = 20 * time.Second // for one request, with a handshake under emulation
	maxBody     = 32 << 20         // bytes of a response
)

// API is a Kubernetes API server behind a loopback address.
type API struct {
	client *http.Client
	addr   string
}

// kubeconfig is what is used of client-go's format, v1.
type kubeconfig struct {
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			CA []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			Cert []byte `json:"client-certificate-data"`
			Key  []byte `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
	Contexts []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Current string `json:"current-context"`
}

// credentials are the parts of a kubeconfig's current context, as PEM.
type credentials struct{ ca, cert, key []byte }

// parseKubeconfig reads the current context of a kubeconfig. Only embedded
// certificates are supported: no files, tokens, or exec plugins.
func parseKubeconfig(b []byte) (credentials, error) {
	var k kubeconfig
	if err := yaml.Unmarshal(b, &k); err != nil {
		return credentials{}, err
	}
	var c credentials
	for _, ctx := range k.Contexts {
		if ctx.Name != k.Current {
			continue
		}
		for _, cl := range k.Clusters {
			if cl.Name == ctx.Context.Cluster {
				c.ca = cl.Cluster.CA
			}
		}
		for _, u := range k.Users {
			if u.Name == ctx.Context.User {
				c.cert, c.key = u.User.Cert, u.User.Key
			}
		}
	}
	if len(c.ca) == 0 || len(c.cert) == 0 || len(c.key) == 0 {
		return credentials{}, fmt.Errorf("current context %q: want an embedded CA, client certificate and client key", k.Current)
	}
	return c, nil
}

// NewAPI returns the API server at addr, a loopback host:port such as
// [VM.Addr] gives, with the credentials of a kubeconfig. The server named in
// the kubeconfig is never contacted; the server at addr must have a certificate
// for that address.
func NewAPI(config []byte, addr string) (*API, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("reading API address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("reading API address %q: not a loopback address", addr)
	}
	c, err := parseKubeconfig(config)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.ca) {
		return nil, errors.New("reading kubeconfig: the CA is not a PEM certificate")
	}
	t := &http.Transport{ // no proxy: loopback alone
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, IdleConnTimeout: requestTime,
	}
	return &API{&http.Client{Transport: t, Timeout: requestTime}, addr}, nil
}

// StatusError is a response other than 200 OK.
type StatusError struct {
	Path string
	Code int
	Body string // its beginning
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("getting %s: status %d: %s", e.Path, e.Code, e.Body)
}

// Get returns the response to a GET of path, such as "/readyz".
func (a *API) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.addr+path, nil)
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json")
	res, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, &StatusError{path, res.StatusCode, string(b[:min(len(b), 500)])}
	}
	return b, nil
}

// Close lets go of idle connections.
func (a *API) Close() { a.client.CloseIdleConnections() }

// Node is what is used of a Node object.
type Node struct {
	Name      string
	Addresses []string  // "InternalIP 10.0.2.15", …
	Version   string    // of the kubelet
	Runtime   string    // container runtime and its version
	Ready     bool      // the condition of that name
	Why       string    // message of the condition if it is not Ready
	Seen      time.Time // when the kubelet wrote the condition last, in whole seconds
}

// nodeList is the part of a v1 NodeList that makes a [Node].
type nodeList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Status struct {
			Addresses []struct {
				Type    string `json:"type"`
				Address string `json:"address"`
			} `json:"addresses"`
			Conditions []struct {
				Type    string    `json:"type"`
				Status  string    `json:"status"`
				Message string    `json:"message"`
				Seen    time.Time `json:"lastHeartbeatTime"`
			} `json:"conditions"`
			NodeInfo struct {
				KubeletVersion string `json:"kubeletVersion"`
				Runtime        string `json:"containerRuntimeVersion"`
			} `json:"nodeInfo"`
		} `json:"status"`
	} `json:"items"`
}

// Nodes returns the nodes of the cluster, in the order of the server.
func (a *API) Nodes(ctx context.Context) ([]Node, error) {
	b, err := a.Get(ctx, "/api/v1/nodes")
	if err != nil {
		return nil, err
	}
	return parseNodes(b)
}

func parseNodes(b []byte) ([]Node, error) {
	var l nodeList
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	var out []Node
	for _, i := range l.Items {
		n := Node{
			Name: i.Metadata.Name, Version: i.Status.NodeInfo.KubeletVersion,
			Runtime: i.Status.NodeInfo.Runtime, Why: "it has no Ready condition",
		}
		for _, a := range i.Status.Addresses {
			n.Addresses = append(n.Addresses, a.Type+" "+a.Address)
		}
		for _, c := range i.Status.Conditions {
			if c.Type == "Ready" {
				n.Ready, n.Why, n.Seen = c.Status == "True", c.Message, c.Seen
			}
		}
		out = append(out, n)
	}
	return out, nil
}
