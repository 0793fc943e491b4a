package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxMessage bounds one QMP message, in bytes.
const maxMessage = 16 << 20

// errGone is what a command gets when QEMU has closed its monitor.
var errGone = errors.New("QEMU has gone")

// monitor speaks QMP: one JSON value a message, replies matched by id.
type monitor struct {
	conn  io.ReadWriteCloser
	event func(Event)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	gone    bool
	greeted chan struct{}
}

// Event is something that QEMU reported, such as RESET or SHUTDOWN.
type Event struct {
	Name string
	Data json.RawMessage
}

// message is anything that QEMU sends: a greeting, a reply or an event.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	ID    *uint64         `json:"id"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// command is what we send.
type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

// newMonitor starts to read conn. It ends when conn does.
func newMonitor(conn io.ReadWriteCloser, event func(Event)) *monitor {
	q := &monitor{conn: conn, event: event, waiting: map[uint64]chan message{}, greeted: make(chan struct{})}
	go q.read()
	return q
}

func (q *monitor) read() {
	defer q.end()
	limit := &io.LimitedReader{R: q.conn}
	dec := json.NewDecoder(limit)
	greeted := false
	for {
		limit.N = maxMessage
		var m message
		if err := dec.Decode(&m); err != nil {
			return
		}
		switch {
		case m.QMP != nil && !greeted:
			greeted = true
			close(q.greeted)
		case m.Event != "":
			q.event(Event{m.Event, m.Data})
		case m.ID != nil:
			q.reply(m)
		}
	}
}

func (q *monitor) reply(m message) {
	q.mu.Lock()
	c := q.waiting[*m.ID]
	delete(q.waiting, *m.ID)
	q.mu.Unlock()
	if c != nil {
		c <- m
	}
}

// end releases whoever waits for a reply that will not come.
func (q *monitor) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = true
	for _, c := range q.waiting {
		close(c)
	}
	q.waiting = nil
}

// send writes a command and returns where its reply will arrive.
func (q *monitor) send(name string, args any) (chan message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return nil, errGone
	}
	q.next++
	b, err := json.Marshal(command{name, args, q.next})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	c := make(chan message, 1)
	q.waiting[q.next] = c
	return c, nil
}

// do runs a command and returns its result.
func (q *monitor) do(ctx context.Context, name string, args any) (json.RawMessage, error) {
	c, err := q.send(name, args)
	if err != nil {
		return nil, fmt.Errorf("sending %s to QEMU: %w", name, err)
	}
	select {
	case m, ok := <-c:
		if !ok {
			return nil, fmt.Errorf("waiting for %s of QEMU: %w", name, errGone)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("asking QEMU for %s: %s: %s", name, m.Error.Class, m.Error.Desc)
		}
		return m.Return, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for %s of QEMU: %w", name, ctx.Err())
	}
}

// hello waits for the greeting and leaves the negotiation mode.
func (q *monitor) hello(ctx context.Context) error {
	select {
	case <-q.greeted:
	case <-ctx.Done():
		return fmt.Errorf("waiting for QEMU: %w", ctx.Err())
	}
	_, err := q.do(ctx, "qmp_capabilities", nil)
	return err
}
