package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
)

// project is a cluster file with everything that a build of it needs.
type project struct {
	spec     *builder.Spec
	dir      string // of the cluster file; paths in it are relative to this
	options  builder.Options
	progress *bars
	summary  *summary
}

// project opens a project, and makes its PKI if there is none.
func (e *env) project(c *cobra.Command) (*project, error) {
	p, err := e.open(c)
	if err != nil {
		return nil, err
	}
	_, err = builder.EnsurePKI(p.spec, p.dir, time.Now(), rand.Reader)
	return p, err
}

// open opens a project and changes nothing.
func (e *env) open(c *cobra.Command) (*project, error) {
	spec, err := e.spec(c)
	if err != nil {
		return nil, err
	}
	store, err := e.store()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(e.file)
	goTool, _ := exec.LookPath("go") // without one, source builds say so
	bars, log := e.progress()
	sum := newSummary(bars)
	return &project{spec, dir, builder.Options{
		Dir: dir, Store: store, Go: goTool, Env: os.Environ(), Now: time.Now(), Log: log, Progress: sum, Version: version(),
		Vendor: e.vendor, Offline: e.offline,
	}, bars, sum}, nil
}

// progress returns bars and a log that keep out of each other's way.
func (e *env) progress() (*bars, *slog.Logger) {
	b := newBars(os.Stderr, e.quiet)
	if b.terminal {
		return b, b.logger(e.level())
	}
	return b, e.logger()
}

func (p *project) close() { p.progress.close() }

// lock returns the lock of the project, and makes it if it is missing or was
// made for other inputs.
func (p *project) lock(ctx context.Context, locked bool) (*builder.Lock, error) {
	c, err := p.current()
	if err != nil {
		return nil, err
	}
	if locked && c.stale() {
		return nil, usageError{errors.New(c.complaint())}
	}
	switch {
	case c.lock == nil && p.options.Offline:
		return nil, usageError{errors.New(c.complaint() + " with the network first: offline, nobody can be asked")}
	case c.lock == nil:
		if c.why != "" {
			p.options.Log.Info("making the lock anew", "because", c.why)
		}
		return p.resolve(ctx, c.path)
	case c.why != "":
		p.options.Log.Info("keeping the lock's pins", "although", c.why)
		return c.lock, builder.WriteLock(c.path, c.lock)
	}
	return c.lock, nil
}

// judgedLock returns a lock as lock does, and writes nothing.
func (p *project) judgedLock(ctx context.Context) (*builder.Lock, error) {
	c, err := p.current()
	if err != nil || c.lock != nil {
		return c.lock, err
	}
	p.options.Log.Info("judging the newest inputs", "because", cmp.Or(c.why, "there is no lock"))
	return builder.Resolve(ctx, p.spec, p.options)
}

// current is the state of a project's lock.
type current struct {
	path string
	lock *builder.Lock // with pins that fit; nil if they must be resolved
	why  string        // the file does not fit; empty if it does, or is missing
}

func (c current) stale() bool { return c.lock == nil || c.why != "" }

// complaint says what is the matter with a stale lock.
func (c current) complaint() string {
	if c.why == "" {
		return c.path + " is missing; run `kscratch lock`"
	}
	return c.path + " is out of date: " + c.why + "; run `kscratch lock`"
}

// plan says what becomes of the lock.
func (c current) plan() string {
	switch {
	case c.lock == nil && c.why == "":
		return "made: it is missing"
	case c.lock == nil:
		return "made anew: " + c.why
	case c.why != "":
		return "kept, with its pins, although " + c.why
	}
	return "fits"
}

func (p *project) current() (current, error) {
	c := current{path: filepath.Join(p.dir, "kscratch.lock")}
	old, err := builder.ReadLock(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if c.why, err = builder.Stale(p.spec, old, p.options); err != nil || c.why == "" {
		c.lock = old
		return c, err
	}
	fresh, ok, err := builder.Refresh(p.spec, old, p.options)
	if ok {
		c.lock = fresh
	}
	return c, err
}

func (p *project) resolve(ctx context.Context, path string) (*builder.Lock, error) {
	l, err := builder.Resolve(ctx, p.spec, p.options)
	if err != nil {
		return nil, err
	}
	return l, builder.WriteLock(path, l)
}
