package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// EtcdClientLife is how long a certificate of [EtcdClient] is valid: longer
// than any restore takes.
const EtcdClientLife = 24 * time.Hour

// EtcdClient makes a key and a certificate for a client of etcd, signed by
// etcd's authority in dir, and returns them with that authority's certificate
// in PEM. They are kept nowhere. Of o it needs Now and Rand.
func EtcdClient(dir, commonName string, o Options) (_ tls.Certificate, authority []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a certificate for etcd from %s: %w", dir, err)
		}
	}()
	s := Set{map[Name][]byte{}}
	for _, n := range []Name{EtcdCACert, EtcdCAKey} {
		if s.files[n], err = os.ReadFile(filepath.Join(dir, string(n))); err != nil {
			return tls.Certificate{}, nil, err
		}
	}
	ca, caKey, err := s.pair(etcdCA.pair)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	if o.Rand == nil || o.Now.IsZero() {
		return tls.Certificate{}, nil, errors.New("internal error: no time or no random bytes")
	}
	key, err := newKey(o.Rand)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := leaf{cn: commonName, client: true, sans: noSANs}.issue(o, EtcdClientLife, ca, caKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pair, err := tls.X509KeyPair(cert, keyPEM)
	return pair, s.files[EtcdCACert], err
}
