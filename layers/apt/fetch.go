package apt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// Fetch returns a package's .deb from the store, or downloads it into the
// store. Content with another digest than the index gives is a
// *[cache.MismatchError]; a package that the mirror no longer has is an error
// that is [fs.ErrNotExist].
func (m Mirror) Fetch(ctx context.Context, o fetch.Options, store *cache.Store, p Package) (cache.Blob, error) {
	fail := func(err error) (cache.Blob, error) {
		return cache.Blob{}, fmt.Errorf("fetching package %s (%s): %w", p, p.Filename, err)
	}
	if err := p.check(); err != nil {
		return fail(err)
	}
	u, err := m.url(p.Archive, p.Filename)
	if err != nil {
		return fail(err)
	}
	b, err := store.Fetch(ctx, p.Digest, func(ctx context.Context, w io.Writer) error {
		return fetch.Pinned(ctx, u, w, p.Size, o)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; the mirror may have a newer version by now: resolve again", err)
	}
	if err != nil {
		return fail(err)
	}
	return b, nil
}
