package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/cmd/internal/etcdadmin"
	"github.com/kscratch/kscratch/cmd/internal/memberapi"
	"github.com/kscratch/kscratch/ignition/pki"
)

// etcdFlags are those of every command about etcd.
type etcdFlags struct{ endpoints []string }

func newEtcd(e *env) *cobra.Command {
	var f etcdFlags
	c := &cobra.Command{
		Use:   "etcd",
		Short: "Look after a running cluster's etcd",
		Long: `Looks after the etcd of a running cluster whose cluster file names etcd.members.
It reaches the masters on TCP ports 2379 and 2382, as a client that it makes
itself known as with the key of etcd's authority in the pki directory.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringSliceVar(&f.endpoints, "endpoints", nil, "`host:port` of etcd, several with commas; the default is port 2379 of etcd.members")
	c.AddCommand(newEtcdReplace(e, &f), newEtcdSnapshot(e, &f), newEtcdRestore(e, &f))
	return c
}

func newEtcdReplace(e *env, f *etcdFlags) *cobra.Command {
	var running bool
	c := &cobra.Command{
		Use:   "replace-member NAME",
		Short: "Let a member start with a new disk",
		Long: `Removes a member from etcd's list and adds it anew, so that its machine may join
with an empty disk. Refuses if the other members would not be a majority. Data
that the machine still has is kept aside there.`,
		Example: "  kscratch etcd replace-member master-2",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			k, _, err := e.etcd(c, f)
			if err != nil {
				return err
			}
			if err := k.Replace(c.Context(), a[0], running); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "Member %[1]s may join anew. Next: leave its machine running, or switch it on with the masters' image;\nit joins by itself within a minute, and says so on its console.\n", a[0])
			return err
		},
	}
	c.Flags().BoolVar(&running, "running", false, "replace it although it runs")
	return c
}

func newEtcdSnapshot(e *env, f *etcdFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Save etcd's data in a file",
		Long: `Saves the data of one member that has a majority behind it. The file appears
whole and verified, or not at all, and is never overwritten. It holds every
Secret of the cluster.`,
		Example: "  kscratch etcd snapshot etcd-$(date +%F).db",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			k, _, err := e.etcd(c, f)
			if err != nil {
				return err
			}
			t, err := k.Snapshot(c.Context(), a[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  %d bytes of etcd %s at %s\n", a[0], t.Size, t.Version, t.Endpoint)
			return err
		},
	}
}

func newEtcdRestore(e *env, f *etcdFlags) *cobra.Command {
	var etcdutl string
	var release bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Go back to a snapshot of etcd",
		Long: `Makes a new cluster of all members with the data of a snapshot. All masters have
to run. Each keeps the data that it had aside, in kscratch/aside-N of etcd's
data directory.

It needs etcdutl of etcd's version, which it builds from Go modules unless
--etcdutl names one. If it is cut off, run it again, or with --release and no
FILE to let etcd go on with the data that it has.`,
		Example: "  kscratch etcd restore etcd-2026-11-27.db",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			if (len(a) == 1) == release {
				return usageError{errors.New("want either FILE or --release")}
			}
			if len(f.endpoints) > 0 {
				return usageError{errors.New("--endpoints: a restore is for all of etcd.members and speaks to kscratch-node on them, at their addresses in the cluster file; leave it away")}
			}
			return e.etcdRestore(c, f, a, etcdutl)
		},
	}
	c.Flags().StringVar(&etcdutl, "etcdutl", "", "`program` to make data with")
	c.Flags().BoolVar(&release, "release", false, "forget a restore that was cut off")
	return c
}

func (e *env) etcdRestore(c *cobra.Command, f *etcdFlags, files []string, etcdutl string) (err error) {
	k, spec, err := e.etcd(c, f)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return k.Release(c.Context())
	}
	dir, err := os.MkdirTemp("", "kscratch-etcd-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if etcdutl == "" {
		store, err := e.store()
		if err != nil {
			return err
		}
		goTool, _ := exec.LookPath("go") // without one, the build says so
		etcdutl = filepath.Join(dir, "etcdutl")
		if err := builder.Etcdutl(c.Context(), spec, etcdutl, builder.Options{Store: store, Go: goTool, Env: os.Environ(), Now: time.Now(), Log: e.logger(), Offline: e.offline}); err != nil {
			return err
		}
	}
	if err := k.Restore(c.Context(), files[0], etcdutl, filepath.Join(dir, "data")); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), "All members have the data of "+files[0]+" and start. Watch: kubectl get --raw=/readyz/etcd")
	return err
}

// etcd returns the cluster of the cluster file, with a certificate of its own.
func (e *env) etcd(c *cobra.Command, f *etcdFlags) (etcdadmin.Cluster, *builder.Spec, error) {
	spec, err := e.spec(c)
	if err != nil {
		return etcdadmin.Cluster{}, nil, err
	}
	k := etcdadmin.Cluster{Endpoints: f.endpoints, Log: e.logger()}
	if k.Members, err = spec.EtcdMembers(); err != nil {
		return k, nil, err
	}
	if len(k.Members) == 0 {
		return k, nil, usageError{fmt.Errorf("%s names no etcd.members: its etcd listens to its own machine only", e.file)}
	}
	for _, p := range f.endpoints {
		if _, _, err := net.SplitHostPort(p); err != nil {
			return k, nil, usageError{fmt.Errorf("--endpoints %q: want host:port", p)}
		}
	}
	pair, authority, err := pki.EtcdClient(filepath.Join(filepath.Dir(e.file), spec.PKI), memberapi.Operator, pki.Options{Now: time.Now(), Rand: rand.Reader})
	if err != nil {
		return k, nil, err
	}
	k.TLS, err = memberapi.TLS(authority, pair)
	return k, spec, err
}
