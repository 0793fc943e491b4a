//go:build foreign

package deb_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers/deb"
)

// dpkg has the same order of versions.
func TestCompareVersionsLikeDpkg(t *testing.T) {
	all := slices.Concat(versions...)
	for _, a := range all {
		for _, b := range all {
			op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[deb.CompareVersions(a, b)]
			if out, err := exec.Command("dpkg", "--compare-versions", a, op, b).CombinedOutput(); err != nil {
				t.Errorf("dpkg does not agree that %s %s %s: %v %s", a, op, b, err, out)
			}
		}
	}
}

// dpkg-deb reads the packages of aptfake and sees in them what we see.
func TestLayerLikeDpkg(t *testing.T) {
	for _, compress := range []string{"", ".gz", ".xz", ".zst"} {
		b := bytesOf(t, hello(compress))
		file := filepath.Join(t.TempDir(), "hello.deb")
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -t && dpkg-deb -f "$0" Package Version && dpkg-deb -I "$0" conffiles postinst`, file).Output()
		if err != nil {
			t.Fatalf("dpkg-deb: %v", err)
		}
		s := open(t)
		p, err := deb.Layer(t.Context(), s, put(t, s, b), "", deb.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for f, err := range p.Layer.Files() {
			if err != nil {
				t.Fatal(err)
			}
			name := "./" + f.Path
			if f.Mode.IsDir() {
				name = strings.TrimSuffix(name, ".") + "/"
			}
			fmt.Fprintln(&want, strings.Replace(name, ".//", "./", 1))
		}
		fmt.Fprintf(&want, "Package: %s\nVersion: %s\n", p.Name, p.Version)
		want.WriteString("/etc/hello.conf\nremove-on-upgrade /etc/old\n#!/bin/sh\nexit 0\n")
		if string(out) != want.String() {
			t.Errorf("dpkg-deb sees:\n%s\nwe see:\n%s", out, want.String())
		}
	}
}
