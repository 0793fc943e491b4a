//go:build foreign

package aptfake_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/test/aptfake"
)

// apt accepts the archive, signatures included, and dpkg-deb its packages.
func TestApt(t *testing.T) {
	for _, compress := range [][]string{{""}, {".gz", ".xz"}} {
		dir := t.TempDir()
		keys, err := aptfake.Settings{Debs: debs, Compress: compress}.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "lists/partial", "cache/archives/partial"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		source := "deb [signed-by=" + dir + "/keys.asc] file://" + dir
		for name, text := range map[string]string{
			"keys.asc": string(keys),
			"status":   "",
			"etc/apt/sources.list": fmt.Sprintf("%s/debian trixie main\n%s/debian trixie-updates main\n%s/debian-security trixie-security main\n",
				source, source, source),
			"apt.conf": fmt.Sprintf("Dir %q;\nDir::State \"%s\";\nDir::State::lists \"%s/lists\";\nDir::State::status \"%s/status\";\nDir::Cache \"%s/cache\";\n"+
				"APT::Architecture \"amd64\";\nAPT::Architectures { \"amd64\"; };\nAPT::Sandbox::User \"\";\n", dir, dir, dir, dir, dir),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run := func(args ...string) string {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "APT_CONFIG="+dir+"/apt.conf", "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "W:") || strings.Contains(string(out), "E:") {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			return string(out)
		}
		run("apt-get", "update")
		out := run("apt-get", "-s", "install", "aa", "cc")
		for _, want := range []string{"Inst aa (1.0-1 Debian:stable [amd64])", "Inst libb1 (1:2-3 Debian:stable-security [amd64])", "Inst cc (1.0-1 Debian:stable-updates [all])"} {
			if !strings.Contains(out, want) {
				t.Errorf("apt does not say %q, but\n%s", want, out)
			}
		}
		run("apt-get", "download", "aa")
		if got := run("sh", "-c", "dpkg-deb -c aa_*.deb"); !strings.Contains(got, "./usr/bin/aa") {
			t.Errorf("dpkg-deb sees %s", got)
		}
	}
}
