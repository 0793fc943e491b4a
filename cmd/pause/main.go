// Command pause is the first process of a pod's sandbox: it holds the pod's
// namespaces open while its containers come and go, and reaps the orphans of
// containers that share its process namespace.
//
//	pause       wait until SIGINT or SIGTERM, then exit 0
//	pause -v    print the version
//
// It uses neither flag nor fmt: it runs once in every pod, so each page counts.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

// version is that of the Kubernetes image whose place this program takes.
const version = "3.10.1"

// exitUsage is the exit code for arguments that pause does not have.
const exitUsage = 2

func main() {
	if len(os.Args) > 1 {
		os.Exit(answer(os.Args[1]))
	}
	if os.Getpid() != 1 {
		os.Stderr.WriteString("pause: not the first process of a process namespace: orphans are not reaped here\n")
	}
	wait()
}

func answer(arg string) int {
	if arg != "-v" {
		os.Stderr.WriteString("usage: pause [-v]\n")
		return exitUsage
	}
	if _, err := os.Stdout.WriteString("pause " + version + " (kscratch)\n"); err != nil {
		return 1
	}
	return 0
}

// wait reaps children until it is told to end. One SIGCHLD may stand for any
// number of children, and the channel holds but one signal of each kind that
// comes at once: so each signal reaps all there are.
func wait() {
	died, end := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	for {
		reap() // also what died before we listened
		select {
		case <-died:
		case <-end:
			return
		}
	}
}

// reap takes the exit status of every child that is dead.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
	}
}
