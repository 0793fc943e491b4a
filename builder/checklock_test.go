package builder

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/layers"
)

// fittingLock is a lock that fits a spec: with a package that stands in for a
// name, and two that both need a third.
func fittingLock(s *Spec) *Lock {
	d := layers.DigestOf([]byte("tarball"))
	etcd := layers.DigestOf([]byte("etcd"))
	l := &Lock{Roles: map[Role][]string{}}
	for _, role := range Roles {
		for _, name := range s.PackageNames(role) {
			if name != "editor" && name != "nano-" {
				l.Roles[role] = append(l.Roles[role], name)
			}
		}
		l.Roles[role] = append(l.Roles[role], "libc6", "vim")
	}
	for _, name := range l.Roles[Master] {
		l.Packages = append(l.Packages, LockedPackage{Name: name, Version: "1"})
	}
	at := slices.IndexFunc(l.Packages, func(p LockedPackage) bool { return p.Name == "bash" })
	l.Packages[at].Requires = []string{"libc6"}
	l.Packages[len(l.Packages)-1].For = []string{"editor"}
	l.Packages[len(l.Packages)-1].Requires = []string{"libc6", "editor"}
	c := s.Components
	l.add(pins{
		[]LockedFile{
			{Name: serverTarball, Version: s.Kubernetes.Version, From: "release", Digest: d}, {Name: criDockerdName, Version: c.CRIDockerd.Version, From: "release"},
			{Name: "etcd", Version: c.Etcd.Version, Digest: etcd},
		},
		append(serverImages(s, LockedFile{Digest: d}),
			LockedImage{Name: componentRef("etcd", c.Etcd), From: "program:etcd", Digest: etcd},
			LockedImage{Name: componentRef("coredns", c.CoreDNS), From: "docker://x"},
			LockedImage{Name: componentRef("pause", c.Pause), From: "program:pause"}),
	})
	return l
}

// TestInconsistent says what is missing, what is too much, and what does not
// fit.
func TestInconsistent(t *testing.T) {
	remove := func(l *Lock, name string) {
		for role, names := range l.Roles {
			l.Roles[role] = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Spec, *Lock)
		want   []string
	}{
		{"fits", func(*Spec, *Lock) {}, nil},
		{"dependency missing", func(_ *Spec, l *Lock) {
			remove(l, "libc6")
			l.Packages = slices.DeleteFunc(l.Packages, func(p LockedPackage) bool { return p.Name == "libc6" })
		}, []string{
			"package bash of role master needs libc6, which is missing", "package vim of role master needs libc6, which is missing",
			"package bash of role node needs libc6, which is missing", "package vim of role node needs libc6, which is missing",
		}},
		{"stand-in missing", func(_ *Spec, l *Lock) { remove(l, "vim") }, []string{
			"package editor of role master is missing", "package editor of role node is missing", "package vim is in no role",
		}},
		{"not pinned", func(_ *Spec, l *Lock) { l.Roles[Worker] = append(l.Roles[Worker], "ghost") }, []string{
			"package ghost of role node is not pinned",
		}},
		{"twice", func(_ *Spec, l *Lock) { l.Packages = append(l.Packages, l.Packages[0]) }, []string{"package base-files is pinned twice"}},
		{"excluded", func(_ *Spec, l *Lock) {
			l.Roles[Master] = append(l.Roles[Master], "nano")
			l.Packages = append(l.Packages, LockedPackage{Name: "nano"})
		}, []string{"package nano is excluded from role master, and is there"}},
		{"another version", func(s *Spec, _ *Lock) { s.Base.Packages = append(s.Base.Packages, "bash=2") }, []string{
			"package bash of role master is asked for as 2, and pinned as 1", "package bash of role node is asked for as 2, and pinned as 1",
		}},
		{"flannel", func(s *Spec, _ *Lock) { s.Network.Mode = "flannel" }, []string{"program flanneld is missing"}},
		{"programs", func(s *Spec, l *Lock) {
			s.Kubernetes.Version = "v1.36.4"
			l.add(pins{files: []LockedFile{{Name: "flanneld"}}})
		}, []string{
			"program flanneld is not asked for", "program kubernetes-server is asked for as v1.36.4, and pinned as v1.36.3",
			"image registry.k8s.io/kube-apiserver:v1.36.3 is not asked for", "image registry.k8s.io/kube-apiserver:v1.36.4 is missing",
			"image registry.k8s.io/kube-controller-manager:v1.36.3 is not asked for", "image registry.k8s.io/kube-controller-manager:v1.36.4 is missing",
			"image registry.k8s.io/kube-scheduler:v1.36.3 is not asked for", "image registry.k8s.io/kube-scheduler:v1.36.4 is missing",
		}},
		{"images", func(s *Spec, l *Lock) {
			s.Images = []ExtraImage{{Name: "a:1", From: "docker://a"}, {Name: "b:1", From: "docker://b"}}
			l.add(pins{images: []LockedImage{{Name: "b:1", From: "docker://c"}, {Name: "d:1", From: "oci:d"}}})
		}, []string{
			"image a:1 is missing", "image b:1 is asked for as docker://b, and pinned as docker://c", "image d:1 is not asked for",
		}},
		{"other sources", func(s *Spec, _ *Lock) {
			s.Kubernetes.Sources = []string{"cache", "modules"}
			s.Components.CRIDockerd.Sources = []string{"path"}
			s.Components.Etcd.Sources = []string{"registry", "distro"}
			s.Components.CoreDNS.Sources, s.Components.CoreDNS.Path = []string{"path"}, "dns.tar"
		}, []string{
			"program kubernetes-server is from release, and asked for from cache, modules",
			"program cri-dockerd is from release, and asked for from path",
			"image registry.k8s.io/etcd:3.6.8-0 is from program:etcd, and asked for from registry, distro",
			"image registry.k8s.io/coredns/coredns:v1.14.7 is from docker://x, and asked for from path dns.tar",
		}},
		{"another file", func(s *Spec, l *Lock) {
			i := slices.IndexFunc(l.Images, func(im LockedImage) bool { return strings.Contains(im.Name, "pause") })
			l.Images[i].From = "docker-archive:a.tar"
			s.Components.Pause.Sources, s.Components.Pause.Path = []string{"path"}, "b.tar"
		}, []string{"image registry.k8s.io/pause:3.10.1 is from docker-archive:a.tar, and asked for from path b.tar"}},
		{"wanted digests", func(s *Spec, l *Lock) {
			a, b, c := layers.DigestOf([]byte("a")), layers.DigestOf([]byte("b")), layers.DigestOf([]byte("c"))
			for _, name := range []string{"asked:1", "other:1", "pinned:1", "free:1"} {
				s.Images = append(s.Images, ExtraImage{Name: name, From: "docker://x", Digest: string(a)})
			}
			s.Images[3].Digest = ""
			l.add(pins{images: []LockedImage{
				{Name: "asked:1", From: "docker://x", Digest: b, Asked: a}, {Name: "other:1", From: "docker://x", Digest: b, Asked: c},
				{Name: "pinned:1", From: "docker://x", Digest: a}, {Name: "free:1", From: "docker://x", Digest: b, Asked: c},
			}})
			s.Components.CRIDockerd.SHA256 = a.Hex()
		}, []string{
			"program cri-dockerd is asked for with " + string(layers.DigestOf([]byte("a"))) + " of its release, and was pinned without",
			"image other:1 is asked for as " + string(layers.DigestOf([]byte("a"))) + ", and pinned as " + string(layers.DigestOf([]byte("b"))),
		}},
		{"other digests", func(_ *Spec, l *Lock) {
			for i := range l.Files {
				l.Files[i].Digest = layers.DigestOf(nil)
			}
		}, []string{
			"image registry.k8s.io/etcd:3.6.8-0 is of another etcd than the lock pins",
			"image registry.k8s.io/kube-apiserver:v1.36.3 is of another tarball than the lock pins",
			"image registry.k8s.io/kube-controller-manager:v1.36.3 is of another tarball than the lock pins",
			"image registry.k8s.io/kube-scheduler:v1.36.3 is of another tarball than the lock pins",
		}},
	} {
		s := Default()
		s.Base.Packages = []string{"editor", "nano-"}
		l := fittingLock(s)
		tt.change(s, l)
		if d := cmp.Diff(tt.want, inconsistent(s, l)); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, d)
		}
	}
}
