package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
)

// attempt bounds one look at one peer.
const attempt = 5 * time.Second

// peers asks the other masters, and etcd on each.
type peers struct {
	self    firstboot.EtcdMember
	members []string
	tls     *tls.Config
	others  map[string]peer // by name
	order   []string        // of the names
	plain   *http.Client
	said    map[string]string // the last trouble with each peer
}

type peer struct {
	member *memberapi.Client
	etcd   *gateway
}

// newPeers reads the certificates of the image.
func newPeers(root *os.Root, c firstboot.Etcd, self firstboot.EtcdMember) (*peers, error) {
	var err error
	read := func(name string) []byte {
		b, e := root.ReadFile(strings.TrimPrefix(c.PKI, "/") + "/" + name)
		err = errors.Join(err, e)
		return b
	}
	ca, cert, key := read("ca.crt"), read("peer.crt"), read("peer.key")
	if err != nil {
		return nil, fmt.Errorf("reading etcd's certificates: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("reading etcd's certificates: %w", err)
	}
	p := &peers{self: self, members: names(c.Members), others: map[string]peer{}, said: map[string]string{}, plain: &http.Client{Transport: &http.Transport{}}}
	if p.tls, err = memberapi.TLS(ca, pair); err != nil {
		return nil, err
	}
	for _, m := range c.Members {
		if m != self {
			p.others[m.Name] = peer{memberapi.NewClient(m.Address.String(), p.tls), newGateway(m.Address.String(), p.tls)}
			p.order = append(p.order, m.Name)
		}
	}
	return p, nil
}

func (p *peers) close() {
	p.plain.CloseIdleConnections()
	for _, o := range p.others {
		o.member.Close()
		o.etcd.close()
	}
}

// ask asks all peers at once what they have on their disks.
func (p *peers) ask(ctx context.Context, log *slog.Logger) map[string]formation.Status {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	heard := map[string]formation.Status{}
	var mu sync.Mutex
	var work sync.WaitGroup
	for _, name := range p.order {
		work.Go(func() {
			s, err := p.others[name].member.Status(ctx)
			if err == nil {
				err = s.Check(p.members)
			}
			if err == nil && s.Name != name {
				err = fmt.Errorf("the machine at the address of %s says that it is %s", name, s.Name)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				heard[name] = s.Status
			}
			p.note(log, name, err)
		})
	}
	work.Wait()
	return heard
}

// note logs a trouble with a peer when it is new.
func (p *peers) note(log *slog.Logger, name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.said[name] {
		return
	}
	p.said[name] = text
	if err != nil {
		log.Info("a member of etcd does not answer", "name", name, "reason", err)
	} else {
		log.Info("a member of etcd answers", "name", name)
	}
}

// ready reports whether this machine's etcd answers with a majority behind it.
func (p *peers) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(memberapi.MetricsPort)+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := p.plain.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// listening reports whether this machine's etcd may still take connections:
// only one that is refused says that it does not.
func (p *peers) listening(ctx context.Context) bool {
	for _, port := range []uint16{memberapi.ClientPort, memberapi.PeerPort} {
		c, err := (&net.Dialer{Timeout: attempt}).DialContext(ctx, "tcp", netip.AddrPortFrom(p.self.Address, port).String())
		if err == nil {
			_ = c.Close() // nothing was said
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// seat asks the etcd of one peer after the other for this member's place.
func (p *peers) seat(ctx context.Context, log *slog.Logger) formation.Seat {
	for _, name := range p.order {
		s, err := p.others[name].etcd.seat(ctx, memberapi.URL(p.self.Address.String(), memberapi.PeerPort))
		if err == nil {
			return s
		}
		log.Debug("asking etcd for its members", "of", name, "error", err)
	}
	return formation.Seat{}
}

// claim takes a place for a nonce, by way of the first peer whose etcd can.
func (p *peers) claim(ctx context.Context, id uint64, nonce string) error {
	err := errors.New("nobody to ask")
	for _, name := range p.order {
		if err = p.others[name].etcd.claim(ctx, id, nonce); err == nil {
			return nil
		}
	}
	return err
}
