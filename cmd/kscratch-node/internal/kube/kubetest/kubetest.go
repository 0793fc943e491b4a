// Package kubetest is an API server for tests of kscratch-node: it lists,
// watches and changes nodes and signing requests as Kubernetes does
// (https://kubernetes.io/docs/reference/using-api/api-concepts/), with no
// authorization, no validation and one version of each object.
package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Server is an API server on a loopback port.
type Server struct {
	t  testing.TB
	mu sync.Mutex

	version  int
	objects  map[string]map[string]json.RawMessage // by resource and name
	kinds    map[string]string
	watchers map[string][]chan event // by resource
	down     bool
	url      string
}

type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{
		t: t, version: 1, objects: map[string]map[string]json.RawMessage{}, watchers: map[string][]chan event{},
		kinds: map[string]string{"nodes": "v1 NodeList", "certificatesigningrequests": "certificates.k8s.io/v1 CertificateSigningRequestList"},
	}
	h := httptest.NewServer(s)
	s.url = h.URL
	t.Cleanup(func() {
		s.Down(true)
		h.CloseClientConnections()
		h.Close()
	})
	return s
}

// Kubeconfig writes one for the server and returns its path.
func (s *Server) Kubeconfig() string {
	file := filepath.Join(s.t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"+
		"clusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {}}]\n", s.url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// Down lets the server answer everything with 503 and ends its watches, or not
// any more.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	for resource, ws := range s.watchers {
		for _, w := range ws {
			close(w)
		}
		delete(s.watchers, resource)
	}
}

// Put creates or replaces an object of a resource.
func (s *Server) Put(resource string, o metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	b, err := json.Marshal(o)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.put(resource, o.GetName(), b)
}

func (s *Server) put(resource, name string, b []byte) {
	what := "ADDED"
	if s.objects[resource] == nil {
		s.objects[resource] = map[string]json.RawMessage{}
	}
	if _, ok := s.objects[resource][name]; ok {
		what = "MODIFIED"
	}
	s.objects[resource][name] = b
	s.tell(resource, event{what, b})
}

// Delete removes an object.
func (s *Server) Delete(resource, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	b := s.objects[resource][name]
	delete(s.objects[resource], name)
	s.tell(resource, event{"DELETED", b})
}

// Get reads an object into o and says whether it is there.
func (s *Server) Get(resource, name string, o any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.objects[resource][name]
	if ok {
		if err := json.Unmarshal(b, o); err != nil {
			s.t.Error(err)
		}
	}
	return ok
}

func (s *Server) tell(resource string, e event) {
	for _, w := range s.watchers[resource] {
		w <- e
	}
}

// ServeHTTP is the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/apis/certificates.k8s.io/v1/")
	resource, name, _ := strings.Cut(rest, "/")
	name = strings.TrimSuffix(name, "/approval")
	switch {
	case r.Method == http.MethodGet && name == "" && r.URL.Query().Get("watch") != "":
		s.watch(w, r, resource)
	case r.Method == http.MethodGet && name == "":
		s.list(w, resource)
	case r.Method == http.MethodPatch || r.Method == http.MethodPut:
		s.change(w, r, resource, name)
	default:
		http.Error(w, path.Base(r.URL.Path), http.StatusNotFound)
	}
}

func (s *Server) list(w http.ResponseWriter, resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, kind, _ := strings.Cut(s.kinds[resource], " ")
	items := []json.RawMessage{}
	for _, b := range s.objects[resource] {
		items = append(items, b)
	}
	s.answer(w, map[string]any{
		"apiVersion": version, "kind": kind, "items": items, "metadata": map[string]string{"resourceVersion": strconv.Itoa(s.version)},
	})
}

func (s *Server) answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Error(err)
	}
}

// bookmark ends the objects that were there when a watch began.
func (s *Server) bookmark(resource string) json.RawMessage {
	version, kind, _ := strings.Cut(s.kinds[resource], " ")
	b, err := json.Marshal(metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: strings.TrimSuffix(kind, "List")},
		ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: strconv.Itoa(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		},
	})
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// watch sends what changes, after what is there if it is asked to. A client that is behind has to list again.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, resource string) {
	s.mu.Lock()
	events := make(chan event, 100)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, b := range s.objects[resource] {
			events <- event{"ADDED", b}
		}
		events <- event{"BOOKMARK", s.bookmark(resource)}
	} else if got := r.URL.Query().Get("resourceVersion"); got != strconv.Itoa(s.version) {
		s.mu.Unlock()
		w.WriteHeader(http.StatusGone)
		s.answer(w, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410,
		})
		return
	}
	s.watchers[resource] = append(s.watchers[resource], events)
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	for {
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			s.answer(w, e)
		}
	}
}

func (s *Server) change(w http.ResponseWriter, r *http.Request, resource, name string) {
	var body json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.objects[resource][name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodPatch {
		var err error
		if body, err = jsonpatch.MergePatch(old, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.version++
	version, err := json.Marshal(map[string]any{"metadata": map[string]string{"resourceVersion": strconv.Itoa(s.version)}})
	if err == nil {
		body, err = jsonpatch.MergePatch(body, version)
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	s.put(resource, name, body)
	s.answer(w, body)
}
