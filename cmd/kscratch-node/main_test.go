package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "kscratch-node: want a sub-command\n\nusage: "},
		{"nonsense", 2, `there is no sub-command "nonsense"`},
		{"pod-cidr now", 2, `pod-cidr takes flags only, not "now"`},
		{"health --timeout never", 2, "invalid value"},
		{"etc --done --prune", 2, "--done and --prune do not go together"},
		{"health --help", 0, ""},
		{"etc --sysroot /none", 1, "kscratch-node: opening system root: "},
	} {
		var stderr bytes.Buffer
		code := run(t.Context(), slog.New(slog.DiscardHandler), &stderr, strings.Fields(c.args))
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: got %d and %q, want %d and %s", c.args, code, stderr.String(), c.code, c.want)
		}
	}
}

func TestSetfiles(t *testing.T) {
	dir := t.TempDir()
	if err := setfiles(dir); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sys/fs/selinux"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := setfiles(dir); err == nil || !strings.Contains(err.Error(), "SELinux is on") {
		t.Errorf("got %v", err)
	}
}

func TestLogHasNoTime(t *testing.T) {
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: withoutTime})).Info("x")
	if got := b.String(); got != "level=INFO msg=x\n" {
		t.Errorf("got %q", got)
	}
}
