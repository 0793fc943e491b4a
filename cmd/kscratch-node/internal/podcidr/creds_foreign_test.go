//go:build foreign

package podcidr

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// encrypt has the real systemd-creds encrypt a text, with the key that needs
// neither a TPM nor root. Its name has changed between versions.
func encrypt(t *testing.T, name, text string) string {
	t.Helper()
	var complaint bytes.Buffer
	for _, key := range []string{"null", "tpm2-absent"} {
		c := exec.Command("systemd-creds", "encrypt", "--with-key="+key, "--name="+name, "-", "-")
		c.Stdin, c.Stderr = strings.NewReader(text), &complaint
		if out, err := c.Output(); err == nil {
			return string(out)
		}
	}
	t.Fatalf("systemd-creds encrypt: %s", complaint.String())
	return ""
}

func TestRealSystemdCreds(t *testing.T) {
	prog, err := exec.LookPath("systemd-creds")
	if err != nil {
		t.Fatal(err)
	}
	dir := tree(t, encrypted, encrypt(t, "kscratch.pod-cidr", good))
	o := options(dir)
	o.SystemdCreds = prog
	n, err := Run(t.Context(), o)
	if err != nil || n.Pod.String() != good {
		t.Errorf("got %v, %v", n, err)
	}
	// A credential of another name is not ours, whoever renamed its file.
	f := &finder{run: &run{Options: o.withDefaults()}}
	if out, err := f.systemdCreds(t.Context(), encrypt(t, "other", good)); err == nil || !strings.Contains(err.Error(), "decrypting it: systemd-creds: exit status 1") {
		t.Errorf("got %q, %v", out, err)
	}
}
