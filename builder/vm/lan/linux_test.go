//go:build foreign

package lan

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLinux: the kernel's own stack, in a network namespace of this test's
// thread, finds the gateway, is reached from outside, and is told
// that the rest of the world is not there.
func TestLinux(t *testing.T) {
	l := start(t)
	f, err := l.Plug()
	if err != nil {
		t.Fatal(err)
	}
	cable, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // for good: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("making a network namespace: %v; run this test as root", err)
	}
	tap := openTap(t, "tap0")
	for _, args := range [][]string{
		{"link", "set", "tap0", "address", macB.String(), "up"},
		{"addr", "add", ipB.String() + "/24", "dev", "tap0"},
		{"route", "add", "default", "via", "192.168.76.1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	done := make(chan bool, 2)
	go func() {
		receive(cable, func(frame []byte) { _, _ = tap.Write(frame) })
		done <- true
	}()
	go func() {
		buf := make([]byte, maxFrame)
		for {
			n, err := tap.Read(buf)
			if err != nil {
				break
			}
			_, _ = cable.Write(append(binary.BigEndian.AppendUint32(nil, uint32(n)), buf[:n]...))
		}
		done <- true
	}()
	t.Cleanup(func() {
		tap.Close()
		cable.Close()
		<-done
		<-done
	})

	// Sockets are made on this thread, hence in the namespace.
	ln, err := net.Listen("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			c.Close()
		}
	}()
	c, err := l.DialOutside(t.Context(), netip.AddrPortFrom(ipB, 80))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "203.0.113.1" {
		t.Errorf("from outside: got %q, %v", b, err)
	}
	c.Close()

	for _, tt := range []struct {
		network, addr string
		want          error
	}{
		{"tcp4", "192.0.2.1:443", syscall.EHOSTUNREACH},
		{"udp4", "192.0.2.1:123", syscall.EHOSTUNREACH},
		{"tcp4", "192.168.76.1:80", syscall.ECONNREFUSED},
		{"udp4", "192.168.76.1:80", syscall.ECONNREFUSED},
	} {
		if err := call(tt.network, tt.addr); !errors.Is(err, tt.want) {
			t.Errorf("%s %s: got %v, want %v", tt.network, tt.addr, err, tt.want)
		}
	}
}

// call connects, and says something where that needs no answer.
func call(network, addr string) error {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 100))
	return err
}

// openTap makes a network card of the kernel's whose frames we get.
func openTap(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "tap")
}
