//go:build net

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestVendoredWithoutNetwork builds an image of the default cluster, of Debian's
// own packages and Kubernetes, from a vendor directory: with an empty content
// store, no go command, and in a network namespace that has no interface but a
// loopback that is down. The bytes are those of a build with the network.
//
// The lock is made with the content store of the user, or of KSCRATCH_CACHE;
// what that lacks is fetched and compiled first.
func TestVendoredWithoutNetwork(t *testing.T) {
	dir := t.TempDir()
	kscratch := func(isolated bool, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, "kscratch", args...)
		var out, log bytes.Buffer
		c.Dir, c.Stdout, c.Stderr = dir, &out, &log
		if isolated {
			c.Env = []string{"PATH=/none", "HOME=" + dir, "KSCRATCH_CACHE=" + filepath.Join(dir, "empty")}
			c.SysProcAttr = noNetwork()
		}
		start := time.Now()
		err := c.Run()
		t.Logf("kscratch %s: %v", strings.Join(args, " "), time.Since(start).Round(100*time.Millisecond))
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		return out.String()
	}
	kscratch(false, "lock", "-q")
	kscratch(false, "lock", "--check")
	want := kscratch(false, "image", "build", "-q", "--role", "master", "--output", "normal")
	t.Log(kscratch(false, "vendor", "-q", "inputs"))
	got := kscratch(true, "image", "build", "-q", "--role", "master", "--output", "offline", "--vendor", "inputs", "--offline")
	raw := regexp.MustCompile(`master\.raw  (sha256:[0-9a-f]{64})`)
	a, b := raw.FindStringSubmatch(want), raw.FindStringSubmatch(got)
	if a == nil || b == nil || a[1] != b[1] {
		t.Errorf("with the network\n%s\nwithout\n%s", want, got)
	}
	// The namespace is what it is meant to be: nobody is reached from there.
	c := exec.CommandContext(t.Context(), "kscratch", "lock")
	c.Dir, c.SysProcAttr = dir, noNetwork()
	c.Env = []string{"PATH=/none", "HOME=" + dir, "KSCRATCH_CACHE=" + filepath.Join(dir, "other")}
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("a lock was made without a network:\n%s", out)
	}
}

// noNetwork starts a process in a network namespace of its own, which needs a
// user namespace where the test does not run as root.
func noNetwork() *syscall.SysProcAttr {
	if os.Getuid() == 0 {
		return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
	}
}
