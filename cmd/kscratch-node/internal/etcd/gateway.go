package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
)

// gateway is a client of etcd's JSON API (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/).
// Three calls do not pay for etcd's own client, which brings gRPC with it and
// would make this program of 16 MB one of 26.
type gateway struct {
	base string
	http *http.Client
}

func newGateway(address string, c *tls.Config) *gateway {
	return &gateway{memberapi.URL(address, memberapi.ClientPort), &http.Client{Transport: &http.Transport{TLSClientConfig: c.Clone()}}}
}

func (g *gateway) close() { g.http.CloseIdleConnections() }

// member is etcd's Member; the gateway writes 64-bit numbers as text.
type member struct {
	ID         string
	Name       string
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

// seat returns the place of the member with a peer URL, read by agreement of a
// majority. One that was added to a running cluster has no name until it runs.
func (g *gateway) seat(ctx context.Context, peerURL string) (formation.Seat, error) {
	var list struct{ Members []member }
	if err := g.call(ctx, "/v3/cluster/member/list", map[string]any{"linearizable": true}, &list); err != nil {
		return formation.Seat{}, err
	}
	if len(list.Members) == 0 {
		return formation.Seat{}, errors.New("etcd lists no members")
	}
	i := slices.IndexFunc(list.Members, func(m member) bool { return slices.Contains(m.PeerURLs, peerURL) })
	if i < 0 {
		return formation.Seat{Known: true}, nil
	}
	m := list.Members[i]
	id, err := strconv.ParseUint(m.ID, 10, 64)
	if err != nil {
		return formation.Seat{}, fmt.Errorf("reading etcd's members: %w", err)
	}
	s := formation.Seat{Known: true, ID: id, Added: m.Name == "", Published: len(m.ClientURLs) > 0}
	if s.Added {
		s.Claim, err = g.get(ctx, claimKey(id))
	}
	return s, err
}

// claimKey is the key whose value is the nonce of the disk that has taken the
// place of a member. It is outside of Kubernetes' part, /registry.
func claimKey(id uint64) []byte {
	return []byte("kscratch/etcd/claims/" + strconv.FormatUint(id, 16))
}

func (g *gateway) get(ctx context.Context, key []byte) (string, error) {
	var got struct{ KVs []struct{ Value []byte } }
	if err := g.call(ctx, "/v3/kv/range", map[string]any{"key": key}, &got); err != nil || len(got.KVs) == 0 {
		return "", err
	}
	return string(got.KVs[0].Value), nil
}

// claim writes the nonce unless there is one. Whose it is the next look tells.
func (g *gateway) claim(ctx context.Context, id uint64, nonce string) error {
	key := claimKey(id)
	return g.call(ctx, "/v3/kv/txn", map[string]any{
		"compare": []any{map[string]any{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}},
		"success": []any{map[string]any{"request_put": map[string]any{"key": key, "value": []byte(nonce)}}},
	}, nil)
}

// call posts JSON and decodes the answer; byte strings are base64 in both.
func (g *gateway) call(ctx context.Context, path string, request map[string]any, answer any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, memberapi.MaxStatus)); err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking etcd: %s%s: %s: %.200s", g.base, path, resp.Status, strings.TrimSpace(string(b)))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("asking etcd: reading the answer of %s%s: %w", g.base, path, err)
	}
	return nil
}
