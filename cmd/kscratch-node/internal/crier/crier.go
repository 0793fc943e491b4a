// Package crier tells people what a node waits for: on the console, in the log
// and as the unit's status (sd_notify(3)).
package crier

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// Crier says a message when it is new, and then again every so often. The zero
// values of Notify and Repeat mean no service manager and never again.
type Crier struct {
	Root   *os.Root      // of the node's file system, for dev/console
	Log    *slog.Logger  // required
	Notify string        // $NOTIFY_SOCKET
	Repeat time.Duration // between repetitions

	last string
	at   time.Time // when it was said
}

// Cry says message everywhere, unless it has just been said.
func (c *Crier) Cry(message string) {
	if message == c.last && (c.Repeat == 0 || time.Since(c.at) < c.Repeat) {
		return
	}
	c.last, c.at = message, time.Now()
	c.Log.Warn(message)
	if err := c.console("kscratch: " + message + "\n"); err != nil {
		c.Log.Debug("writing to the console", "error", err)
	}
	c.Status(message)
}

// Forget makes the next message a new one.
func (c *Crier) Forget() { c.last = "" }

// console writes to /dev/console, without waiting for one that does not take
// what it is given, and without making it our terminal.
func (c *Crier) console(s string) error {
	f, err := c.Root.OpenFile("dev/console", os.O_WRONLY|os.O_APPEND|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// Status tells the service manager, if it wants to know.
func (c *Crier) Status(message string) {
	if c.Notify == "" {
		return
	}
	// A leading "@" names an abstract socket, as in package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: c.Notify, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte("STATUS=" + message))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		c.Log.Debug("telling the service manager", "error", err)
	}
}
