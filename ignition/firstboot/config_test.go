package firstboot

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const master = `{"role":"master","clusterCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","bridge":"cbr0",
 "dockerDataRoot":"/var/lib/docker","nodeName":"","nodeNameFromDHCP":false,
 "cluster":{"kubeconfig":"/var/lib/kubelet/kubeconfig","publish":true,"peers":true,"apiServer":["kubernetes","10.96.0.1"]},"health":{"kubelet":"http://127.0.0.1:10248/healthz","apiserver":"https://127.0.0.1:6443/readyz","ca":"/etc/kubernetes/pki/ca.crt"}}`

const etcd = `"etcd":{"dataDir":"/d","pki":"/p","members":[{"name":"a","address":"192.0.2.1"},{"name":"b","address":"192.0.2.2"},{"name":"c","address":"192.0.2.3"}]},`

func TestParseConfig(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"as rendered", "", "", ""},
		{"worker", `,"apiserver":"https://127.0.0.1:6443/readyz","ca":"/etc/kubernetes/pki/ca.crt"`, "", ""},
		{"no CA", `,"ca":"/etc/kubernetes/pki/ca.crt"`, "", `health.ca "": want a clean absolute path`},
		{"fixed name", `"nodeName":""`, `"nodeName":"n1"`, ""},
		{"not JSON", `{"role"`, `role`, "parsing /etc/kscratch/node.json: invalid character"},
		{"more text", `crt"}}`, `crt"}}{}`, "text after its end"},
		{"unknown key", `"role"`, `"rôle":1,"role"`, `unknown field "rôle"`},
		{"no role", `"role":"master",`, ``, `role "": want a DNS label`},
		{"bad CIDR", `10.244.0.0/16`, `10.244.0.0`, "parsing"},
		{"host bits", `10.244.0.0/16`, `10.244.1.0/16`, "clusterCIDR 10.244.1.0/16: want an IPv4 network"},
		{"IPv6", `10.96.0.0/12`, `fd00::/108`, "serviceCIDR fd00::/108: want an IPv4 network"},
		{"no bridge", `cbr0`, ``, `bridge "": want an interface name`},
		{"bridge is a path", `cbr0`, `../x`, `bridge "../x": want`},
		{"relative", `"/var/lib/docker"`, `"docker"`, `dockerDataRoot "docker": want a clean absolute path`},
		{"two names", `"nodeName":"","nodeNameFromDHCP":false`, `"nodeName":"n1","nodeNameFromDHCP":true`, "want only one of them"},
		{"bad name", `"nodeName":""`, `"nodeName":"N 1"`, `node name "N 1" is not a DNS name`},
		{"etcd", `"health":{`, etcd + `"health":{`, ""},
		{"an even number of members", `"health":{`, strings.Replace(etcd, `,{"name":"c","address":"192.0.2.3"}`, "", 1) + `"health":{`, "etcd.members: 2 of them: want 1, 3 or 5"},
		{"a member twice", `"health":{`, strings.Replace(etcd, `"c"`, `"a"`, 1) + `"health":{`, `etcd member "a": its name or address stands twice`},
		{"an address twice", `"health":{`, strings.Replace(etcd, `2.3`, `2.1`, 1) + `"health":{`, `etcd member "c": its name or address stands twice`},
		{"a member without an address", `"health":{`, strings.Replace(etcd, `192.0.2.3`, `fd00::1`, 1) + `"health":{`, `etcd member "c": address fd00::1: want an IPv4 address`},
		{"a member with a bad name", `"health":{`, strings.Replace(etcd, `"c"`, `"C"`, 1) + `"health":{`, `etcd member "C": want a DNS label`},
		{"bad URL", `http://127.0.0.1:10248/healthz`, `127.0.0.1:10248`, `health.kubelet "127.0.0.1:10248": want a URL`},
	} {
		_, err := ParseConfig([]byte(strings.Replace(master, c.old, c.new, 1)))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	c, err := ParseConfig([]byte(master))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(b)
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("got %+v, %v, want %+v", again, err, c)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(master))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfig(b); err == nil && c.Check() != nil {
			t.Fatalf("accepted %+v: %v", c, c.Check())
		}
	})
}
