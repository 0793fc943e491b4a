package ignition

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
)

// registries lets docker know registries' own authorities, and the kubelet the
// names and passwords with which it pulls
// (https://kubernetes.io/docs/concepts/containers/images/#config-json).
func registries(n Node) (part, error) {
	type login struct {
		Auth string `json:"auth"`
	}
	var p part
	auths := map[string]login{}
	for _, r := range n.Docker.Registries {
		if len(r.CA) > 0 {
			p.files = append(p.files, file{"/etc/docker/certs.d/" + r.Host + "/ca.crt", 0o644, r.CA})
		}
		if r.Username != "" {
			auths[r.Host] = login{base64.StdEncoding.EncodeToString([]byte(r.Username + ":" + r.Password))}
		}
	}
	if len(auths) == 0 {
		return p, nil
	}
	b, err := json.MarshalIndent(map[string]any{"auths": auths}, "", "  ")
	if err != nil {
		return part{}, fmt.Errorf("writing the registries' passwords: %w", err)
	}
	// Where the kubelet looks is on the state partition: a copy that belongs to
	// this image version is linked there.
	p.files = append(p.files, file{registryLogins, 0o600, append(b, '\n')}, text("/etc/tmpfiles.d/kscratch-registries.conf",
		"L+ "+n.Kubelet.RootDir+"/config.json - - - - "+registryLogins))
	return p, nil
}

const registryLogins = etcKubernetes + "registries.json"

// registrySecrets names the passwords that an image for n holds.
func registrySecrets(n Node) []Secret {
	if !slices.ContainsFunc(n.Docker.Registries, func(r Registry) bool { return r.Username != "" }) {
		return nil
	}
	return []Secret{{registryLogins, "passwords of container registries, for pulling images", 0o600}}
}
