package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/kscratch/kscratch/images"
)

// registry says how to talk to the registry of a reference. What the cluster
// file tells docker on the nodes about it counts for builds, too.
func registry(ctx context.Context, s *Spec, ref string, o Options) (images.Registry, error) {
	host, err := images.Host(ref)
	if err != nil {
		return images.Registry{}, err
	}
	if o.Offline { // nor a name server
		return images.Registry{Transport: offline{}}, nil
	}
	out := images.Registry{Insecure: insecure(ctx, host, s.Docker.InsecureRegistries)}
	private := slices.DeleteFunc(slices.Clone(s.Docker.Registries), func(r Registry) bool { return r.Host != host })
	known, err := ignitionRegistries(private, o)
	for _, k := range known {
		out.CA = k.CA
		if k.Username != "" {
			out.Keychain = images.Login{Username: k.Username, Password: k.Password}
		}
	}
	return out, err
}

// insecure reports whether a registry is one of those in a list, as docker
// reads its insecure-registries: by host:port, or by any of its addresses in a
// network. A name without addresses is in none.
func insecure(ctx context.Context, host string, list []string) bool {
	if slices.Contains(list, host) {
		return true
	}
	var nets []netip.Prefix
	for _, l := range list {
		if p, err := netip.ParsePrefix(l); err == nil {
			nets = append(nets, p)
		}
	}
	if len(nets) == 0 {
		return false
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return err == nil && slices.ContainsFunc(nets, func(p netip.Prefix) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return p.Contains(a.Unmap()) })
	})
}

// withFix adds to a registry's error what can be done about it.
func withFix(err error) error {
	var r *images.RegistryError
	if !errors.As(err, &r) {
		return err
	}
	fix := map[images.Trouble]string{
		images.Down:      "check its name and the network, or take the image from a file",
		images.PlainHTTP: "list " + r.Host + " in docker.insecureRegistries if that is meant",
		images.Untrusted: "name its authority's file in docker.registries, {host: " + r.Host + ", ca: FILE}",
		images.Denied:    "check the name, and username and passwordFile of " + r.Host + " in docker.registries",
		images.Absent:    "check repository and tag",
	}[r.Kind]
	return fmt.Errorf("%w; %s", err, fix)
}
