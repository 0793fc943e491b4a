package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kscratch/kscratch/layers/fetch"
)

// Trouble is the kind of a [RegistryError].
type Trouble int

// What a registry may do instead of giving an image.
const (
	Down      Trouble = iota + 1 // it does not answer, or only that it cannot now
	PlainHTTP                    // it speaks HTTP, and was not said to be insecure
	Untrusted                    // its certificate is not one that is trusted
	Denied                       // it wants credentials, or others
	Absent                       // it has no such repository, tag or digest
)

// RegistryError says that a registry did not give an image.
type RegistryError struct {
	Host string  // host or host:port
	Kind Trouble // why, as far as that decides what to do about it
	Err  error
}

func (e *RegistryError) Error() string {
	what := map[Trouble]string{
		Down: "does not answer", PlainHTTP: "speaks plain HTTP", Untrusted: "is not trusted",
		Denied: "refuses", Absent: "does not have it",
	}[e.Kind]
	return fmt.Sprintf("registry %s %s: %v", e.Host, what, e.Err)
}

// Unwrap returns the cause.
func (e *RegistryError) Unwrap() error { return e.Err }

// trouble turns an error of the registry of a reference into a
// *[RegistryError]; others stay as they are.
func (r Registry) trouble(from string, err error) error {
	ref, _, perr := r.parse(from)
	kind, cause := diagnose(err)
	if perr != nil || kind == 0 {
		return err
	}
	return &RegistryError{Host: ref.RegistryStr(), Kind: kind, Err: cause}
}

// diagnose finds the kind of trouble that an error stands for, and the part of
// the error that says it in the fewest words.
func diagnose(err error) (Trouble, error) {
	var (
		answer *transport.Error
		status *fetch.StatusError
		cert   *tls.CertificateVerificationError
		dns    *net.DNSError
		op     *net.OpError
	)
	switch {
	case errors.Is(err, context.Canceled):
	case errors.As(err, &answer):
		return ofStatus(answer.StatusCode), err
	case errors.As(err, &status):
		return ofStatus(status.Code), err
	case errors.As(err, &cert):
		return Untrusted, cert
	case errors.Is(err, http.ErrSchemeMismatch):
		return PlainHTTP, http.ErrSchemeMismatch
	case errors.As(err, &dns):
		return Down, dns
	case errors.As(err, &op):
		return Down, op
	}
	return 0, err
}

func ofStatus(code int) Trouble {
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return Denied
	case code == http.StatusNotFound:
		return Absent
	case code == http.StatusTooManyRequests || code >= http.StatusInternalServerError:
		return Down
	}
	return 0
}
