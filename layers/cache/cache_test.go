package cache_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

func open(t *testing.T) *cache.Store {
	t.Helper()
	s, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func text(s string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// files lists what is in the store, locks apart.
func files(t *testing.T, s *cache.Store) (out []string) {
	t.Helper()
	for _, d := range []string{"blobs/sha256", "keys/*", "tmp"} {
		m, err := filepath.Glob(filepath.Join(s.Dir(), d, "*"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m...)
	}
	return out
}

func TestFetch(t *testing.T) {
	s, ctx, want := open(t), t.Context(), layers.DigestOf([]byte("hello"))
	b, err := s.Fetch(ctx, want, text("hello"))
	if err != nil || b.Hit || b.Size != 5 || b.Digest != want {
		t.Fatalf("got %+v, %v", b, err)
	}
	b, err = s.Fetch(ctx, want, func(context.Context, io.Writer) error { return errors.New("fetched twice") })
	if err != nil || !b.Hit {
		t.Fatalf("got %+v, %v", b, err)
	}
	if got, _ := os.ReadFile(b.Path); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestNothingTornIsKept(t *testing.T) {
	want := layers.DigestOf([]byte("hello"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	boom := errors.New("connection reset")
	tests := []struct {
		name string
		ctx  context.Context
		fill func(context.Context, io.Writer) error
		is   error
	}{
		{"other content", t.Context(), text("hellO"), nil},
		{"truncated", t.Context(), text("hell"), nil},
		{"failed half-way", t.Context(), func(ctx context.Context, w io.Writer) error {
			return errors.Join(text("hel")(ctx, w), boom)
		}, boom},
		{"cancelled", cancelled, text("hello"), context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			_, err := s.Fetch(tt.ctx, want, tt.fill)
			var m *cache.MismatchError
			if err == nil || (tt.is != nil && !errors.Is(err, tt.is)) || (tt.is == nil && !errors.As(err, &m)) {
				t.Errorf("got error %v", err)
			}
			if got := files(t, s); len(got) != 0 {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}

func TestComputeOnceForManyAtOnce(t *testing.T) {
	s := open(t)
	other, err := cache.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var ran atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			st := []*cache.Store{s, other}[i%2]
			b, err := st.Compute(t.Context(), "k", "key", func(ctx context.Context, w io.Writer) error {
				ran.Add(1)
				time.Sleep(20 * time.Millisecond)
				return text("result")(ctx, w)
			})
			if err != nil || b.Size != 6 {
				t.Errorf("got %+v, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := ran.Load(); n != 1 {
		t.Errorf("computed %d times", n)
	}
	if _, ok := s.Computed("k", "other key"); ok {
		t.Error("another key has a result")
	}
}

func TestVerifyRemovesAlteredContent(t *testing.T) {
	s := open(t)
	b, err := s.Put(t.Context(), text("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(b.Digest); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(b.Path, 0o644), os.WriteFile(b.Path, []byte("jello"), 0o644)); err != nil {
		t.Fatal(err)
	}
	var m *cache.MismatchError
	if err := s.Verify(b.Digest); !errors.As(err, &m) {
		t.Errorf("got %v", err)
	}
	if _, ok := s.Lookup(b.Digest); ok {
		t.Error("altered content is still there")
	}
}

func TestOpenSweepsWhatDeadWritersLeft(t *testing.T) {
	s := open(t)
	p := filepath.Join(s.Dir(), "tmp", "blob-dead")
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(p, []byte("half"), 0o644), os.Chtimes(p, old, old)); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// TestWorkDir: a directory for work under way is the worker's, however old.
func TestWorkDir(t *testing.T) {
	s := open(t)
	dir, done, err := s.WorkDir("test-")
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", st, err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	if got := files(t, s); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}
