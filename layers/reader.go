package layers

import (
	"context"
	"io"
)

// WithContext returns a reader of r whose Read is the error of ctx once ctx has
// ended. A Read of r that is under way is not cut short.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
