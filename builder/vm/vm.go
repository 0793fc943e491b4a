package vm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	helloTime = 30 * time.Second // for QEMU to open its files and greet
	killDelay = 10 * time.Second // between asking QEMU to quit and killing it
	maxStderr = 16 << 10         // bytes of QEMU's own messages kept
)

// VM is a machine that has been powered on.
type VM struct {
	console *Console
	monitor *monitor
	ports   map[string]net.Conn
	addrs   map[int]string // guest port → host address
	clock   func() time.Time
	log     *slog.Logger
	kvm     bool
	cmd     *exec.Cmd
	stderr  *limited
	temp    []string // removed when the machine ends

	mu     sync.Mutex
	start  time.Time // power-on
	events []Event

	done chan struct{}
	err  error // of the machine's end; read after done
}

// Start powers m on. The machine is switched off when ctx ends. An error names
// what is missing on the host, and the Debian package that has it.
func Start(ctx context.Context, m Machine) (*VM, error) {
	if m.Cable != nil {
		defer m.Cable.Close() // QEMU has it by then, or nobody needs it
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("starting machine: %w", err)
	}
	program, err := m.findQEMU()
	if err != nil {
		return nil, fmt.Errorf("starting machine: %w", err)
	}
	p, err := m.prepare(ctx, program)
	if err != nil {
		return nil, fmt.Errorf("starting machine: %w", err)
	}
	args, err := m.args(p)
	if err != nil {
		return nil, fmt.Errorf("starting machine: %w", err)
	}
	v := newVM(m, p)
	if err := v.launch(ctx, program, args, m.Ports, m.Cable); err != nil {
		return nil, fmt.Errorf("starting machine: %w", err)
	}
	if err := v.powerOn(ctx, m.Forwards); err != nil {
		return nil, fmt.Errorf("starting machine: %w", v.abort(err))
	}
	return v, nil
}

func newVM(m Machine, p plan) *VM {
	v := &VM{
		clock: m.Clock, start: m.Clock(), log: m.Log, kvm: p.kvm,
		ports: map[string]net.Conn{}, addrs: map[int]string{},
		stderr: &limited{max: maxStderr}, done: make(chan struct{}),
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if m.Snapshot {
		v.temp = append(v.temp, p.disk)
	}
	if m.Firmware.Vars == "" {
		v.temp = append(v.temp, p.vars)
	}
	v.temp = append(v.temp, p.strings...)
	for _, i := range p.fwCfg {
		if i.name != ignitionItem {
			v.temp = append(v.temp, i.file)
		}
	}
	v.console = newConsole(v.Elapsed, m.Console, m.Transcript)
	return v
}

// launch starts QEMU, with the processor still stopped, and connects to it.
func (v *VM) launch(ctx context.Context, program string, args, ports []string, cable *os.File) error {
	// QEMU takes SIGTERM as the order to write everything out and quit.
	v.cmd = exec.CommandContext(ctx, program, args...)
	v.cmd.Cancel = func() error { return v.cmd.Process.Signal(syscall.SIGTERM) }
	v.cmd.WaitDelay = killDelay
	v.cmd.Stderr = v.stderr
	// Its own process group: a Ctrl-C in the terminal is for us to handle.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	console, conns, err := v.connect(1 + len(ports))
	if err != nil {
		return err
	}
	if cable != nil {
		v.cmd.ExtraFiles = append(v.cmd.ExtraFiles, cable)
	}
	started := make(chan error)
	ended := make(chan error, 1)
	go runQEMU(v.cmd, started, ended)
	if err := <-started; err != nil {
		closeAll(conns, []*os.File{console})
		return fmt.Errorf("running %s: %w", program, err)
	}
	for i, name := range ports {
		v.ports[name] = conns[1+i]
	}
	v.monitor = newMonitor(conns[0], v.note)
	read := make(chan struct{})
	go func() {
		// An error means that QEMU is gone, which its exit tells better.
		io.Copy(v.console, console)
		console.Close()
		close(read)
	}()
	go v.finish(ended, read, conns)
	return nil
}

// connect makes a pipe for the console and n sockets, and gives QEMU the other
// ends as its files: the pipe first.
func (v *VM) connect(n int) (console *os.File, conns []net.Conn, err error) {
	console, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("making pipe: %w", err)
	}
	v.cmd.ExtraFiles = []*os.File{w}
	for range n {
		ours, theirs, err := socketPair()
		if err != nil {
			closeAll(conns, append(v.cmd.ExtraFiles, console))
			return nil, nil, err
		}
		conns = append(conns, ours)
		v.cmd.ExtraFiles = append(v.cmd.ExtraFiles, theirs)
	}
	return console, conns, nil
}

// runQEMU runs cmd from first to last on one thread: the kernel sends the
// parent-death signal when the thread that started the child ends.
func runQEMU(cmd *exec.Cmd, started, ended chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	closeAll(nil, cmd.ExtraFiles)
	started <- err
	if err == nil {
		ended <- cmd.Wait()
	}
}

// finish waits for the end of the machine and cleans up.
func (v *VM) finish(ended <-chan error, read <-chan struct{}, conns []net.Conn) {
	err := <-ended
	<-read
	if err != nil {
		err = fmt.Errorf("running QEMU: %w: %s", err, v.stderr)
	}
	err = errors.Join(err, v.console.end())
	closeAll(conns, nil)
	for _, t := range v.temp {
		if e := os.Remove(t); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	v.err = err
	close(v.done)
}

// powerOn finds the forwarded ports and lets the processors run.
func (v *VM) powerOn(ctx context.Context, forwards []Forward) error {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	go func() { // QEMU that ends early must not be waited for
		select {
		case <-v.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := v.monitor.hello(ctx); err != nil {
		return err
	}
	if err := v.findForwards(ctx, forwards); err != nil {
		return err
	}
	v.mu.Lock()
	v.start = v.clock()
	v.mu.Unlock()
	_, err := v.monitor.do(ctx, "cont", nil)
	return err
}

// hostForward matches a line of "info usernet": protocol[state], descriptor,
// host address and port, guest address and port.
var hostForward = regexp.MustCompile(`(?m)^\s*TCP\[HOST_FORWARD\]\s+\d+\s+([0-9.]+)\s+(\d+)\s+[0-9.]+\s+(\d+)\s`)

// findForwards asks QEMU which host ports the kernel gave it. Only the human
// monitor knows.
func (v *VM) findForwards(ctx context.Context, forwards []Forward) error {
	if len(forwards) == 0 {
		return nil
	}
	b, err := v.monitor.do(ctx, "human-monitor-command", map[string]string{"command-line": "info usernet"})
	if err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("reading QEMU's list of forwards: %w", err)
	}
	for _, m := range hostForward.FindAllStringSubmatch(text, -1) {
		guest, _ := strconv.Atoi(m[3]) // digits, by the expression
		v.addrs[guest] = net.JoinHostPort(m[1], m[2])
	}
	for _, f := range forwards {
		if v.addrs[f.Guest] == "" {
			return fmt.Errorf("reading QEMU's list of forwards: guest port %d is not in it", f.Guest)
		}
	}
	return nil
}

// abort ends a machine whose start met err. If QEMU has ended by itself, what
// it said is the better error.
func (v *VM) abort(err error) error {
	select {
	case <-v.done:
		return cmp.Or(v.err, err)
	case <-time.After(time.Second):
	}
	v.kill()
	<-v.done
	return err
}

func (v *VM) note(e Event) {
	v.log.Debug("QEMU event", "name", e.Name, "data", string(e.Data))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, e)
}

// Events returns what QEMU has reported so far, such as RESET each time the
// guest reboots.
func (v *VM) Events() []Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]Event(nil), v.events...)
}

// Elapsed returns the time since power-on.
func (v *VM) Elapsed() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.clock().Sub(v.start)
}

// KVM says whether the machine runs on hardware virtualisation.
func (v *VM) KVM() bool { return v.kvm }

// Addr returns the loopback address, host:port, that leads to a port of the
// guest; "" if the machine does not forward that port.
func (v *VM) Addr(guestPort int) string { return v.addrs[guestPort] }

// Port returns the host's end of the virtio serial port with that name; nil if
// the machine has none. In the guest it is /dev/virtio-ports/<name>.
func (v *VM) Port(name string) net.Conn { return v.ports[name] }

// Console returns the serial console.
func (v *VM) Console() *Console { return v.console }

// Done is closed when the machine is off.
func (v *VM) Done() <-chan struct{} { return v.done }

// Wait waits until the machine is off. A guest that powers itself down is no
// error.
func (v *VM) Wait() error {
	<-v.done
	return v.err
}

// QMP runs a command of the QEMU Machine Protocol and returns its result.
func (v *VM) QMP(ctx context.Context, name string, args any) (json.RawMessage, error) {
	return v.monitor.do(ctx, name, args)
}

// Reset presses the reset button: nothing in the guest is told.
func (v *VM) Reset(ctx context.Context) error {
	_, err := v.QMP(ctx, "system_reset", nil)
	return err
}

// Stop presses the power button and waits until the guest has powered itself
// down. If it has not after grace, or when ctx ends, the machine is switched
// off, which is an error: the guest may have lost what it had not written.
func (v *VM) Stop(ctx context.Context, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if _, err := v.QMP(ctx, "system_powerdown", nil); err != nil && !errors.Is(err, errGone) {
		return errors.Join(err, v.Off())
	}
	select {
	case <-v.done:
		return v.err
	case <-ctx.Done():
		err := fmt.Errorf("stopping machine: it has not powered down within %v and was switched off; console:\n%s",
			grace, v.console.Tail(tailLines))
		return errors.Join(err, v.Off())
	}
}

// Off switches the machine off at once. What the guest has written to its
// disks is kept.
func (v *VM) Off() error {
	ctx, cancel := context.WithTimeout(context.Background(), killDelay)
	defer cancel()
	_, err := v.monitor.send("quit", nil)
	if err == nil {
		select {
		case <-v.done:
			return v.err
		case <-ctx.Done():
		}
	}
	v.kill()
	<-v.done
	return v.err
}

// kill ends QEMU without any regard. An error means that it has ended.
func (v *VM) kill() { v.cmd.Process.Kill() }

// socketPair returns two connected sockets, one for us and one to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "qemu")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making socket pair: %w", err)
	}
	return conn, theirs, nil
}

// closeAll closes sockets, where there is nothing to lose by an error.
func closeAll(conns []net.Conn, files []*os.File) {
	for _, c := range conns {
		c.Close()
	}
	for _, f := range files {
		f.Close()
	}
}

// limited keeps the end of what is written to it.
type limited struct {
	max int
	mu  sync.Mutex
	b   []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	l.b = l.b[max(0, len(l.b)-l.max):]
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.b))
}

// RSS returns the host memory in bytes that the machine takes up now; 0 if
// that cannot be told.
func (v *VM) RSS() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", v.cmd.Process.Pid))
	var size, resident int64
	if n, _ := fmt.Sscan(string(b), &size, &resident); err != nil || n != 2 {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
