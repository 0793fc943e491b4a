package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kscratch/kscratch/layers"
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

// Remember keeps a value as JSON under a key; one that is there is replaced.
// It is for what a later run can do without: [Recall] may not find it.
func Remember(ctx context.Context, s *Store, kind, key string, v any) error {
	b, err := s.Put(ctx, func(_ context.Context, w io.Writer) error { return json.NewEncoder(w).Encode(v) })
	if err != nil {
		return err
	}
	return s.link(kind, layers.DigestOfParts(kind, key).Hex(), b.Digest)
}

// Recall returns the value that [Remember] kept last, if it is still there.
func Recall[T any](s *Store, kind, key string) (v T, ok bool) {
	b, ok := s.Computed(kind, key)
	if !ok {
		return v, false
	}
	r, err := b.Open()
	if err != nil {
		return v, false
	}
	defer r.Close()
	return v, json.NewDecoder(r).Decode(&v) == nil
}
