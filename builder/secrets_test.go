package builder_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/pem"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers"
)

// TestKeysOfEachRole looks for every private key of the PKI in every file of an
// image, through any nesting of base64, URL escapes and gzip.
func TestKeysOfEachRole(t *testing.T) {
	const every = "admin approver apiserver apiserver-etcd-client apiserver-kubelet-client ca controller-manager " +
		"etcd-peer etcd-server front-proxy-client kube-proxy bootstrap sa scheduler"
	for _, tt := range []struct {
		security string
		role     builder.Role
		want     string
	}{
		{"https", builder.Worker, "bootstrap kube-proxy"},
		{"firewall", builder.Worker, ""},
		{"https", builder.Master, every},
	} {
		t.Run(tt.security+" "+string(tt.role), func(t *testing.T) {
			p := newProject(t)
			p.spec.Security, p.spec.Network.NodeCIDRs = tt.security, []string{"192.168.76.0/24"}
			owners := keyOwners(t, p.spec.PKI)
			found := map[string]bool{}
			img := p.role(t, tt.role)
			for _, tree := range []*layers.Tree{img.Root, img.Initrd, img.Config} {
				for f := range tree.Files() {
					if !f.Mode.IsRegular() {
						continue
					}
					b, err := f.Read()
					must(t, err)
					search(b, 0, func(der string) { found[owner(t, f.Path, owners, der)] = true })
				}
			}
			want := strings.Fields(tt.want)
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
				t.Errorf("the image holds the keys\n%q, want\n%q", got, want)
			}
		})
	}
}

// keyOwners maps the private keys of a PKI to the names of their files.
func keyOwners(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	must(t, err)
	nested, err := filepath.Glob(filepath.Join(dir, "*", "*.key"))
	must(t, err)
	out := map[string]string{}
	for _, name := range append(files, nested...) {
		b, err := os.ReadFile(name)
		must(t, err)
		block, _ := pem.Decode(b)
		rel, err := filepath.Rel(dir, strings.TrimSuffix(name, ".key"))
		must(t, err)
		out[string(block.Bytes)] = strings.ReplaceAll(rel, "/", "-")
	}
	return out
}

func owner(t *testing.T, path string, owners map[string]string, der string) string {
	t.Helper()
	name, ok := owners[der]
	if !ok {
		t.Errorf("/%s holds a private key that is not the PKI's", path)
	}
	return name
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

var encoded = regexp.MustCompile(`[A-Za-z0-9+/]{40,}={0,2}`)

// search calls found with each private key in b.
func search(b []byte, depth int, found func(der string)) {
	// PEM starts on a line of its own; a data URL does not let it.
	for rest := bytes.ReplaceAll(b, []byte("-----BEGIN"), []byte("\n-----BEGIN")); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			found(string(block.Bytes))
		}
	}
	if depth == 4 {
		return
	}
	if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
		if plain, err := io.ReadAll(z); err == nil {
			search(plain, depth+1, found)
		}
	}
	plain := escaped.ReplaceAllFunc(b, func(e []byte) []byte {
		c, _ := strconv.ParseUint(string(e[1:]), 16, 8)
		return []byte{byte(c)}
	})
	if len(plain) != len(b) {
		search(plain, depth+1, found)
		return
	}
	for _, run := range encoded.FindAll(b, -1) {
		if d, err := base64.StdEncoding.DecodeString(string(run)); err == nil {
			search(d, depth+1, found)
		}
	}
}
