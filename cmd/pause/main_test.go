package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("BE_PAUSE") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func pause(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), "BE_PAUSE=1")
	return c
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		arg, want string
		code      int
	}{
		{"-v", "pause 3.10.1 (kscratch)\n", 0},
		{"-x", "usage: pause [-v]\n", 2},
	} {
		p := pause(c.arg)
		out, _ := p.CombinedOutput()
		if string(out) != c.want || p.ProcessState.ExitCode() != c.code {
			t.Errorf("%s: got %q and %d, want %q and %d", c.arg, out, p.ProcessState.ExitCode(), c.want, c.code)
		}
	}
}

// TestEnds starts pause and, when it has said that it is not the first
// process, ends it. The message comes before it listens, so it may also die of
// the signal; a pod's sandbox takes both for its end.
func TestEnds(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := pause()
		r, err := p.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil || !strings.Contains(line, "not the first process") {
			t.Errorf("got %q, %v", line, err)
		}
		if err := p.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		p.Wait()
		st := p.ProcessState.Sys().(syscall.WaitStatus)
		if st.ExitStatus() != 0 && st.Signal() != s {
			t.Errorf("%v: %v", s, p.ProcessState)
		}
	}
}
