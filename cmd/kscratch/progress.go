package main

import (
	"log/slog"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/kscratch/kscratch/builder"
)

// bars shows the progress of a build: bars on a terminal, nothing otherwise
// (the log's plain lines say what happens).
type bars struct {
	terminal bool
	p        *mpb.Progress
}

func newBars(f *os.File, quiet bool) *bars {
	b := &bars{terminal: !quiet && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"}
	if b.terminal {
		b.p = mpb.New(mpb.WithOutput(f), mpb.WithWidth(48))
	}
	return b
}

// logger writes log lines above the bars.
func (b *bars) logger(l slog.Level) *slog.Logger {
	return slog.New(newLineHandler(b.p, l))
}

// Begin shows a task of total bytes.
func (b *bars) Begin(what string, total int64) builder.Task {
	if !b.terminal {
		return noTask{}
	}
	bar := b.p.AddBar(total, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), " % .1f")))
	return barTask{bar}
}

// close ends all bars. It may be called more than once.
func (b *bars) close() {
	if b.p != nil {
		b.p.Shutdown()
	}
}

type barTask struct{ bar *mpb.Bar }

func (t barTask) Add(n int64) { t.bar.IncrInt64(n) }
func (t barTask) End()        { t.bar.SetTotal(-1, true) }

type noTask struct{}

func (noTask) Add(int64) {}
func (noTask) End()      {}
