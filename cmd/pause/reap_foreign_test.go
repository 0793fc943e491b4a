//go:build foreign

package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFirstProcess runs pause as process 1 of a process namespace, gives it
// orphans to reap, and ends it with each signal.
func TestFirstProcess(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := pause()
		p.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		pid := strconv.Itoa(p.Process.Pid)
		until(t, "pause listens", func() bool { return catches(t, pid, syscall.SIGCHLD) && catches(t, pid, end) })
		// Ten shells that leave a child behind, which ends a little later.
		enter := []string{"--target", pid, "--user", "--preserve-credentials", "--pid", "sh", "-c",
			"for i in 0 1 2 3 4 5 6 7 8 9; do (sleep 1 & exit) ; done"}
		// No pipes: waiting for their end would be waiting for the orphans.
		if err := exec.Command("nsenter", enter...).Run(); err != nil {
			t.Fatalf("nsenter: %v", err)
		}
		until(t, "orphans arrive", func() bool { return children(t, pid) != "" })
		until(t, "all orphans are reaped", func() bool { return children(t, pid) == "" })
		if err := p.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %v", end, err)
		}
	}
}

// children returns the children of a process, dead ones included.
func children(t *testing.T, pid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// catches reports whether a process has a handler for a signal: until Go's
// runtime has set its own, the kernel keeps signals from process 1.
func catches(t *testing.T, pid string, s syscall.Signal) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "SigCgt:\t")
	mask, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 16, 64)
	return err == nil && mask&(1<<(s-1)) != 0
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("did not happen: %s", what)
}
