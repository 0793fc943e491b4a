package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// TestMain lets the test's own program stand in an image for those that are
// asked for their flags.
func TestMain(m *testing.M) {
	if f, ok := stand[os.Args[0]]; ok {
		os.Exit(takeFlags(f(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

var stand = map[string]func() *pflag.FlagSet{
	"kubelet": func() *pflag.FlagSet {
		f := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
		f.StringToString("node-labels", nil, "Labels of the node.")
		return f
	},
	"etcd": func() *pflag.FlagSet {
		f := pflag.NewFlagSet("etcd", pflag.ContinueOnError)
		f.Int("quota-backend-bytes", 0, "Size of the store.")
		return f
	},
}

func takeFlags(f *pflag.FlagSet, args []string) int {
	f.Usage = func() {}
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Print(f.FlagUsages())
	case err != nil:
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 1
	}
	return 0
}

func TestCheckFlags(t *testing.T) {
	l, files, baked, o := flagged(t)
	for _, tt := range []struct {
		name, in string
		role     Role
		want     string
	}{
		{"none", "", Master, ""},
		{"good", "kubelet: {extraFlags: {node-labels: a=b}}\netcd: {extraFlags: {quota-backend-bytes: 8589934592}}", Master, ""},
		{"unknown", "kubelet:\n  extraFlags:\n    node-label: a=b\n", Worker,
			"f:3:5: kubelet.extraFlags.node-label: is no flag of kubelet v1.36.3; did you mean node-labels?"},
		{"of both", "kubelet: {extraFlags: {node-label: a=b}}\netcd:\n  extraFlags:\n    quota-backend-bytes: many\n", Master,
			"f:1:24: kubelet.extraFlags.node-label: is no flag of kubelet v1.36.3; did you mean node-labels?\n" +
				`f:4:5: etcd.extraFlags.quota-backend-bytes: is refused by etcd v3.6.8: invalid argument "many" for "--quota-backend-bytes" flag: strconv.ParseInt: parsing "many": invalid syntax`},
		{"a worker has no etcd", "etcd: {extraFlags: {nosuch: x}}", Worker, ""},
		{"no such program", "controlPlane: {scheduler: {extraFlags: {v: 2}}}", Master,
			"checking the flags of kube-scheduler: image registry.k8s.io/kube-scheduler:v1.36.3 has no program of that name in its 1 layers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("f", []byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := checkFlags(t.Context(), s, l, tt.role, files, baked, o); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// flagged is a lock, programs and images, of which the kubelet and etcd can be
// asked for their flags.
func flagged(t *testing.T) (*Lock, map[string]cache.Blob, []images.Image, Options) {
	t.Helper()
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	self, err := store.Put(t.Context(), func(_ context.Context, w io.Writer) error {
		name, err := os.Executable()
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, o := Default(), Options{Store: store}
	l := &Lock{Files: []LockedFile{{Name: serverTarball, Version: s.Kubernetes.Version}}}
	var baked []images.Image
	for _, e := range []struct{ ref, path string }{
		{componentRef("etcd", s.Components.Etcd), "usr/local/bin/etcd"}, {kubeRef("kube-scheduler", s), "bin/other"},
	} {
		file := layers.File{Path: e.path, Mode: 0o755, Owner: "t", Size: self.Size, Open: self.ReadCloser}
		img, err := importer(o).Compose(t.Context(), e.ref, images.Config{Cmd: []string{"x"}}, layers.Of(e.ref, self.Digest, file))
		if err != nil {
			t.Fatal(err)
		}
		l.Images, baked = append(l.Images, LockedImage{Name: e.ref}), append(baked, img)
	}
	return l, map[string]cache.Blob{"kubelet": self}, baked, o
}
