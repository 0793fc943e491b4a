// Package health decides whether a boot is good: the kubelet is healthy, on a
// master the API server is ready, and the node object is Ready, by this boot's
// kubelet and not by the memory of the last one. A boot that is not good in
// time is not blessed, so that systemd-boot's counting comes back to the
// image before (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting).
//
// A master whose etcd waits for other masters has done its part: while that is
// so, the clock stands still. No image is worse for machines that are off.
//
// It speaks HTTP itself; of a kubeconfig it understands what a kubelet writes
// (see [ParseKubeconfig]). It does not check that pods run.
package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kscratch/kscratch/ignition/firstboot"
)

// Options say what to ask and how long. Root is required.
type Options struct {
	Root       string        // directory of the node's file system: "/" on a node
	Kubeconfig string        // the kubelet's, an absolute path below Root; empty: the node object is not looked at
	Timeout    time.Duration // until the boot is bad; 10 min
	Interval   time.Duration // between looks; 2 s
	Log        *slog.Logger  // nil: nowhere
}

// envPath is written by kscratch-node pod-cidr and names the node.
const envPath = "run/kscratch/node.env"

// Wait returns nil as soon as everything asked is well. If it is not within
// the timeout, the error has the last reason of each thing that is not.
func Wait(ctx context.Context, o Options) error {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b, err := os.ReadFile(filepath.Join(o.Root, firstboot.ConfigPath))
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	cfg, err := firstboot.ParseConfig(b)
	if err != nil {
		return err
	}
	return (&gate{o, cfg.Health, cfg.Etcd != nil}).wait(ctx)
}

// gate is what a boot has to pass.
type gate struct {
	Options
	ask  firstboot.Health
	etcd bool // there are other members of etcd
}

func (g *gate) wait(ctx context.Context) error {
	said := ""
	left, before := g.Timeout, time.Now()
	for {
		once, cancel := context.WithTimeout(ctx, left)
		err := g.check(once)
		cancel()
		if err == nil {
			g.Log.Info("this boot is good")
			return nil
		}
		others := g.othersMissing()
		now := time.Now()
		if others == "" {
			left -= now.Sub(before)
		} else {
			err = errors.New(others)
		}
		before = now
		// What the end of our own time makes of a request is no reason.
		if (left > 0 || said == "") && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			g.Log.Info("not healthy yet", "reason", oneLine(said))
		}
		if left <= 0 {
			return fmt.Errorf("waiting %v for a healthy node: %w: %s", g.Timeout, context.DeadlineExceeded, oneLine(said))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting %v for a healthy node: %w: %s", g.Timeout, ctx.Err(), oneLine(said))
		case <-time.After(min(g.Interval, left)):
		}
	}
}

// othersMissing returns what a master waits for that is other masters' to do;
// empty if there is nothing.
func (g *gate) othersMissing() string {
	if !g.etcd {
		return ""
	}
	b, err := os.ReadFile(g.under(firstboot.EtcdReportPath))
	if err != nil {
		return "" // kscratch-node etcd has not looked yet
	}
	var r firstboot.EtcdReport
	if err := json.Unmarshal(b, &r); err != nil || !r.Others {
		return ""
	}
	return r.Message
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// attempt bounds one look at everything.
const attempt = 30 * time.Second

func (g *gate) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	plain := &http.Transport{} // the default one looks for proxies
	defer plain.CloseIdleConnections()
	_, err := get(ctx, plain, g.ask.Kubelet)
	return errors.Join(wrap("kubelet", err), wrap("API server", g.checkAPIServer(ctx)), wrap("node", g.checkNode(ctx)))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (g *gate) checkAPIServer(ctx context.Context) error {
	if g.ask.APIServer == "" {
		return nil
	}
	t, err := g.transport(g.kubeconfigOrNone())
	if err != nil {
		return err
	}
	defer t.CloseIdleConnections()
	_, err = get(ctx, t, g.ask.APIServer)
	return err
}

// kubeconfigOrNone returns the kubelet's kubeconfig, if it has one yet. Its
// certificate is shown to the API server, which may not take anonymous
// requests; where it does, readyz needs none.
func (g *gate) kubeconfigOrNone() Kubeconfig {
	k, err := g.kubeconfig()
	if err != nil {
		return Kubeconfig{}
	}
	return k
}

func (g *gate) kubeconfig() (Kubeconfig, error) {
	if g.Kubeconfig == "" {
		return Kubeconfig{}, nil
	}
	b, err := os.ReadFile(g.under(g.Kubeconfig))
	if err != nil {
		return Kubeconfig{}, fmt.Errorf("the kubelet has no kubeconfig yet: %w", err)
	}
	k, err := ParseKubeconfig(string(b))
	if err != nil {
		return Kubeconfig{}, fmt.Errorf("parsing %s: %w", g.Kubeconfig, err)
	}
	return k, nil
}

// under returns where an absolute path of the node is. Symbolic links are
// followed: the kubelet's current certificate is one.
func (g *gate) under(p string) string { return filepath.Join(g.Root, p) }

// transport returns one that trusts the cluster's CA only and shows the client
// certificate of k, if there is one.
func (g *gate) transport(k Kubeconfig) (*http.Transport, error) {
	ca, err := g.data(k.CAData, orElse(g.ask.CA, k.CA))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the cluster's CA file holds no certificate")
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if k.Cert != "" || len(k.CertData) > 0 {
		pair, err := g.pair(k)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{TLSClientConfig: c}, nil
}

func (g *gate) pair(k Kubeconfig) (tls.Certificate, error) {
	cert, err := g.data(k.CertData, k.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := g.data(k.KeyData, k.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("loading the kubelet's certificate: %w", err)
	}
	return pair, nil
}

// data returns inline data, or else what is in a file.
func (g *gate) data(inline []byte, file string) ([]byte, error) {
	if len(inline) > 0 {
		return inline, nil
	}
	return os.ReadFile(g.under(file))
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// node is the part of a Node object that we look at.
type node struct {
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message string }
		NodeInfo   struct {
			BootID string `json:"bootID"`
		}
	}
}

func (g *gate) checkNode(ctx context.Context) error {
	if g.Kubeconfig == "" {
		return nil
	}
	k, err := g.kubeconfig()
	if err != nil {
		return err
	}
	name, err := g.nodeName()
	if err != nil {
		return err
	}
	t, err := g.transport(k)
	if err != nil {
		return err
	}
	defer t.CloseIdleConnections()
	b, err := get(ctx, t, strings.TrimSuffix(k.Server, "/")+"/api/v1/nodes/"+url.PathEscape(name))
	if err != nil {
		return err
	}
	return g.judge(name, b)
}

// judge reads a Node object. One that a kubelet of this boot has not written
// yet still says what was true before.
func (g *gate) judge(name string, object []byte) error {
	var n node
	if err := json.Unmarshal(object, &n); err != nil {
		return fmt.Errorf("reading node object %s: %w", name, err)
	}
	boot, err := os.ReadFile(g.under("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return err
	}
	if id := strings.TrimSpace(string(boot)); n.Status.NodeInfo.BootID != id {
		return fmt.Errorf("%s has status of boot %q, this is %s", name, n.Status.NodeInfo.BootID, id)
	}
	for _, c := range n.Status.Conditions {
		if c.Type != "Ready" {
			continue
		}
		if c.Status != "True" {
			return fmt.Errorf("%s is not Ready: %s: %s", name, c.Reason, c.Message)
		}
		return nil
	}
	return fmt.Errorf("%s has no Ready condition yet", name)
}

func (g *gate) nodeName() (string, error) {
	b, err := os.ReadFile(g.under(envPath))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "KSCRATCH_NODE_NAME="); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("/%s does not name the node", envPath)
}

// maxBody bounds an answer in bytes; etcd takes no object above 1.5 MiB.
const maxBody = 4 << 20

// get returns the body of an answer of status 200.
func get(ctx context.Context, t http.RoundTripper, from string) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, text/plain")
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", from, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", from, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s%s", from, resp.Status, complaint(string(body)))
	}
	return body, nil
}

// complaint returns the checks that fail in an answer of readyz, or else the
// beginning of the answer.
func complaint(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	text := strings.Join(failed, " ")
	if text == "" {
		text = strings.Join(strings.Fields(body), " ")
	}
	if text == "" {
		return ""
	}
	return fmt.Sprintf(": %.200s", text)
}
