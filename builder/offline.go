package builder

import (
	"errors"
	"fmt"
	"net/http"
)

// errOffline is the reason why nothing is fetched.
var errOffline = errors.New("offline: no server is asked")

// offline is a transport that reaches no server.
type offline struct{}

// RoundTrip refuses.
func (offline) RoundTrip(q *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("asking %s: %w", q.URL.Host, errOffline)
}
