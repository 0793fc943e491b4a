package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/layers/fetch"
)

// blobs fetches the blobs of one repository (OCI distribution specification,
// "Pulling blobs"). go-containerregistry's own way to do so starts a layer anew
// when a connection breaks off; here the download goes on where it stopped, as
// those of package fetch do.
type blobs struct {
	r    Registry
	repo name.Repository

	mu     sync.Mutex
	client *http.Client // with a session; nil before the first blob
}

// session returns a client that the registry knows.
func (b *blobs) session(ctx context.Context) (*http.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil {
		return b.client, nil
	}
	t, err := b.r.transport()
	if err != nil {
		return nil, err
	}
	auth := authn.Anonymous
	if b.r.Keychain != nil {
		if auth, err = authn.Resolve(ctx, b.r.Keychain, b.repo); err != nil {
			return nil, err
		}
	}
	scopes := []string{b.repo.Scope(transport.PullScope)}
	wait := b.r.wait()
	for left := b.r.retries(); ; left-- {
		known, err := transport.NewWithContext(ctx, b.repo.Registry, auth, t, scopes)
		if err == nil {
			b.client = &http.Client{Transport: known}
			return b.client, nil
		}
		if left <= 0 || !passing(err) {
			return nil, err
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
		wait *= 2
	}
}

// open opens a blob. What it delivers is hashed, and not what the descriptor
// says is an error at its end; no more is read than the descriptor allows.
func (b *blobs) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if err := digestOf(d).Check(); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, fmt.Errorf("blob %s: size %d", d.Digest, d.Size)
	}
	client, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	u := &url.URL{
		Scheme: b.repo.Scheme(), Host: b.repo.RegistryStr(),
		Path: "/v2/" + b.repo.RepositoryStr() + "/blobs/" + d.Digest.String(),
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(fetch.Pinned(ctx, u, pw, d.Size, fetch.Options{
			Client: client, Attempts: b.r.retries() + 1, Wait: b.r.wait(),
		}))
	}()
	stop := func() { cancel(); pr.Close(); <-done }
	return &verified{r: pr, want: digestOf(d), hash: sha256.New(), stop: stop}, nil
}

// small returns a configuration through the content store.
func (b *blobs) small(ctx context.Context, m Importer, d v1.Descriptor) ([]byte, error) {
	blob, err := m.Store.Fetch(ctx, digestOf(d), func(ctx context.Context, w io.Writer) error {
		if d.Size > maxConfig {
			return fmt.Errorf("configuration %s has more than %d bytes", d.Digest, maxConfig)
		}
		r, err := b.open(ctx, d)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		return errors.Join(err, r.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("fetching the configuration: %w", err)
	}
	return readCached(blob)
}

// verified is a reader that ends with an error if it did not deliver what was
// wanted.
type verified struct {
	r    io.Reader
	want layers.Digest
	hash hash.Hash
	n    int64
	stop func()
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if errors.Is(err, io.EOF) {
		if got := layers.Digest("sha256:" + hex.EncodeToString(v.hash.Sum(nil))); got != v.want {
			err = &cache.MismatchError{Want: v.want, Got: got, Size: v.n}
		}
	}
	return n, err
}

// Close ends the download, if it still goes on.
func (v *verified) Close() error {
	v.stop()
	return nil
}
