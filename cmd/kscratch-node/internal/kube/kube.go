// Package kube is kscratch-node's way to the cluster's API: a client of the few
// types that it needs, and a view of objects that follows them.
//
// It is client-go without its full set of clients, which would treble the
// program. Certificates that a kubeconfig names by path are read again when
// they change, as a kubelet's do.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// requestTimeout bounds a request that is not a watch.
const requestTimeout = 20 * time.Second

var scheme = newScheme()

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, certificatesv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // two types under one name: a programmer's mistake
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}

// Client speaks to the API server of a kubeconfig.
type Client struct {
	core, certificates rest.Interface
}

// New returns a client with the server and the identity of a kubeconfig.
func New(kubeconfig string) (*Client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", kubeconfig, err)
	}
	config.UserAgent = "kscratch-node"
	c := &Client{}
	if c.core, err = client(config, "/api", corev1.SchemeGroupVersion); err != nil {
		return nil, fmt.Errorf("using %s: %w", kubeconfig, err)
	}
	if c.certificates, err = client(config, "/apis", certificatesv1.SchemeGroupVersion); err != nil {
		return nil, fmt.Errorf("using %s: %w", kubeconfig, err)
	}
	return c, nil
}

// Wait returns a client as soon as the kubeconfig and the files that it names
// are there, which it looks for every interval: a kubelet writes the first
// before it has its certificate. It says in log what it waits for.
func Wait(ctx context.Context, kubeconfig string, interval time.Duration, log *slog.Logger) (*Client, error) {
	said := ""
	for {
		c, err := New(kubeconfig)
		if err == nil {
			return c, nil
		}
		if err.Error() != said {
			said = err.Error()
			log.Info("waiting for credentials", "reason", err)
		}
		if err := Sleep(ctx, interval); err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", kubeconfig, err)
		}
	}
}

func client(config *rest.Config, path string, gv schema.GroupVersion) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = path, &gv
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientFor(c)
}

// Ready asks whether the API server serves already; the error says why not.
func (c *Client) Ready(ctx context.Context) error {
	return c.core.Get().AbsPath("/readyz").Timeout(requestTimeout).Do(ctx).Error()
}

// Nodes returns all nodes.
func (c *Client) Nodes(ctx context.Context) ([]corev1.Node, error) {
	var l corev1.NodeList
	err := c.core.Get().Resource("nodes").Timeout(requestTimeout).Do(ctx).Into(&l)
	return l.Items, err
}

// PatchNode applies a JSON merge patch (RFC 7386) to a node.
func (c *Client) PatchNode(ctx context.Context, name string, patch []byte) error {
	return c.core.Patch("application/merge-patch+json").Resource("nodes").Name(name).Timeout(requestTimeout).Body(patch).Do(ctx).Error()
}

// Approve writes the conditions of a signing request.
func (c *Client) Approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	return c.certificates.Put().Resource("certificatesigningrequests").Name(r.Name).SubResource("approval").
		Timeout(requestTimeout).Body(r).Do(ctx).Error()
}

// WatchNodes follows all nodes until ctx ends: it fills the store that it
// returns, and calls changed after each change and once the first list is in.
// The store holds *corev1.Node.
func (c *Client) WatchNodes(ctx context.Context, changed func()) cache.Store {
	return watch(ctx, c.core, "nodes", fields.Everything(), &corev1.Node{}, changed)
}

// WatchRequests is [Client.WatchNodes] for the signing requests of a signer.
// The store holds *certificatesv1.CertificateSigningRequest.
func (c *Client) WatchRequests(ctx context.Context, signer string, changed func()) cache.Store {
	of := fields.OneTermEqualSelector("spec.signerName", signer)
	return watch(ctx, c.certificates, "certificatesigningrequests", of, &certificatesv1.CertificateSigningRequest{}, changed)
}

// watch lists and watches as client-go's informers do: it goes on after errors,
// with growing pauses, and lists again when the server has forgotten where the
// watch was.
func watch(ctx context.Context, c rest.Interface, resource string, of fields.Selector, kind runtime.Object, changed func()) cache.Store {
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c, resource, metav1.NamespaceAll, of),
		ObjectType:    kind,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		},
	})
	go informer.RunWithContext(ctx)
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			changed()
		}
	}()
	return store
}

// Signal is a channel of one place: any number of changes is one thing to do.
type Signal chan struct{}

// NewSignal returns a signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set sets the signal; it never waits.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Wait returns when the signal is set or d has passed, or with the error of a
// context that ends.
func (s Signal) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s:
	case <-t.C:
	}
	return nil
}

// Sleep waits for d or for the end of ctx, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error { return Signal(nil).Wait(ctx, d) }
