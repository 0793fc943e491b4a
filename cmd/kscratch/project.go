package main

import (
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
}

func (e *env) project(c *cobra.Command) (*project, error) {
	spec, err := e.spec(c)
	if err != nil {
		return nil, err
	}
	store, err := e.store()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(e.file)
	if _, err := builder.EnsurePKI(spec, dir, time.Now(), rand.Reader); err != nil {
		return nil, err
	}
	goTool, _ := exec.LookPath("go") // without one, source builds say so
	bars, log := e.progress()
	return &project{spec, dir, builder.Options{
		Dir: dir, Store: store, Go: goTool, Env: os.Environ(), Now: time.Now(), Log: log, Progress: bars,
	}, bars}, nil
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
	path := p.lockPath()
	l, why, err := p.fresh()
	switch {
	case err != nil || why == "":
		return l, err
	case locked && l == nil:
		return nil, usageError{errors.New(path + " is missing; run `kscratch lock`")}
	case locked:
		return nil, usageError{errors.New(path + " is out of date: " + why + "; run `kscratch lock`")}
	case l != nil:
		p.options.Log.Info("making the lock anew", "because", why)
	}
	return p.resolve(ctx, path)
}

// currentLock returns what lock does, and writes nothing.
func (p *project) currentLock(ctx context.Context) (*builder.Lock, error) {
	l, why, err := p.fresh()
	if err != nil || why == "" {
		return l, err
	}
	p.options.Log.Info("judging the newest inputs", "because", why)
	return builder.Resolve(ctx, p.spec, p.options)
}

func (p *project) lockPath() string { return filepath.Join(p.dir, "kscratch.lock") }

// fresh reads the lock, nil if there is none, and says why it cannot be used.
func (p *project) fresh() (l *builder.Lock, why string, err error) {
	l, err = builder.ReadLock(p.lockPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "there is no lock", nil
	}
	if err != nil {
		return nil, "", err
	}
	why, err = builder.Stale(p.spec, l, p.options)
	return l, why, err
}

func (p *project) resolve(ctx context.Context, path string) (*builder.Lock, error) {
	l, err := builder.Resolve(ctx, p.spec, p.options)
	if err != nil {
		return nil, err
	}
	return l, builder.WriteLock(path, l)
}

func newLock(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "lock",
		Short: "Pin the newest inputs in kscratch.lock",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := e.project(c)
			if err != nil {
				return err
			}
			defer p.close()
			_, err = p.resolve(c.Context(), p.lockPath())
			return err
		},
	}
}
