package ignition

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kscratch/kscratch/ignition/pki"
)

// RecoverPKI returns the files of the PKI that a role's nodes have, taken from
// what the first boot writes; read gives the content of a path on the node. It
// is the inverse of what [Ignition] does with a PKI, so that an image can be
// built anew without the user's own.
func RecoverPKI(r Role, s Security, read func(path string) ([]byte, error)) (pki.Set, error) {
	files := map[pki.Name][]byte{}
	for _, c := range forRole(r, s) {
		if c.anonymous {
			continue
		}
		b, err := read(c.path)
		if err != nil {
			return pki.Set{}, fmt.Errorf("recovering the PKI: %w", err)
		}
		if c.copies != "" {
			files[c.copies] = b
			continue
		}
		ca, cert, key, err := pki.ParseKubeconfig(b)
		if err != nil {
			return pki.Set{}, fmt.Errorf("recovering the PKI: %s: %w", c.path, err)
		}
		files[pki.CACert], files[c.cert], files[c.key] = ca, cert, key
	}
	return pki.Of(files), nil
}

// RecoverPassword returns the password of a registry, taken from what the first
// boot writes.
func RecoverPassword(host string, read func(path string) ([]byte, error)) (string, error) {
	b, err := read(registryLogins)
	if err != nil {
		return "", fmt.Errorf("recovering the password of registry %s: %w", host, err)
	}
	var logins struct {
		Auths map[string]struct {
			Auth []byte `json:"auth"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(b, &logins); err != nil {
		return "", fmt.Errorf("recovering the password of registry %s: %w", host, err)
	}
	_, password, ok := strings.Cut(string(logins.Auths[host].Auth), ":")
	if !ok {
		return "", fmt.Errorf("recovering the password of registry %s: %s has none", host, registryLogins)
	}
	return password, nil
}
