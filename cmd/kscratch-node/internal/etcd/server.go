package etcd

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"regexp"
	"time"

	"github.com/kscratch/kscratch/cmd/internal/formation"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/cmd/kscratch-node/internal/atomicfile"
)

// server answers peers and the operator.
type server struct {
	http *http.Server
	done chan error
}

func (a *agent) serve() (*server, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(a.self.Address, memberapi.Port).String())
	if err != nil {
		return nil, fmt.Errorf("listening to the other members of etcd: %w", err)
	}
	s := &server{
		// No limit on reading as a whole: data of etcd's may be large.
		http: &http.Server{
			Handler: a.handler(), TLSConfig: a.peers.tls.Clone(), ReadHeaderTimeout: attempt, IdleTimeout: time.Minute,
			ErrorLog: slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug),
		},
		done: make(chan error, 1),
	}
	go func() { s.done <- fmt.Errorf("serving the other members of etcd: %w", s.http.ServeTLS(l, "", "")) }()
	return s, nil
}

func (s *server) wait() error { return <-s.done }

func (s *server) close() { _ = s.http.Close() } // requests end with the program

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() ([]byte, error) { return a.status() })
	})
	mux.HandleFunc("PUT /v1/restore/{id}", operator(func(r *http.Request, id string) ([]byte, error) {
		return a.stage(r.Body, id, r.URL.Query().Get(memberapi.Instead))
	}))
	mux.HandleFunc("POST /v1/restore/{id}/hold", operator(func(r *http.Request, id string) ([]byte, error) { return nil, a.hold(r.Context(), id) }))
	mux.HandleFunc("POST /v1/restore/{id}/commit", operator(func(r *http.Request, id string) ([]byte, error) {
		var record formation.Record
		if err := json.NewDecoder(io.LimitReader(r.Body, memberapi.MaxStatus)).Decode(&record); err != nil {
			return nil, fmt.Errorf("reading the record: %w", err)
		}
		return nil, a.commit(r.Context(), id, record)
	}))
	mux.HandleFunc("POST /v1/restore/{id}/release", operator(func(r *http.Request, id string) ([]byte, error) {
		return nil, a.between(r.Context(), func() error { return a.alone(func() error { return a.disk.release(id) }) })
	}))
	return mux
}

var clusterID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// operator lets nobody but the cluster's operator in.
func operator(do func(r *http.Request, id string) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		switch {
		case len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != memberapi.Operator:
			http.Error(w, "only for the cluster's operator", http.StatusForbidden)
		case !clusterID.MatchString(id):
			http.Error(w, "this is no ID of a cluster", http.StatusBadRequest)
		default:
			answer(w, func() ([]byte, error) { return do(r, id) })
		}
	}
}

func answer(w http.ResponseWriter, of func() ([]byte, error)) {
	b, err := of()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b) // whoever does not wait for it asks again
}

// status is what the member has on its disk.
func (a *agent) status() ([]byte, error) {
	data, err := a.disk.hasData()
	if err != nil {
		return nil, err
	}
	s := a.disk.saved()
	return json.Marshal(memberapi.Status{Status: s.Member.Status(a.self.Name, data), Held: s.Held})
}

// between does something between two looks.
func (a *agent) between(ctx context.Context, do func() error) error {
	o := op{do, make(chan error, 1)}
	select {
	case a.ops <- o:
		return <-o.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// alone does something with the data of a restore, unless another request does.
func (a *agent) alone(do func() error) error {
	if !a.restoring.TryLock() {
		return errors.New("another restore is at work on this member: wait until it has ended")
	}
	defer a.restoring.Unlock()
	return do()
}

// hold stops etcd, for data that has been staged, and waits until it has
// stopped.
func (a *agent) hold(ctx context.Context, id string) error {
	err := a.between(ctx, func() error {
		if err := a.alone(func() error { return a.disk.hold(id) }); err != nil {
			return err
		}
		return a.stopEtcd()
	})
	for err == nil && a.peers.listening(ctx) {
		select {
		case <-ctx.Done():
			err = fmt.Errorf("waiting for etcd to stop: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return err
}

// commit puts staged data in place, which etcd then starts with.
func (a *agent) commit(ctx context.Context, id string, r formation.Record) error {
	if r.ID() != id {
		return errors.New("the record is of another cluster")
	}
	if err := (formation.Status{Name: a.self.Name, Record: &r}).Check(names(a.config.Members)); err != nil {
		return err
	}
	return a.between(ctx, func() error {
		if a.peers.listening(ctx) {
			return errors.New("putting restored data in place: etcd may still run")
		}
		return a.alone(func() error { return a.disk.commit(a.self.Name, r) })
	})
}

// stage takes a tar file of etcd's data, and returns its digest. What senders
// who were cut off have left is removed, but not what this member is held for,
// unless instead is that restore's ID.
func (a *agent) stage(body io.Reader, id, instead string) (digest []byte, err error) {
	err = a.alone(func() error {
		if err := a.disk.clean(id, instead); err != nil {
			return err
		}
		digest, err = a.disk.unpackAll(body, staged(incoming))
		if err != nil {
			return errors.Join(err, a.disk.discard(staged(incoming)))
		}
		return a.disk.move(staged(incoming), staged(id))
	})
	return digest, err
}

// unpackAll writes the files of a tar archive, and returns its digest.
func (d *disk) unpackAll(body io.Reader, below string) ([]byte, error) {
	if err := d.root.MkdirAll(below, 0o700); err != nil {
		return nil, err
	}
	h := sha256.New()
	t := tar.NewReader(io.TeeReader(body, h))
	for {
		e, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = d.unpack(below, e, t)
		}
		if err != nil {
			return nil, fmt.Errorf("unpacking etcd's data: %w", err)
		}
	}
	if _, err := io.Copy(h, body); err != nil { // what follows the end of the archive
		return nil, err
	}
	return []byte(hex.EncodeToString(h.Sum(nil))), nil
}

// unpack writes one file of a tar archive durably. Directories come by
// themselves; nothing else belongs there.
func (d *disk) unpack(below string, e *tar.Header, body io.Reader) error {
	if e.Typeflag == tar.TypeDir {
		return nil
	}
	name := path.Join(below, e.Name)
	if e.Typeflag != tar.TypeReg || !path.IsAbs("/"+e.Name) || path.Clean("/"+e.Name) != "/"+e.Name {
		return fmt.Errorf("%q is not a plain file", e.Name)
	}
	if err := d.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	err = errors.Join(err, f.Sync(), f.Close())
	for dir := path.Dir(name); err == nil && dir != "."; dir = path.Dir(dir) {
		err = atomicfile.Sync(d.root, dir)
	}
	return err
}
