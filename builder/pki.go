package builder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/ignition/pki"
)

// EnsurePKI makes the cluster's PKI if its directory is not there, reissues
// what the spec's names ask for, and checks the rest. It returns the directory.
// Paths are relative to dir; random is cryptographically secure.
func EnsurePKI(s *Spec, dir string, now time.Time, random io.Reader) (string, error) {
	at := under(dir, s.PKI)
	o, err := pkiOptions(s)
	if err != nil {
		return "", err
	}
	o.Now, o.Rand = now, random
	if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
		err := pki.New(at, o)
		if _, missing := os.Lstat(at); err == nil || missing != nil {
			return at, err
		} // another kscratch made it meanwhile
	}
	if _, err := pki.Ensure(at, o); err != nil {
		return "", err
	}
	if problems := pki.Check(at, o); len(problems) > 0 {
		lines := make([]string, len(problems))
		for i, p := range problems {
			lines[i] = p.Error()
		}
		return "", &InputError{What: "checking the PKI", Err: errors.New(strings.Join(lines, "\n"))}
	}
	return at, nil
}

func pkiOptions(s *Spec) (pki.Options, error) {
	service, err := serviceIP(s)
	if err != nil {
		return pki.Options{}, err
	}
	host, _, _ := strings.Cut(s.ControlPlane.Endpoint, ":")
	members := s.Etcd.addresses()
	return pki.Options{
		Cluster: s.Name, Domain: s.Network.ClusterDomain, ServiceIP: service,
		ExtraSANs: slices.Concat([]string{host, s.InternalName()}, s.ControlPlane.ExtraSANs, members),
		EtcdSANs:  members,
		Server:    "https://" + s.ControlPlane.Endpoint,
	}, nil
}

// addresses returns those of the members: each has an API server, too.
func (e Etcd) addresses() (out []string) {
	for _, m := range e.Members {
		out = append(out, m.Address)
	}
	return out
}

// serviceIP returns the address of the kubernetes service: the first of the
// service range.
func serviceIP(s *Spec) (netip.Addr, error) {
	p, err := netip.ParsePrefix(s.Network.ServiceCIDR)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("internal error: an unchecked spec: %w", err)
	}
	return p.Addr().Next(), nil
}

// under returns path, relative to dir unless it is absolute.
func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// HasPKI reports whether the cluster's PKI is there.
func HasPKI(s *Spec, dir string) bool {
	_, err := os.Lstat(under(dir, s.PKI))
	return err == nil
}
