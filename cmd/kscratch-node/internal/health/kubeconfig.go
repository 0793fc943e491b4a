package health

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Kubeconfig is what a client needs of one: a server and who to be there.
// Either the path or the data of a part is set.
type Kubeconfig struct {
	Server   string // URL
	CA       string // absolute path of a PEM file
	CAData   []byte // PEM
	Cert     string // absolute path of a PEM file
	CertData []byte // PEM
	Key      string // absolute path of a PEM file
	KeyData  []byte // PEM
}

// ParseKubeconfig reads a kubeconfig with one cluster and one user, in block
// style YAML with plain or quoted values on the line of their key, which is how
// Kubernetes writes them: the kubelet's own, for one. It is not a YAML parser:
// it refuses a file with two servers or two values of a kind, and ignores
// keys it does not know, among them tokens, contexts and proxies.
func ParseKubeconfig(text string) (Kubeconfig, error) {
	var k Kubeconfig
	texts := map[string]*string{
		"server": &k.Server, "certificate-authority": &k.CA, "client-certificate": &k.Cert, "client-key": &k.Key,
	}
	datas := map[string]*[]byte{
		"certificate-authority-data": &k.CAData, "client-certificate-data": &k.CertData, "client-key-data": &k.KeyData,
	}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimLeft(strings.TrimSpace(line), "- "), ":")
		if !ok {
			continue
		}
		value = unquote(strings.TrimSpace(value))
		if err := set(texts[key], datas[key], value); err != nil {
			return Kubeconfig{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	if k.Server == "" {
		return Kubeconfig{}, errors.New("no server in it")
	}
	return k, nil
}

func set(text *string, data *[]byte, value string) (err error) {
	if text != nil && *text != "" || data != nil && *data != nil {
		return errors.New("there are two; want one cluster and one user")
	}
	if text != nil {
		*text = value
	}
	if data != nil {
		*data, err = base64.StdEncoding.DecodeString(value)
	}
	return err
}

// unquote removes the quotes around a value. Escapes in it stay as they are:
// neither URLs nor Base64 need them.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
