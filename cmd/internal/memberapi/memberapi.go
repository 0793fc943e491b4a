// Package memberapi is how the masters of a cluster with several members of
// etcd, and its operator, speak to kscratch-node on a master: HTTPS on a port
// of its own, with certificates of etcd's authority on both ends.
//
//	GET  /v1/status               what the member has on its disk; for peers and the operator
//	PUT  /v1/restore/ID           takes data of etcd's, a tar file, and puts it aside
//	POST /v1/restore/ID/hold      stops etcd until commit or release; the data has to be there
//	POST /v1/restore/ID/commit    puts the data of a held member in the place of its own
//	POST /v1/restore/ID/release   forgets the data and the hold
//
// A member keeps the data of one restore, and serves one request about it at a
// time. While it is held, it takes other data only from who knows for what: the
// query instead=ID of PUT names that.
//
// ID is that of the cluster which the data is for ([formation.Record.ID]). All
// but the first are for the operator alone, whom [Operator] names; only who
// has the key of etcd's authority can be that, and no image has it. Errors are
// a status of 4xx or 5xx and a line of text.
package memberapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/cmd/internal/formation"
)

// Ports of a member: etcd's own two, etcd's metrics (on 127.0.0.1 only), and
// that of this package.
const (
	ClientPort  = 2379
	PeerPort    = 2380
	MetricsPort = 2381
	Port        = 2382
)

// Operator is the common name in the certificate of the cluster's operator.
const Operator = "kscratch-operator"

// Instead is the name of the query with the ID of a restore that a member is
// held for, and that is given up.
const Instead = "instead"

// MaxStatus bounds a status in bytes; five members take less than two KiB.
const MaxStatus = 64 << 10

// URL returns https://address:port.
func URL(address string, port int) string {
	return "https://" + net.JoinHostPort(address, strconv.Itoa(port))
}

// TLS returns the configuration of both ends: the authority is etcd's, and
// clients have to say who they are.
func TLS(ca []byte, own tls.Certificate) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("reading etcd's authority: it has no PEM certificate")
	}
	return &tls.Config{
		RootCAs: pool, ClientCAs: pool, Certificates: []tls.Certificate{own},
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}

// Client speaks to one member. Close it in the end.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client of the member at an address. Its requests end
// with their contexts only.
func NewClient(address string, c *tls.Config) *Client {
	return &Client{URL(address, Port), &http.Client{Transport: &http.Transport{TLSClientConfig: c.Clone()}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is what a member tells of itself.
type Status struct {
	formation.Status
	Held string `json:"held,omitempty"` // ID of the restore that its etcd stands still for
}

// Status asks what the member has on its disk.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	b, err := c.do(ctx, http.MethodGet, "/v1/status", nil)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("asking %s for its status: %w", c.base, err)
	}
	return s, nil
}

// Stage sends a tar file of etcd's data for the cluster id. If the member is
// held for a restore that was cut off, instead is its ID.
func (c *Client) Stage(ctx context.Context, id, instead string, data io.Reader) error {
	h := sha256.New()
	b, err := c.do(ctx, http.MethodPut, "/v1/restore/"+id+"?"+Instead+"="+instead, io.TeeReader(data, h))
	if err == nil && strings.TrimSpace(string(b)) != hex.EncodeToString(h.Sum(nil)) {
		err = errors.New("what arrived is not what was sent")
	}
	if err != nil {
		return fmt.Errorf("sending data to %s: %w", c.base, err)
	}
	return nil
}

// Hold stops the member's etcd, and returns when it has stopped.
func (c *Client) Hold(ctx context.Context, id string) error {
	return c.tell(ctx, id, "hold", nil)
}

// Commit puts the data that was staged in the place of the member's own. The
// record is that of the new cluster.
func (c *Client) Commit(ctx context.Context, r formation.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.tell(ctx, r.ID(), "commit", bytes.NewReader(b))
}

// Release undoes Stage and Hold.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.tell(ctx, id, "release", nil)
}

func (c *Client) tell(ctx context.Context, id, verb string, body io.Reader) error {
	if _, err := c.do(ctx, http.MethodPost, "/v1/restore/"+id+"/"+verb, body); err != nil {
		return fmt.Errorf("telling %s to %s: %w", c.base, verb, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxStatus))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return b, nil
}
