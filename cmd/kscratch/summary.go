package main

import (
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/kscratch/kscratch/builder"
)

// summary passes progress on and remembers what a build did, for the table at
// its end.
type summary struct {
	builder.Progress
	start time.Time

	mu    sync.Mutex
	order []string // of rows
	rows  map[string]*row
}

// row is a kind of input, or of work.
type row struct {
	count, stored int
	size          int64 // bytes
	took          time.Duration
}

func newSummary(p builder.Progress) *summary {
	return &summary{Progress: p, start: time.Now(), rows: map[string]*row{}}
}

// row returns the row with a name; the caller holds the lock.
func (s *summary) row(name string) *row {
	r, ok := s.rows[name]
	if !ok {
		r = &row{}
		s.rows[name] = r
		s.order = append(s.order, name)
	}
	return r
}

// Input counts an input.
func (s *summary) Input(kind string, size int64, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.row(kind)
	r.count++
	r.size += size
	if stored {
		r.stored++
	}
}

// Begin notes how long a task takes, and how much it does.
func (s *summary) Begin(what string, total int64) builder.Task {
	return &timed{Task: s.Progress.Begin(what, total), s: s, what: what, start: time.Now()}
}

type timed struct {
	builder.Task
	s     *summary
	what  string
	start time.Time
	once  sync.Once

	mu   sync.Mutex
	done int64
}

func (t *timed) Add(n int64) {
	t.Task.Add(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
}

func (t *timed) End() {
	t.Task.End()
	t.once.Do(func() {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		r := t.s.row(t.what)
		r.took += time.Since(t.start)
		if r.count == 0 {
			t.mu.Lock()
			defer t.mu.Unlock()
			r.size += t.done
		}
	})
}

// table writes what was done; nothing if that was nothing.
func (s *summary) table(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range s.order {
		r := s.rows[name]
		count, stored, took := "", "", ""
		if r.count > 0 {
			count = fmt.Sprint(r.count)
			stored = fmt.Sprintf("%d in the content store", r.stored)
			if r.stored == r.count {
				stored = "all in the content store"
			}
		}
		if r.took > 0 {
			took = seconds(r.took)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, count, mebibytes(r.size), took, stored)
	}
	fmt.Fprintf(t, "in all\t\t\t%s\t\n", seconds(time.Since(s.start)))
	return t.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
