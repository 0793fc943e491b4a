package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Problem is one law of a PKI that does not hold.
type Problem struct {
	Path string // file or directory
	What string // is wrong with it
	Fix  string // what to do
}

func (p Problem) Error() string { return p.Path + ": " + p.What + "; fix: " + p.Fix }

// What to do about a problem. The commands are the CLI's.
const (
	fixRenew   = "run `kscratch pki renew` and rebuild the images"
	fixRestore = "restore the file from your backup; a new PKI means a new cluster"
	fixClock   = "set this machine's clock"
)

// Check returns every law that the PKI in dir breaks at o.Now: each file is
// there with the right mode, keys fit their certificates, certificates carry
// the right identity and chain to their authority, none is expired or about
// to (see MinRemaining), and the API server's has every name that o asks for.
func Check(dir string, o Options) []Problem {
	c := checker{dir: dir, o: o, set: Set{map[Name][]byte{}}}
	if err := o.check(); err != nil {
		return []Problem{{dir, err.Error(), "internal error: give Check what it needs"}}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return []Problem{{dir, err.Error(), "run `kscratch init`, which makes a PKI"}}
	}
	defer root.Close()
	c.dirs(root)
	for _, n := range append(Names(), adminKubeconfig) {
		c.file(root, n)
	}
	for _, a := range authorities {
		c.authority(a)
	}
	for _, l := range leaves {
		c.leaf(l)
	}
	c.serviceAccounts()
	return c.problems
}

type checker struct {
	dir      string
	o        Options
	set      Set
	problems []Problem
}

func (c *checker) add(n Name, fix, format string, args ...any) {
	c.problems = append(c.problems, Problem{filepath.Join(c.dir, string(n)), fmt.Sprintf(format, args...), fix})
}

func (c *checker) dirs(root *os.Root) {
	for _, d := range []Name{".", "etcd"} {
		switch fi, err := root.Stat(string(d)); {
		case err != nil: // its files are reported
		case fi.Mode().Perm()&0o077 != 0:
			c.add(d, "chmod 0700 "+filepath.Join(c.dir, string(d)), "others may enter the directory (mode %04o)", fi.Mode().Perm())
		}
	}
}

func (c *checker) file(root *os.Root, n Name) {
	fi, err := root.Stat(string(n))
	if err == nil && fi.Mode().Type() != 0 {
		err = fmt.Errorf("not a regular file (%v)", fi.Mode().Type())
	}
	if err != nil {
		c.add(n, fixRestore, "%v", err)
		return
	}
	if n.Secret() && fi.Mode().Perm()&0o077 != 0 {
		c.add(n, "chmod 0600 "+filepath.Join(c.dir, string(n)), "others may read the key (mode %04o)", fi.Mode().Perm())
	}
	b, err := root.ReadFile(string(n))
	if err != nil {
		c.add(n, fixRestore, "%v", err)
		return
	}
	c.set.files[n] = b
}

// pair parses a certificate and its key and compares them. Files that could
// not be read have been reported.
func (c *checker) pair(p pair) *x509.Certificate {
	certPEM, keyPEM := c.set.files[p.cert], c.set.files[p.key]
	var cert *x509.Certificate
	var key *ecdsa.PrivateKey
	var err error
	if certPEM != nil {
		if cert, err = parseCert(certPEM); err != nil {
			c.add(p.cert, fixRestore, "%v", err)
		}
	}
	if keyPEM != nil {
		if key, err = parseKey(keyPEM); err != nil {
			c.add(p.key, fixRestore, "%v", err)
		}
	}
	if cert != nil && key != nil && !key.PublicKey.Equal(cert.PublicKey) {
		c.add(p.key, fixRestore, "is not the key of %s", p.cert)
	}
	return cert
}

func (c *checker) authority(a *authority) {
	cert := c.pair(a.pair)
	if cert == nil {
		return
	}
	if !cert.IsCA || cert.CheckSignatureFrom(cert) != nil {
		c.add(a.cert, fixRestore, "is not a self-signed authority")
	}
	c.times(a.cert, cert, "make a new PKI and a new cluster: an authority cannot be renewed")
}

func (c *checker) times(n Name, cert *x509.Certificate, fix string) {
	left := cert.NotAfter.Sub(c.o.Now)
	switch {
	case c.o.Now.Before(cert.NotBefore):
		c.add(n, fixClock, "is not valid before %s, and now is %s", stamp(cert.NotBefore), stamp(c.o.Now))
	case left <= 0:
		c.add(n, fix, "expired on %s", stamp(cert.NotAfter))
	case left < MinRemaining:
		c.add(n, fix, "expires on %s, in %d days", stamp(cert.NotAfter), int(left/(24*time.Hour)))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (c *checker) leaf(l leaf) {
	cert := c.pair(l.pair)
	if cert == nil {
		return
	}
	c.times(l.cert, cert, fixRenew)
	if cert.Subject.CommonName != l.cn || !slices.Equal(cert.Subject.Organization, l.groups) {
		c.add(l.cert, fixRenew, "is for %q, want CN=%s O=%v", cert.Subject, l.cn, l.groups)
	}
	if m := l.missing(c.o, cert); len(m) > 0 {
		c.add(l.cert, fixRenew, "lacks %s, which the spec asks for", strings.Join(m, ", "))
	}
	c.chain(l, cert)
}

func (c *checker) chain(l leaf, cert *x509.Certificate) {
	ca, err := parseCert(c.set.files[l.ca.cert])
	if err != nil {
		return // reported with the authority
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, usage := range l.usages() {
		// Time is judged on its own, with a better message.
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: cert.NotBefore, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			c.add(l.cert, fixRenew, "does not chain to %s: %v", l.ca.cert, err)
			return
		}
	}
}

// missing returns the names and addresses that o asks for and cert lacks.
func (l leaf) missing(o Options, cert *x509.Certificate) []string {
	var out []string
	for _, san := range l.sans(o) {
		ip, err := netip.ParseAddr(san)
		has := slices.Contains(cert.DNSNames, san)
		if err == nil {
			has = slices.ContainsFunc(cert.IPAddresses, func(b net.IP) bool { return sameIP(b, ip) })
		}
		if !has {
			out = append(out, san)
		}
	}
	return out
}

func sameIP(b []byte, ip netip.Addr) bool {
	got, ok := netip.AddrFromSlice(b)
	return ok && got.Unmap() == ip.Unmap()
}

func (c *checker) serviceAccounts() {
	keyPEM, pub := c.set.files[ServiceAccountKey], c.set.files[ServiceAccountPub]
	if keyPEM == nil || pub == nil {
		return
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		c.add(ServiceAccountKey, fixRestore, "%v", err)
		return
	}
	block, _ := pem.Decode(pub)
	want, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil || block == nil || string(block.Bytes) != string(want) {
		c.add(ServiceAccountPub, fixRestore, "is not the public half of %s", ServiceAccountKey)
	}
}
