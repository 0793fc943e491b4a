//go:build foreign

package pki

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenSSLAgrees lets openssl judge the chains, purposes, keys and names.
func TestOpenSSLAgrees(t *testing.T) {
	dir := made(t)
	openssl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	at := "1772500000" // 2026-03-03
	for _, l := range leaves {
		for purpose, has := range map[string]bool{"sslserver": l.server, "sslclient": l.client} {
			if has {
				openssl("verify", "-x509_strict", "-attime", at, "-purpose", purpose, "-CAfile", string(l.ca.cert), string(l.cert))
			}
		}
		if a, b := openssl("x509", "-in", string(l.cert), "-noout", "-pubkey"), openssl("pkey", "-in", string(l.key), "-pubout"); a != b {
			t.Errorf("%s: key and certificate differ", l.cert)
		}
	}
	for _, host := range []string{"kubernetes.default.svc.cluster.local", "localhost"} {
		openssl("verify", "-attime", at, "-verify_hostname", host, "-CAfile", "ca.crt", "apiserver.crt")
	}
	for _, ip := range []string{"127.0.0.1", "10.96.0.1", "::1"} {
		openssl("verify", "-attime", at, "-verify_ip", ip, "-CAfile", "ca.crt", "apiserver.crt")
	}
	pub, err := os.ReadFile(filepath.Join(dir, "sa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if got := openssl("pkey", "-in", "sa.key", "-pubout"); got != string(pub) {
		t.Errorf("sa.pub: got\n%s\nwant\n%s", pub, got)
	}
}
