package lan

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Frames. QEMU gives and takes each with its length before it, as four bytes,
// big-endian (net/stream.c of QEMU).
const (
	headerSize = 14       // of Ethernet
	maxFrame   = 64 << 10 // with the largest segmentation offload
	queue      = 512      // frames that wait for a machine
)

// address is a hardware address.
type address [6]byte

func (a address) multicast() bool { return a[0]&1 != 0 }

// fabric is a learning switch.
type fabric struct {
	mu    sync.Mutex
	ports map[*socket]bool
	at    map[address]*socket
}

// socket is one place of a switch. take must not wait, nor keep the frame.
type socket struct{ take func(frame []byte) }

func newFabric() *fabric { return &fabric{ports: map[*socket]bool{}, at: map[address]*socket{}} }

func (f *fabric) plug(take func([]byte)) *socket {
	s := &socket{take}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[s] = true
	return s
}

func (f *fabric) unplug(s *socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ports, s)
	for a, at := range f.at {
		if at == s {
			delete(f.at, a)
		}
	}
}

// forward hands a frame to where its destination is, or to all others.
func (f *fabric) forward(from *socket, frame []byte) {
	if len(frame) < headerSize {
		return
	}
	dst, src := address(frame[:6]), address(frame[6:12])
	f.mu.Lock()
	if !src.multicast() {
		f.at[src] = from
	}
	var to []*socket
	if s, ok := f.at[dst]; ok && !dst.multicast() {
		to = append(to, s)
	} else {
		for s := range f.ports {
			to = append(to, s)
		}
	}
	f.mu.Unlock()
	for _, s := range to {
		if s != from {
			s.take(frame)
		}
	}
}

// Plug adds a place to the switch and returns the other end of its cable, for
// [github.com/kscratch/kscratch/builder/vm.Machine]'s Cable. The caller closes
// it once the machine has it.
func (l *LAN) Plug() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("plugging in a machine: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "switch")
	theirs := os.NewFile(uintptr(fds[1]), "cable")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("plugging in a machine: %w", err)
	}
	out := make(chan []byte, queue)
	s := l.sw.plug(func(frame []byte) {
		select {
		case out <- append([]byte(nil), frame...):
		default: // it does not take what it is sent
		}
	})
	gone := make(chan struct{})
	read := func() {
		defer close(gone)
		defer l.sw.unplug(s)
		defer conn.Close()
		receive(conn, func(frame []byte) { l.sw.forward(s, frame) })
	}
	if !l.run(conn.Close, read, func() { deliver(conn, out, gone) }) {
		l.sw.unplug(s)
		conn.Close()
		theirs.Close()
		return nil, fmt.Errorf("plugging in a machine: %w", errEnded)
	}
	return theirs, nil
}

// receive reads frames until the cable is cut, or carries nonsense.
func receive(r io.Reader, each func([]byte)) {
	br := bufio.NewReaderSize(r, maxFrame)
	buf := make([]byte, maxFrame)
	var length [4]byte
	for {
		if _, err := io.ReadFull(br, length[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(length[:])
		if n > maxFrame {
			return
		}
		if _, err := io.ReadFull(br, buf[:n]); err != nil {
			return
		}
		each(buf[:n])
	}
}

// deliver writes frames until the cable is cut.
func deliver(conn net.Conn, out <-chan []byte, gone <-chan struct{}) {
	for {
		select {
		case <-gone:
			return
		case frame := <-out:
			b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame)))
			if _, err := conn.Write(append(b, frame...)); err != nil {
				return
			}
		}
	}
}
