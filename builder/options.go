package builder

import (
	"cmp"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// Options are what a build needs beside its spec. Dir and Store are required.
type Options struct {
	Dir      string       // directory that paths in the spec are relative to
	Store    *cache.Store // content store
	Go       string       // the go command, for source builds; may be empty
	Env      []string     // the caller's environment, "NAME=value": mirror, go command
	Now      time.Time    // to judge signatures and certificates; never part of an image
	HostRoot string       // where the host's apt configuration is; empty means /
	Client   *http.Client // for archives and releases; nil means one with timeouts and the proxy settings of the process
	Log      *slog.Logger // nil discards
	Progress Progress     // nil shows nothing

	// PKI is the cluster's PKI, or what a role's nodes have of it. Nil loads the
	// directory that the spec names.
	PKI *pki.Set
	// ReadFile reads a file that the spec names for the nodes: Butane, patches,
	// authorities and passwords of registries. Nil reads it below Dir.
	ReadFile func(name string) ([]byte, error)
	// Includes stands for Dir where Butane files of relative names include
	// others; "" is Dir.
	Includes string

	// Vendor is a directory by [Vendor], in which inputs are looked for before
	// anywhere else. Offline asks no server at all.
	Vendor  string
	Offline bool

	Formats []format.Format // that Pack writes; none means raw
	SBOM    bool            // whether Pack writes <role>.spdx.json, too
	Version string          // of kscratch, for SBOMs and new locks
}

// Progress is told of work under way.
type Progress interface {
	// Begin announces work on so many bytes; it may be called by several
	// goroutines at once.
	Begin(what string, total int64) Task
}

// Counter is a [Progress] that is told of the inputs of a build, too. Several
// goroutines may tell it at once.
type Counter interface {
	// Input says that an input of so many bytes was used, and whether the
	// content store had it before.
	Input(kind string, size int64, stored bool)
}

// Task is a piece of work under way.
type Task interface {
	Add(n int64) // so many more bytes are done
	End()        // the work has ended, whether well or not
}

// pki returns the cluster's PKI.
func (o Options) pki(s *Spec) (pki.Set, error) {
	if o.PKI != nil {
		return *o.PKI, nil
	}
	return pki.Load(under(o.Dir, s.PKI))
}

// readFile reads a file that the spec names for the nodes.
func (o Options) readFile(name string) ([]byte, error) {
	if o.ReadFile != nil {
		return o.ReadFile(name)
	}
	return os.ReadFile(under(o.Dir, name))
}

// includes returns the directory of what a Butane file includes.
func (o Options) includes(butane string) string {
	return filepath.Dir(under(cmp.Or(o.Includes, o.Dir), butane))
}

// fetch says how files are fetched; offline, that they are not.
func (o Options) fetch() fetch.Options {
	f := fetch.Options{Client: o.Client, Log: o.log()}
	if o.Offline {
		f.Client = &http.Client{Transport: offline{}}
	}
	return f
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

func (o Options) formats() []format.Format {
	if len(o.Formats) == 0 {
		return format.All[:1]
	}
	return o.Formats
}

func (o Options) begin(what string, total int64) Task {
	if o.Progress == nil {
		return quiet{}
	}
	return o.Progress.Begin(what, total)
}

// Kinds of inputs that a [Counter] is told of.
const (
	inputPackages = "Debian packages"
	inputPrograms = "programs, archives"
	inputImages   = "container images"
)

func (o Options) input(kind string, size int64, stored bool) {
	if c, ok := o.Progress.(Counter); ok {
		c.Input(kind, size, stored)
	}
}

// getenv looks a variable up in the caller's environment.
func (o Options) getenv(name string) string {
	value := ""
	for _, kv := range o.Env {
		if len(kv) > len(name) && kv[len(name)] == '=' && kv[:len(name)] == name {
			value = kv[len(name)+1:]
		}
	}
	return value
}

type quiet struct{}

func (quiet) Add(int64) {}
func (quiet) End()      {}
