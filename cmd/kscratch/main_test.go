package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"syscall"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/lint"
	"github.com/kscratch/kscratch/layers/cache"
)

// The exit codes are those that main.go and README.md list.
func TestExitCode(t *testing.T) {
	path := func(e syscall.Errno) error { return &fs.PathError{Op: "write", Path: "x", Err: e} }
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), 1},
		{path(syscall.ENOENT), 1},
		{path(syscall.EACCES), 1},
		{&builder.SpecError{}, 2},
		{&builder.LintError{}, 2},
		{usageError{errors.New("flag")}, 2},
		{&builder.InputError{Err: path(syscall.ENOENT)}, 3},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 3},
		{&net.DNSError{}, 3},
		{&url.Error{Err: errors.New("bad status")}, 3},
		{&builder.InputError{Tampered: true, Err: errors.New("signature")}, 4},
		{&builder.InputError{Err: &cache.MismatchError{}}, 4},
		{&cache.MismatchError{}, 4},
		{path(syscall.ENOSPC), 5},
		{path(syscall.EDQUOT), 5},
		{path(syscall.EFBIG), 5},
		{&builder.InputError{Err: path(syscall.ENOSPC)}, 5},
		{&builder.OutputError{Err: path(syscall.EACCES)}, 5},
		{&notReadyError{context.DeadlineExceeded}, 6},
	} {
		if got := exitCode(fmt.Errorf("doing a thing: %w", tt.err)); got != tt.want {
			t.Errorf("%T %v: exit code %d, want %d", tt.err, tt.err, got, tt.want)
		}
	}
}

// Errors have one line; the problems of a cluster file have one each.
func TestMessage(t *testing.T) {
	joined := fmt.Errorf("getting x: %w", errors.Join(errors.New("registry: no"), errors.New("modules: no go command")))
	if got, want := message(joined), "getting x: registry: no; modules: no go command"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	spec := &builder.SpecError{Problems: []builder.Problem{{File: "a", Msg: "b"}, {File: "c", Msg: "d"}}}
	if got, want := message(spec), "a: b\nc: d"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	linted := &builder.LintError{Findings: []lint.Finding{{Rule: "r", Where: "a", What: "b", Fix: "c"}, {Rule: "s", Where: "d", What: "e", Fix: "f"}}}
	if got, want := message(linted), "a: b; c (r)\nd: e; f (s)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
