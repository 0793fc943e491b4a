package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Value is [Store.Compute] for a value that is kept as JSON, not as a file.
func Value[T any](ctx context.Context, s *Store, kind, key string, compute func(context.Context) (T, error)) (v T, err error) {
	b, err := s.Compute(ctx, kind, key, func(ctx context.Context, w io.Writer) error {
		v, err := compute(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(w).Encode(v)
	})
	if err != nil {
		return v, err
	}
	r, err := b.Open()
	if err != nil {
		return v, err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		return v, fmt.Errorf("reading %s of %s: %w", kind, b.Digest, err)
	}
	return v, nil
}
