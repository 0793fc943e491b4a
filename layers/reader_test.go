package layers_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
)

// TestWithContext: reading goes on as long as the context does.
func TestWithContext(t *testing.T) {
	whole, err := io.ReadAll(layers.WithContext(t.Context(), strings.NewReader("all of it")))
	if err != nil || string(whole) != "all of it" {
		t.Errorf("read %q, %v", whole, err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := layers.WithContext(ctx, strings.NewReader("half and half"))
	half := make([]byte, 4)
	if n, err := r.Read(half); n != 4 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	cancel(why)
	if n, err := r.Read(half); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: read %d bytes, %v", n, err)
	}
}
