//go:build foreign

package ignition

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run runs a foreign program and fails the test if it is missing or fails.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func put(t *testing.T, path string, mode os.FileMode, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), mode); err != nil {
		t.Fatal(err)
	}
}

// TestIgnitionValidateAgrees asks the program that comes with Debian's own
// Ignition, which will have to read the config.
func TestIgnitionValidateAgrees(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		ign, _, err := Ignition(testNode(role))
		if err != nil {
			t.Fatal(err)
		}
		merged, err := Merge(ign, Snippet{Name: "u.bu", Data: []byte(head + "passwd: {users: [{name: core}]}\n")})
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range [][]byte{ign, merged} {
			path := filepath.Join(t.TempDir(), "config.ign")
			put(t, path, 0o600, string(b))
			if out := run(t, "ignition-validate", path); out != "" {
				t.Errorf("%s, config %d: %s", role, i, out)
			}
		}
	}
}

// vendor is what stands in for the distribution's units that ours extend.
var vendor = map[string]string{
	"docker.service":     "[Unit]\nAfter=network-online.target docker.socket containerd.service time-set.target\nWants=network-online.target containerd.service\nRequires=docker.socket\n[Service]\nType=notify\nExecStart=/usr/sbin/dockerd\n[Install]\nWantedBy=multi-user.target\n",
	"docker.socket":      "[Socket]\nListenStream=/run/docker.sock\n[Install]\nWantedBy=sockets.target\n",
	"containerd.service": "[Unit]\nAfter=network.target local-fs.target dbus.service\n[Service]\nExecStart=/usr/bin/containerd\n[Install]\nWantedBy=multi-user.target\n",
	"everything.target":  "[Unit]\nRequires=multi-user.target boot-complete.target\n",
}

// TestSystemdAgrees has systemd load every unit, enabled as on the node, and
// plan the whole boot: unknown settings and ordering cycles show there.
func TestSystemdAgrees(t *testing.T) {
	for _, role := range []Role{Master, Worker} {
		root := t.TempDir()
		units := filepath.Join(root, "usr/lib/systemd/system")
		if err := os.MkdirAll(units, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "cp", "-a", "/usr/lib/systemd/system/.", units)
		for name, body := range vendor {
			put(t, filepath.Join(units, name), 0o644, body)
		}
		for _, bin := range []string{
			"usr/bin/kubelet", "usr/bin/kube-proxy", "usr/bin/kubectl", "usr/bin/cri-dockerd", "usr/bin/kscratch-node", "usr/bin/containerd",
			"usr/bin/bash", "usr/bin/rm", "usr/sbin/dockerd",
		} {
			put(t, filepath.Join(root, bin), 0o755, "#!/bin/sh\n")
		}
		var names []string
		for path, e := range rendered(t, testNode(role)) {
			if strings.HasPrefix(path, "/etc/systemd/system/") && len(e.Body) > 0 {
				put(t, filepath.Join(root, path), 0o644, string(e.Body))
				names = append(names, filepath.Base(path))
			}
			if e.Note == "enabled" && (len(e.Body) > 0 || vendor[filepath.Base(path)] != "") {
				run(t, "systemctl", "--root="+root, "--quiet", "enable", filepath.Base(path))
			}
		}
		run(t, "systemctl", "--root="+root, "--quiet", "enable", "docker.service", "containerd.service")
		out := run(t, "systemd-analyze", "verify", "--root="+root, "--man=no", "everything.target")
		for line := range strings.Lines(out) {
			// Settings newer than the systemd of the machine that tests; and
			// the distribution's own units, whose programs are not here.
			if strings.Contains(line, "'RestartMode' in section") || !mentions(line, names) {
				continue
			}
			t.Errorf("%s: %s", role, line)
		}
		if strings.Contains(out, "cycle") {
			t.Errorf("%s:\n%s", role, out)
		}
	}
}

func mentions(line string, names []string) bool {
	for _, n := range names {
		if strings.Contains(line, n) {
			return true
		}
	}
	return false
}
