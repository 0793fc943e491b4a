package etcd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/ignition/pki"
)

// started is the server of a member, and who may speak to it.
type started struct {
	*httptest.Server
	a        *agent
	operator *http.Client
	peer     *http.Client
	stranger *http.Client
	dir      string
}

func start(t *testing.T) started {
	t.Helper()
	dir := t.TempDir()
	o := pki.Options{Cluster: "test", Domain: "cluster.local", ServiceIP: netip.MustParseAddr("10.96.0.1"), Now: time.Now(), Rand: rand.Reader}
	s := started{dir: filepath.Join(dir, "root"), a: &agent{
		config: firstboot.Etcd{Members: []firstboot.EtcdMember{{Name: "a", Address: netip.MustParseAddr("127.0.0.1")}}}, ops: make(chan op),
	}}
	keys := filepath.Join(dir, "pki")
	if err := pki.New(keys, o); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.a.self = s.a.config.Members[0]
	s.a.peers = &peers{self: firstboot.EtcdMember{Address: netip.MustParseAddr("127.99.99.99")}} // where no etcd listens
	s.a.disk = onDisk(t, s.dir)
	config := func(name string) *tls.Config {
		pair, authority, err := pki.EtcdClient(keys, name, o)
		if err != nil {
			t.Fatal(err)
		}
		c, err := memberapi.TLS(authority, pair)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	client := func(c *tls.Config) *http.Client { return &http.Client{Transport: &http.Transport{TLSClientConfig: c}} }
	s.operator, s.peer = client(config(memberapi.Operator)), client(config("etcd"))
	anonymous := config("x")
	anonymous.Certificates = nil
	s.stranger = client(anonymous)

	s.Server = httptest.NewUnstartedServer(s.a.handler())
	pair, err := tls.LoadX509KeyPair(filepath.Join(keys, "etcd/peer.crt"), filepath.Join(keys, "etcd/peer.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = config("x")
	s.TLS.Certificates = []tls.Certificate{pair}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		for {
			select {
			case o := <-s.a.ops:
				o.done <- o.do()
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// ask returns an answer as "status text".
func (s started) ask(t *testing.T, c *http.Client, method, path string, body []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "error " + err.Error()
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(resp.Status[:3] + " " + b.String())
}

// TestServerLetsIn: peers may ask, the operator may do, strangers nothing.
func TestServerLetsIn(t *testing.T) {
	s := start(t)
	id := strings.Repeat("ab", 32)
	for _, c := range []struct {
		who          *http.Client
		method, path string
		want         string
	}{
		{s.peer, "GET", "/v1/status", `200 {"name":"a"}`},
		{s.operator, "GET", "/v1/status", `200 {"name":"a"}`},
		{s.stranger, "GET", "/v1/status", "error "},
		{s.peer, "PUT", "/v1/restore/" + id, "403 only for the cluster's operator"},
		{s.peer, "POST", "/v1/restore/" + id + "/hold", "403 "},
		{s.peer, "POST", "/v1/restore/" + id + "/commit", "403 "},
		{s.peer, "POST", "/v1/restore/" + id + "/release", "403 "},
		{s.stranger, "POST", "/v1/restore/" + id + "/release", "error "},
		{s.operator, "POST", "/v1/restore/" + id + "/release", "200"},
		{s.operator, "POST", "/v1/restore/..%2f..%2fx/release", "400 this is no ID of a cluster"},
		{s.operator, "POST", "/v1/restore/" + id + "/commit", "500 reading the record: EOF"},
		{s.operator, "GET", "/", "404 "},
	} {
		if got := s.ask(t, c.who, c.method, c.path, nil); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: got %q, want %q", c.method, c.path, got, c.want)
		}
	}
	r := formation.Record{Members: map[string]string{"a": strings.Repeat("0", 32)}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ id, want string }{
		{id, "500 the record is of another cluster"},
		{r.ID(), "500 putting restored data in place: this member is not held for"},
	} {
		if got := s.ask(t, s.operator, "POST", "/v1/restore/"+c.id+"/commit", b); !strings.HasPrefix(got, c.want) {
			t.Errorf("commit of %.6s: got %q, want %q", c.id, got, c.want)
		}
	}
}

// TestStage: only plain files below the directory get onto the disk.
func TestStage(t *testing.T) {
	s := start(t)
	id := strings.Repeat("cd", 32)
	for _, c := range []struct {
		name string
		kind byte
		want string
	}{
		{"member/wal/0.wal", tar.TypeReg, "200 "},
		{"member/wal", tar.TypeDir, "200 "},
		{"../x", tar.TypeReg, `500 unpacking etcd's data: "../x" is not a plain file`},
		{"/x", tar.TypeReg, `500 unpacking etcd's data: "/x" is not a plain file`},
		{"member//x", tar.TypeReg, `500 unpacking`},
		{"link", tar.TypeSymlink, `500 unpacking etcd's data: "link" is not a plain file`},
		{"device", tar.TypeChar, `500 unpacking`},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: c.name, Typeflag: c.kind, Linkname: "/etc/passwd", Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := s.ask(t, s.operator, "PUT", "/v1/restore/"+id, b.Bytes()); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := s.ask(t, s.operator, "PUT", "/v1/restore/"+id, []byte("x")); !strings.HasPrefix(got, "500 unpacking etcd's data: ") {
		t.Errorf("no tar file: %q", got)
	}
	if found, _ := filepath.Glob(filepath.Join(s.dir, "var/lib/etcd/kscratch/*/x")); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
}
