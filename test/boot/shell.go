package boot

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// shellPort is the virtio serial port that the guest's shell listens on.
const shellPort = "kscratch.test"

// agent runs in the guest as root. A request is a line of id, seconds and
// script; a response is a line of id, exit status, output and error output.
// What may hold any byte is in base64. "=" keeps an empty field a field.
const agent = `#!/bin/bash
exec 3<>/dev/virtio-ports/` + shellPort + ` || exit 1
dir=$(mktemp -d /run/kscratch-test.XXXXXX) || exit 1
echo "ready $(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r id seconds script <&3; do
	base64 -d <<<"$script" >"$dir/script"
	timeout -k 5 "$seconds" bash "$dir/script" >"$dir/out" 2>"$dir/err" </dev/null 3>&-
	printf '%s %d =%s =%s\n' "$id" "$?" "$(base64 -w0 "$dir/out")" "$(base64 -w0 "$dir/err")" >&3
done
`

// agentUnit runs the agent from early boot to late shutdown, whatever state
// the node is in.
const agentUnit = `[Unit]
Description=Root shell of kscratch's boot test
DefaultDependencies=no
BindsTo=dev-virtio\x2dports-` + shellPort + `.device
After=dev-virtio\x2dports-` + shellPort + `.device
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/bash /etc/kscratch-test/shell
Restart=always
RestartSec=1

[Install]
WantedBy=sysinit.target
`

// ignitionConfig returns an Ignition configuration (specification 3.3.0) that
// gives the guest the test's shell and the files, content by absolute path.
func ignitionConfig(files map[string]string) ([]byte, error) {
	type object = map[string]any
	all := []object{ignitionFile("/etc/kscratch-test/shell", agent, 0o755)}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		all = append(all, ignitionFile(p, files[p], 0o644))
	}
	return json.Marshal(object{
		"ignition": object{"version": "3.3.0"},
		"storage":  object{"files": all},
		"systemd": object{"units": []object{
			{"name": "kscratch-test-shell.service", "enabled": true, "contents": agentUnit},
		}},
	})
}

func ignitionFile(path, content string, mode int) map[string]any {
	return map[string]any{
		"path": path, "mode": mode, "overwrite": true,
		"contents": map[string]any{"source": "data:;base64," + base64.StdEncoding.EncodeToString([]byte(content))},
	}
}

// Result is what a command in the guest left behind.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status; 124 after a timeout
}

// Text returns everything the command wrote, for a message.
func (r Result) Text() string { return r.Stdout + r.Stderr }

// shell is the host's end of the agent's port.
type shell struct {
	conn io.ReadWriter

	mu      sync.Mutex
	next    int
	waiting map[string]chan Result
	boot    string        // boot ID of the guest that is listening; "" if none
	changed chan struct{} // closed and replaced when boot changes
	ended   error
}

var (
	errRestarted = errors.New("the guest's shell has restarted")
	errEnded     = errors.New("the guest's shell has ended")
)

func newShell(conn io.ReadWriter) *shell {
	s := &shell{conn: conn, waiting: map[string]chan Result{}, changed: make(chan struct{})}
	go s.read()
	return s
}

func (s *shell) read() {
	r := bufio.NewReaderSize(s.conn, 1<<16)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			s.reset("", errEnded)
			return
		}
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ready "); ok {
			s.reset(id, nil)
			continue
		}
		if id, res, err := parseResponse(line); err == nil {
			s.deliver(id, res)
		}
	}
}

// parseResponse reads a line of the agent.
func parseResponse(line string) (id string, r Result, err error) {
	f := strings.Fields(line)
	if len(f) != 4 || !strings.HasPrefix(f[2], "=") || !strings.HasPrefix(f[3], "=") {
		return "", r, fmt.Errorf("response %.80q: want id, status, =output, =errors", line)
	}
	if r.Code, err = strconv.Atoi(f[1]); err != nil {
		return "", r, fmt.Errorf("response %.80q: %w", line, err)
	}
	out, err1 := base64.StdEncoding.DecodeString(f[2][1:])
	errs, err2 := base64.StdEncoding.DecodeString(f[3][1:])
	if err := errors.Join(err1, err2); err != nil {
		return "", r, fmt.Errorf("response %.80q: %w", line, err)
	}
	r.Stdout, r.Stderr = string(out), string(errs)
	return f[0], r, nil
}

func (s *shell) deliver(id string, r Result) {
	s.mu.Lock()
	c := s.waiting[id]
	delete(s.waiting, id)
	s.mu.Unlock()
	if c != nil {
		c <- r
	}
}

// reset notes another boot of the guest: nobody answers older requests.
func (s *shell) reset(boot string, ended error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.waiting {
		close(c)
	}
	s.waiting = map[string]chan Result{}
	s.boot, s.ended = boot, ended
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the boot ID of the guest once it listens, which must differ
// from not.
func (s *shell) wait(ctx context.Context, not string) (string, error) {
	for {
		s.mu.Lock()
		boot, ended, changed := s.boot, s.ended, s.changed
		s.mu.Unlock()
		if ended != nil {
			return "", ended
		}
		if boot != "" && boot != not {
			return boot, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the guest's shell: %w", ctx.Err())
		}
	}
}

// defaultTimeout bounds a command when the context has no deadline.
const defaultTimeout = 2 * time.Minute

// run runs a bash script as root in the guest. One runs at a time.
func (s *shell) run(ctx context.Context, script string) (Result, error) {
	if _, err := s.wait(ctx, ""); err != nil {
		return Result{}, err
	}
	limit := defaultTimeout
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	seconds := max(1, int(math.Ceil(limit.Seconds())))
	c, err := s.send(script, seconds)
	if err != nil {
		return Result{}, fmt.Errorf("sending a command to the guest: %w", err)
	}
	select {
	case r, ok := <-c:
		if !ok {
			return r, fmt.Errorf("running %.60q in the guest: %w", script, errRestarted)
		}
		return r, nil
	case <-time.After(limit + 10*time.Second):
		return Result{}, fmt.Errorf("running %.60q in the guest: no answer within %v", script, limit)
	}
}

func (s *shell) send(script string, seconds int) (chan Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return nil, s.ended
	}
	s.next++
	id := strconv.Itoa(s.next)
	c := make(chan Result, 1)
	s.waiting[id] = c
	// The port may be gone before its reader has noticed.
	if _, err := fmt.Fprintf(s.conn, "%s %d %s\n", id, seconds, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		delete(s.waiting, id)
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
	return c, nil
}
