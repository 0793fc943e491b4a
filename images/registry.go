package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Registry says how to talk to registries. The zero value talks HTTPS with the
// system's authorities, without credentials.
type Registry struct {
	Keychain  authn.Keychain    // credentials; nil: none
	CA        []byte            // further certificate authorities, PEM
	Insecure  bool              // HTTPS without a look at the certificate, or plain HTTP where HTTPS does not answer
	Retries   int               // further tries after a passing error; 3 if zero, none if negative
	Wait      time.Duration     // before the first further try, doubled each time; 500 ms if zero
	Transport http.RoundTripper // nil: one of our own; with one given, CA is its business
}

// Login is a [authn.Keychain] with one name and password.
type Login struct{ Username, Password string }

// Resolve returns the name and password, whatever the registry.
func (l Login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.Username, Password: l.Password}, nil
}

// Host returns the registry of a reference, as host or host:port. That of
// docker's own is docker.io.
func Host(ref string) (string, error) {
	t, _, err := Registry{}.parse(ref)
	if err != nil {
		return "", err
	}
	if h := t.RegistryStr(); h != name.DefaultRegistry {
		return h, nil
	}
	return "docker.io", nil
}

// Pin is an image in a registry by its digest: what a lock file holds.
type Pin struct {
	From   string        // what was resolved: a reference with a tag or a digest
	Ref    string        // name:tag that docker shall know the image by
	Digest layers.Digest // of the manifest for the wanted platform
	Index  layers.Digest // of the index it was chosen from; empty if there is none
}

// Resolve asks a registry what a reference stands for now. The reference may
// have a tag, a digest or both; both must agree. Docker shall know the image
// by the name as, or by its own if as is empty. An image for other platforms
// only is a *[PlatformError].
func (r Registry) Resolve(ctx context.Context, m Importer, from, as string) (Pin, error) {
	p, err := r.resolve(ctx, m, from, as)
	if err != nil {
		return Pin{}, fmt.Errorf("resolving image %s: %w", from, r.trouble(from, err))
	}
	m.log().Debug("image resolved", "from", from, "digest", p.Digest, "index", p.Index)
	return p, nil
}

func (r Registry) resolve(ctx context.Context, m Importer, from, as string) (Pin, error) {
	ref, want, err := r.parse(from)
	if err != nil {
		return Pin{}, err
	}
	if as == "" {
		as = familiar(ref)
	}
	tag, err := parseRef(as)
	if err != nil {
		return Pin{}, err
	}
	client, err := r.client()
	if err != nil {
		return Pin{}, err
	}
	var at name.Reference = ref
	if want != "" {
		at = ref.Digest(string(want))
	}
	d, err := client.Get(ctx, at)
	if err != nil {
		return Pin{}, err
	}
	mt, err := manifestType(d.MediaType, d.Manifest)
	if err != nil {
		return Pin{}, err
	}
	digest := layers.Digest(d.Digest.String())
	if err := digest.Check(); err != nil {
		return Pin{}, err
	}
	p := Pin{From: from, Ref: familiar(tag), Digest: digest}
	if mt.IsIndex() {
		p.Index = digest
		if p.Digest, err = m.choose(from, d.Manifest); err != nil {
			return Pin{}, err
		}
	}
	// The configuration tells what an image alone is for, and whether an
	// index told the truth.
	_, err = r.config(ctx, m, client, &blobs{r: r, repo: ref.Context()}, p)
	return p, err
}

// parse splits a reference into repository and tag, and the digest if it has
// one.
func (r Registry) parse(from string) (name.Tag, layers.Digest, error) {
	var opts []name.Option
	if r.Insecure {
		opts = append(opts, name.Insecure)
	}
	tagged, digest, ok := strings.Cut(from, "@")
	tag, err := parseRef(tagged, opts...)
	if err != nil || !ok {
		return tag, "", err
	}
	d := layers.Digest(digest)
	return tag, d, d.Check()
}

// config reads the manifest and the configuration that a pin leads to and
// checks them.
func (r Registry) config(ctx context.Context, m Importer, client *remote.Puller, bs *blobs, p Pin) ([]byte, error) {
	raw, err := r.manifest(ctx, m, client, p)
	if err != nil {
		return nil, err
	}
	man, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing the manifest: %w", err)
	}
	config, err := bs.small(ctx, m, man.Config)
	if err != nil {
		return nil, err
	}
	_, err = m.diffIDs(p.From, config)
	return config, err
}

// Pull brings a pinned image into the content store. Whatever the tag has come
// to mean, it fetches by digest alone; what the store has is not fetched.
func (r Registry) Pull(ctx context.Context, m Importer, p Pin) (Image, error) {
	img, err := r.pull(ctx, m, p)
	if err != nil {
		return Image{}, fmt.Errorf("pulling image %s (%s): %w", p.From, p.Digest, r.trouble(p.From, err))
	}
	return img, nil
}

func (r Registry) pull(ctx context.Context, m Importer, p Pin) (Image, error) {
	client, err := r.client()
	if err != nil {
		return Image{}, err
	}
	raw, err := r.manifest(ctx, m, client, p)
	if err != nil {
		return Image{}, err
	}
	ref, _, err := r.parse(p.From)
	if err != nil {
		return Image{}, err
	}
	bs := &blobs{r: r, repo: ref.Context()}
	img, err := m.fromManifest(ctx, p.Ref, raw,
		func(ctx context.Context, d v1.Descriptor) ([]byte, error) { return bs.small(ctx, m, d) }, bs.open)
	if err != nil {
		return Image{}, err
	}
	img.Digest, img.Index = p.Digest, p.Index
	return img, nil
}

func (r Registry) manifest(ctx context.Context, m Importer, client *remote.Puller, p Pin) ([]byte, error) {
	if err := p.Digest.Check(); err != nil {
		return nil, err
	}
	b, err := m.Store.Fetch(ctx, p.Digest, func(ctx context.Context, w io.Writer) error {
		ref, _, err := r.parse(p.From)
		if err != nil {
			return err
		}
		d, err := client.Get(ctx, ref.Digest(string(p.Digest)))
		if err != nil {
			return err
		}
		_, err = w.Write(d.Manifest)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetching the manifest: %w", err)
	}
	return readCached(b)
}

func readCached(b cache.Blob) ([]byte, error) {
	f, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (r Registry) retries() int {
	if r.Retries == 0 {
		return 3
	}
	return max(r.Retries, 0)
}

func (r Registry) wait() time.Duration {
	if r.Wait <= 0 {
		return 500 * time.Millisecond
	}
	return r.Wait
}

// client returns a client that keeps a session with each registry.
func (r Registry) client() (*remote.Puller, error) {
	t, err := r.transport()
	if err != nil {
		return nil, err
	}
	opts := []remote.Option{
		remote.WithTransport(t),
		remote.WithUserAgent("kscratch"),
		remote.WithRetryBackoff(remote.Backoff{Duration: r.wait(), Factor: 2, Steps: r.retries() + 1}),
		remote.WithRetryPredicate(passing),
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}
	if r.Keychain != nil {
		opts = append(opts, remote.WithAuthFromKeychain(r.Keychain))
	}
	return remote.NewPuller(opts...)
}

// passing says whether a request may succeed when it is made again.
func passing(err error) bool {
	var status *transport.Error
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	var noTLS tls.RecordHeaderError
	switch {
	case err == nil: // the client asks about every request
		return false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &cert),
		errors.Is(err, errPlain), errors.As(err, &noTLS):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &status):
		return status.Temporary()
	}
	return true
}

func (r Registry) transport() (http.RoundTripper, error) {
	rt := r.Transport
	if rt == nil {
		own, ok := remote.DefaultTransport.(*http.Transport)
		if !ok {
			return nil, fmt.Errorf("internal error: default transport is a %T", remote.DefaultTransport)
		}
		own = own.Clone()
		if r.Insecure {
			own.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- what the caller asks for
		} else if len(r.CA) > 0 {
			pool, err := x509.SystemCertPool()
			if err != nil {
				return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
			}
			if !pool.AppendCertsFromPEM(r.CA) {
				return nil, fmt.Errorf("reading the registry's certificate authorities: no certificate in them")
			}
			own.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		rt = own
	}
	if r.Insecure {
		return rt, nil
	}
	return httpsOnly{rt}, nil
}

var errPlain = errors.New("plain HTTP is refused unless the registry is marked insecure")

// httpsOnly keeps the client from falling back to plain HTTP, which
// go-containerregistry does for addresses that look local.
type httpsOnly struct{ next http.RoundTripper }

func (h httpsOnly) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Scheme != "https" {
		return nil, fmt.Errorf("asking %s: %w", q.URL.Host, errPlain)
	}
	return h.next.RoundTrip(q)
}
