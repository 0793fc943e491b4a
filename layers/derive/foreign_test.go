//go:build foreign

package derive

import (
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/layers"
)

// TestSystemctlAgrees compares the links of preset-all.
func TestSystemctlAgrees(t *testing.T) {
	for _, tt := range unitTrees {
		t.Run(tt.name, func(t *testing.T) {
			root := writeTree(t, tree(t, tt.tree))
			command(t, "systemctl", "--root="+root, "preset-all")
			var got []string
			walk(t, filepath.Join(root, etcUnits), func(p string, d fs.DirEntry) {
				if target, err := os.Readlink(p); err == nil && target != "/dev/null" {
					got = append(got, fmt.Sprintln(strings.TrimPrefix(p, filepath.Join(root, etcUnits)+"/"), filepath.Base(target)))
				}
			})
			slices.Sort(got)
			if ours := presetLinks(t, tt.tree); ours != strings.Join(got, "") {
				t.Errorf("links:\n%s\nsystemctl makes:\n%s", ours, strings.Join(got, ""))
			}
		})
	}
}

// TestSystemdSysusersAgrees compares names, ids, groups and members.
func TestSystemdSysusersAgrees(t *testing.T) {
	for _, tt := range sysusersCases {
		t.Run(tt.name, func(t *testing.T) {
			in := tree(t, mastersTree)
			root := t.TempDir()
			for _, n := range []string{"passwd", "group"} {
				b, err := in.ReadFile("usr/share/base-passwd/" + n + ".master")
				if err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(root, "etc", n), string(b))
			}
			put(t, filepath.Join(root, "usr/lib/sysusers.d/test.conf"), tt.conf+"\n")
			command(t, "systemd-sysusers", "--root="+root)
			if got, want := readAccounts(t, root), accountsOf(t, tt.conf).list(); got != want {
				t.Errorf("systemd-sysusers makes:\n%s\nwe make:\n%s", got, want)
			}
		})
	}
}

// readAccounts reads what systemd-sysusers wrote.
func readAccounts(t *testing.T, root string) string {
	t.Helper()
	db := &accountDB{}
	for _, line := range lines(t, filepath.Join(root, "etc/passwd")) {
		f := strings.Split(line, ":")
		if err := db.masterUser(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range lines(t, filepath.Join(root, "etc/group")) {
		f := strings.Split(line, ":")
		if err := db.masterGroup(f); err != nil {
			t.Fatal(err)
		}
		if f[3] != "" {
			db.groups[len(db.groups)-1].members = strings.Split(f[3], ",")
		}
	}
	return db.list()
}

// TestOpensslAgrees compares the hash links with those of openssl rehash.
func TestOpensslAgrees(t *testing.T) {
	got, _, err := runStep(t, stepCerts, tree(t, certTree(t)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var ours, theirs []string
	for f := range got.Under(caDir) {
		name := filepath.Base(f.Path)
		switch {
		case strings.HasSuffix(name, ".pem"):
			b, err := got.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, name), string(b))
		case f.Link != "":
			ours = append(ours, name+" "+f.Link)
		}
	}
	out, err := exec.Command("openssl", "rehash", dir).CombinedOutput() // warns of two.pem
	if err != nil && !strings.Contains(string(out), "exactly one certificate") {
		t.Fatalf("openssl rehash: %v\n%s", err, out)
	}
	walk(t, dir, func(p string, _ fs.DirEntry) {
		if target, err := os.Readlink(p); err == nil {
			theirs = append(theirs, filepath.Base(p)+" "+target)
		}
	})
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) || len(ours) == 0 {
		t.Errorf("links %q, openssl rehash makes %q", ours, theirs)
	}
	block, _ := pem.Decode([]byte(cert(t, acme, 1)))
	put(t, filepath.Join(dir, "one.pem"), string(pem.EncodeToMemory(block)))
	if h := strings.TrimSpace(command(t, "openssl", "x509", "-hash", "-noout", "-in", filepath.Join(dir, "one.pem"))); h != acmeHash {
		t.Errorf("openssl x509 -hash prints %s, want %s", h, acmeHash)
	}
}

// TestSystemdTmpfilesAgrees has systemd-tmpfiles make /var out of what the
// step wrote, and expects what was there.
func TestSystemdTmpfilesAgrees(t *testing.T) {
	uid := os.Getuid()
	was := tree(t, fmt.Sprintf(`
		etc/passwd = root:x:0:0::/:/bin/sh\n
		etc/group = root:x:0:\n
		usr/lib/tmpfiles.d/
		var/lib/x/ 2770 %[1]d:%[1]d
		var/lib/x/data 0640 %[1]d:%[1]d = content\n
		var/lib/we%%ird"name/ 0755 %[1]d:%[1]d
		var/spool/mail -> ../mail
		var/tmp/ 1777 %[1]d:%[1]d`, uid))
	got, _, err := runStep(t, stepVar, was)
	if err != nil {
		t.Fatal(err)
	}
	root := writeTree(t, got)
	put(t, filepath.Join(root, varConf), string(mustRead(t, got, varConf)))
	command(t, "systemd-tmpfiles", "--root="+root, "--create", filepath.Join(root, varConf))
	for f := range was.Under("var") {
		if f.Path == "var" || f.Path == "var/lib" || f.Path == "var/spool" {
			continue
		}
		st, err := os.Lstat(filepath.Join(root, f.Path))
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Link == "" && st.Mode() != f.Mode {
			t.Errorf("%s has mode %v, want %v", f.Path, st.Mode(), f.Mode)
		}
		if f.Mode.IsRegular() && string(mustRead(t, was, f.Path)) != strings.Join(lines(t, filepath.Join(root, f.Path)), "\n")+"\n" {
			t.Errorf("%s has other content", f.Path)
		}
	}
}

func mustRead(t *testing.T, tr *layers.Tree, p string) []byte {
	t.Helper()
	b, err := tr.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeTree(t *testing.T, tr *layers.Tree) string {
	t.Helper()
	root := t.TempDir()
	for f := range tr.Files() {
		p := filepath.Join(root, f.Path)
		var err error
		switch {
		case f.Mode.IsDir():
			err = os.MkdirAll(p, 0o755)
		case f.Link != "":
			err = os.Symlink(f.Link, p)
		default:
			put(t, p, string(mustRead(t, tr, f.Path)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func walk(t *testing.T, dir string, f func(string, fs.DirEntry)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			f(p, d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, p string) []string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func put(t *testing.T, p, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
