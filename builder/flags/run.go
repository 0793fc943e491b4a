package flags

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
)

const (
	patience = time.Minute // for a program to print its help, on any machine
	atMost   = 1 << 20     // bytes kept of what a program writes
)

// executable is a program that can be run: from a copy of its own, since what
// is in the content store is not executable. The copy is made when it is needed.
type executable struct {
	Program
	store *cache.Store
	dir   string // with the copy; empty: there is none yet
	done  func() error
}

func (e *executable) close() error {
	if e.done == nil {
		return nil
	}
	return e.done()
}

func (e *executable) copy() (err error) {
	if e.dir != "" {
		return nil
	}
	if e.dir, e.done, err = e.store.WorkDir("flags-"); err != nil {
		return err
	}
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(e.dir, e.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (e *executable) run(ctx context.Context, args []string) (said answer, err error) {
	if err := e.copy(); err != nil {
		return answer{}, fmt.Errorf("copying the program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for range 20 {
		said, err = start(ctx, e.dir, e.Name, args)
		// Another goroutine may have forked while the copy was being written,
		// and its child has not yet closed the file.
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return said, err
}

func start(ctx context.Context, dir, name string, args []string) (answer, error) {
	var out, errs limited
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
	cmd.Args[0], cmd.Dir, cmd.Env = name, dir, []string{}
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return answer{}, fmt.Errorf("running %s: %w", name, ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() >= 0: // not killed by a signal
		return answer{exit.ExitCode(), out.String(), errs.String()}, nil
	case err != nil:
		return answer{}, fmt.Errorf("running %s: %w", name, err)
	}
	return answer{0, out.String(), errs.String()}, nil
}

// limited keeps the first of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	l.Buffer.Write(b[:min(len(b), max(0, atMost-l.Len()))])
	return len(b), nil
}
