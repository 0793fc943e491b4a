package podcidr

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// crier tells people what the node waits for: on the console, in the log and
// as the unit's status. A message is said when it is new, and then again every
// Repeat, counted in calls, which come every Interval.
type crier struct {
	root *os.Root
	o    Options
	last string
	left int // calls until the message is repeated
}

func (c *crier) cry(message string) {
	if message == c.last && c.left > 0 {
		c.left--
		return
	}
	c.last, c.left = message, int(c.o.Repeat/c.o.Interval)-1
	c.o.Log.Warn(message)
	if err := c.console("kscratch: " + message + "\n"); err != nil {
		c.o.Log.Debug("writing to the console", "error", err)
	}
	c.status(message)
}

// console writes to /dev/console, without waiting for one that does not take
// what it is given, and without making it our terminal.
func (c *crier) console(s string) error {
	f, err := c.root.OpenFile("dev/console", os.O_WRONLY|os.O_APPEND|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// status tells the service manager (sd_notify(3)), if it wants to know.
func (c *crier) status(message string) {
	if c.o.NotifySocket == "" {
		return
	}
	// A leading "@" names an abstract socket, as in package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: c.o.NotifySocket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte("STATUS=" + message))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		c.o.Log.Debug("telling the service manager", "error", err)
	}
}
