package gomod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kscratch/kscratch/layers/cache"
)

// taken are the variables of the caller's environment that reach the go
// command: where to fetch from, how to trust it, where its caches are. Nothing
// that changes the result of a build is among them.
var taken = []string{
	"HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NETRC",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND",
	"GOENV", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GONOPROXY", "GOPRIVATE",
	"GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS",
}

// asked are the settings that the user may have made with go env -w. They are
// read once and passed on by hand, so that GOENV can be switched off and no
// other setting of that file changes the result.
var asked = []string{
	"GOVERSION", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GONOPROXY", "GOPRIVATE",
	"GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS",
}

// toolchain is a go command with the environment that it runs in.
type toolchain struct {
	path    string
	version string // GOVERSION, such as go1.26.8
	env     []string
	log     *slog.Logger
}

// Version returns the version of the go command, such as go1.26.8.
func Version(ctx context.Context, store *cache.Store, o Options) (string, error) {
	tc, err := probe(ctx, store, "from source", store.Dir(), o)
	return tc.version, err
}

// probe asks the go command for its version and settings.
func probe(ctx context.Context, store *cache.Store, recipe, work string, o Options) (toolchain, error) {
	if o.Go == "" {
		return toolchain{}, &MissingGoError{recipe}
	}
	base := filterEnv(o.Env, store.Dir())
	tc := toolchain{path: o.Go, log: o.log(), env: append(slices.Clone(base), "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=-mod=mod")}
	out, err := tc.run(ctx, work, append([]string{"env", "-json"}, asked...)...)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return toolchain{}, &MissingGoError{recipe}
	}
	if err != nil {
		return toolchain{}, fmt.Errorf("asking %s for its settings: %w", o.Go, err)
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		return toolchain{}, fmt.Errorf("asking %s for its settings: %w", o.Go, err)
	}
	tc.version = got["GOVERSION"]
	if tc.version == "" {
		return toolchain{}, fmt.Errorf("asking %s for its settings: it is older than Go 1.21 or is no go command", o.Go)
	}
	tc.env = buildEnv(base, got, filepath.Join(work, "tmp"), o.arch())
	return tc, nil
}

// filterEnv keeps what the go command needs. Without a home directory the
// caches live in the store.
func filterEnv(env []string, store string) []string {
	var out []string
	has := map[string]bool{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if v != "" && slices.Contains(taken, k) {
			out, has[k] = append(out, kv), true
		}
	}
	if !has["HOME"] && !has["GOPATH"] {
		out = append(out, "GOPATH="+filepath.Join(store, "go"))
	}
	if !has["HOME"] && !has["GOCACHE"] && !has["XDG_CACHE_HOME"] {
		out = append(out, "GOCACHE="+filepath.Join(store, "go", "cache"))
	}
	return out
}

// buildEnv returns the whole environment of a build. Later entries win.
func buildEnv(base []string, got map[string]string, tmp, arch string) []string {
	env := slices.Clone(base)
	for _, k := range asked {
		if v := got[k]; v != "" && k != "GOVERSION" {
			env = append(env, k+"="+v)
		}
	}
	return append(env,
		"GOENV=off", "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=-mod=mod", "GO111MODULE=on",
		"CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOTMPDIR="+tmp, "LC_ALL=C", "TZ=UTC")
}

// grace is how long pipes of killed processes may stay open.
const grace = 5 * time.Second

// run runs the go command in dir and returns its standard output. Standard
// error goes to the log line by line; the last lines are in the error.
func (tc toolchain) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	lines := &lineLog{log: tc.log}
	cmd := exec.CommandContext(ctx, tc.path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(slices.Clone(tc.env), "PWD="+dir), &stdout, lines
	// go starts compilers: a group of its own lets all of them be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = grace
	err := cmd.Run()
	lines.flush()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && len(lines.last) > 0 {
		err = fmt.Errorf("%w:\n\t%s", err, strings.Join(lines.last, "\n\t"))
	}
	return stdout.Bytes(), err
}

// Bounds on what is kept of a program's standard error.
const (
	maxLine  = 4096 // bytes of a line
	maxLines = 20   // lines in an error
)

// lineLog is a writer that logs whole lines and remembers the last ones.
type lineLog struct {
	log  *slog.Logger
	part []byte
	last []string
}

func (l *lineLog) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.keep(p)
			return n, nil
		}
		l.keep(p[:i])
		l.flush()
		p = p[i+1:]
	}
}

func (l *lineLog) keep(p []byte) {
	l.part = append(l.part, p[:min(len(p), maxLine-len(l.part))]...)
}

func (l *lineLog) flush() {
	line := strings.TrimRight(string(l.part), "\r ")
	l.part = l.part[:0]
	if line == "" {
		return
	}
	l.log.Debug(line, "from", "go")
	if strings.HasPrefix(line, "go: downloading ") {
		return // thousands of them, and never the reason
	}
	l.last = append(l.last, line)
	if len(l.last) > maxLines {
		l.last = l.last[1:]
	}
}
