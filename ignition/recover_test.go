package ignition

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"testing"
)

// What is recovered from a configuration makes the same configuration again.
func TestRecover(t *testing.T) {
	for _, n := range []Node{testNode(Master), testNode(Worker)} {
		n.Docker.Registries = []Registry{{Host: "registry.example", Username: "u", Password: "p:w"}}
		config, report, err := Ignition(n)
		if err != nil {
			t.Fatal(err)
		}
		read := func(path string) ([]byte, error) {
			i := slices.IndexFunc(report.Entries, func(e Entry) bool { return e.Path == path })
			if i < 0 {
				return nil, fs.ErrNotExist
			}
			return report.Entries[i].Body, nil
		}
		set, err := RecoverPKI(n.Role, n.Security, read)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := set.Names(), Files(n.Role, n.Security); !slices.Equal(got, want) {
			t.Errorf("%s: recovered %v, want %v", n.Role, got, want)
		}
		again := n
		again.PKI = set
		if again.Docker.Registries[0].Password, err = RecoverPassword("registry.example", read); err != nil {
			t.Fatal(err)
		}
		got, _, err := Ignition(again)
		if err != nil || !bytes.Equal(got, config) {
			t.Errorf("%s: the configuration of the recovered PKI differs (%v)", n.Role, err)
		}
		if _, err := RecoverPassword("other.example", read); err == nil {
			t.Error("a password of a registry without one")
		}
		none := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
		if _, err := RecoverPKI(n.Role, n.Security, none); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nothing to recover from: %v", err)
		}
	}
}
