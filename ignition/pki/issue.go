package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"time"
)

// newKey draws a P-256 key from r by rejection (FIPS 186-5, A.2.2). It does
// not use ecdsa.GenerateKey, which ignores the reader it is given.
func newKey(r io.Reader) (*ecdsa.PrivateKey, error) {
	b := make([]byte, 32)
	for range 64 { // one draw is enough with a probability of 1 - 2⁻³²
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("reading random bytes: %w", err)
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("drawing a key: the source of random bytes is broken")
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodePublic(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// parseKey reads the only block of b, an ECDSA key in PKCS #8.
func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	der, err := onlyBlock(b, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("parsing the key: want ECDSA, got %T", k)
	}
	return key, nil
}

// parseCert reads the only block of b, a certificate.
func parseCert(b []byte) (*x509.Certificate, error) {
	der, err := onlyBlock(b, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate: %w", err)
	}
	return c, nil
}

func onlyBlock(b []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, fmt.Errorf("parsing PEM: no block %q", kind)
	case block.Type != kind:
		return nil, fmt.Errorf("parsing PEM: block %q, want %q", block.Type, kind)
	case len(rest) != 0:
		return nil, fmt.Errorf("parsing PEM: %d bytes after the block", len(rest))
	}
	return block.Bytes, nil
}

// signer signs without drawing random bytes (RFC 6979), so that a certificate
// depends on nothing but what went into it.
type signer struct{ *ecdsa.PrivateKey }

func (s signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.PrivateKey.Sign(nil, digest, opts)
}

func serial(r io.Reader) (*big.Int, error) {
	b := make([]byte, 16) // RFC 5280, 4.1.2.2: positive, at most 20 octets
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

func (a *authority) issue(o Options, key *ecdsa.PrivateKey) ([]byte, error) {
	t, err := template(o, AuthorityLife, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	t.Subject = pkix.Name{CommonName: o.Cluster + "-" + a.cn}
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	t.IsCA, t.MaxPathLenZero = true, true
	return sign(t, t, key, key)
}

func (l leaf) issue(o Options, life time.Duration, ca *x509.Certificate, caKey, key *ecdsa.PrivateKey) ([]byte, error) {
	t, err := template(o, life, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	t.Subject = pkix.Name{CommonName: l.cn, Organization: l.groups}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = l.usages()
	for _, san := range l.sans(o) {
		if ip, err := netip.ParseAddr(san); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, san)
		}
	}
	return sign(t, ca, key, caKey)
}

func (l leaf) usages() []x509.ExtKeyUsage {
	var u []x509.ExtKeyUsage
	if l.server {
		u = append(u, x509.ExtKeyUsageServerAuth)
	}
	if l.client {
		u = append(u, x509.ExtKeyUsageClientAuth)
	}
	return u
}

func template(o Options, life time.Duration, pub *ecdsa.PublicKey) (*x509.Certificate, error) {
	if o.Rand == nil {
		return nil, fmt.Errorf("the source of random bytes is missing")
	}
	n, err := serial(o.Rand)
	if err != nil {
		return nil, err
	}
	raw, err := pub.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	id := sha256.Sum256(raw)
	return &x509.Certificate{
		SerialNumber:          n,
		NotBefore:             o.Now.UTC().Truncate(time.Second).Add(-backdate),
		NotAfter:              o.Now.UTC().Truncate(time.Second).Add(life),
		SubjectKeyId:          id[:20],
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}, nil
}

func sign(t, parent *x509.Certificate, key, by *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(nil, t, parent, &key.PublicKey, signer{by})
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", t.Subject, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
