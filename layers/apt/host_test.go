package apt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kscratch/kscratch/layers/apt"
)

func TestHostMirrorConfig(t *testing.T) {
	for _, c := range []struct{ name, files, want string }{
		{"deb822", `
-- etc/apt/sources.list.d/debian.sources --
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`, "http://mirror.example/debian http://mirror.example/debian-security"},
		{"one line each", `
-- etc/apt/sources.list --
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian trixie main # why
deb	http://security.example/ trixie-security main
`, "https://mirror.example/debian http://security.example"},
		{"old security suites", `
-- etc/apt/sources.list --
deb http://mirror.example/debian buster main
deb http://mirror.example/debian-security buster/updates main
`, "http://mirror.example/debian http://mirror.example/debian-security"},
		{"vendors are passed over", `
-- etc/apt/sources.list.d/a-vendor.sources --
Types: deb
URIs: https://vendor.example/node
Suites: nodistro
Components: main
-- etc/apt/sources.list.d/b-vendor.list --
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb https://vendor.example/linux/debian bookworm stable
deb https://vendor.example/apt vendor-bookworm main
-- etc/apt/sources.list.d/c-inline.sources --
Types: deb
URIs: https://vendor.example/inline
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz
-- etc/apt/sources.list.d/debian.list --
deb http://mirror.example/debian stable main
deb http://mirror.example/security stable-security main
`, "http://mirror.example/debian http://mirror.example/security"},
		{"the first counts", `
-- etc/apt/sources.list --
deb http://one.example/debian bookworm-backports main
deb http://one.example/security bookworm-security main
-- etc/apt/sources.list.d/x.list --
deb http://two.example/debian bookworm main
deb http://two.example/security bookworm-security main
`, "http://one.example/debian http://one.example/security"},
		{"switched off", `
-- etc/apt/sources.list.d/debian.sources --
Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
-- etc/apt/sources.list.d/x.list.save --
deb http://mirror.example/debian bookworm main
`, "error: finding the Debian mirror: the apt configuration names no Debian archive; looked at /etc/apt/sources.list (missing), /etc/apt/sources.list.d/debian.sources (0 sources, none of them new and Debian's); set base.mirror in the spec or KSCRATCH_MIRROR"},
		{"lists of mirrors, as in cloud images", `
-- etc/apt/sources.list.d/debian.sources --
Types: deb
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: trixie
Components: main

Types: deb
URIs: mirror+file:///etc/apt/mirrors/debian-security.list
Suites: trixie-security
Components: main
-- etc/apt/mirrors/debian.list --
https://mirror.example/debian
https://other.example/debian
-- etc/apt/mirrors/debian-security.list --
https://mirror.example/debian-security
`, "https://mirror.example/debian https://mirror.example/debian-security"},
		{"files", `
-- etc/apt/sources.list --
deb file:/srv/debian trixie main
deb file:///srv/debian-security trixie-security main
`, "file:///srv/debian file:///srv/debian-security"},
		{"addresses of another kind", `
-- etc/apt/sources.list --
deb cdrom:[Debian]/ trixie main
deb tor+http://x.onion/debian trixie main
deb http://mirror.example/debian trixie main
deb http://mirror.example/debian-security trixie-security main
`, "http://mirror.example/debian http://mirror.example/debian-security"},
		{"no security archive", `
-- etc/apt/sources.list --
deb http://mirror.example/debian trixie main
`, "error: finding the Debian mirror: the apt configuration names no Debian security archive; looked at /etc/apt/sources.list; set base.mirror in the spec or KSCRATCH_MIRROR"},
		{"nothing", "", "error: finding the Debian mirror: the apt configuration names no Debian archive; looked at /etc/apt/sources.list (missing); set base.mirror in the spec or KSCRATCH_MIRROR"},
		{"broken file", `
-- etc/apt/sources.list.d/x.sources --
Types deb
-- etc/apt/sources.list --
deb
deb x
deb [ x
deb http://mirror.example/debian trixie main
deb http://mirror.example/debian-security trixie-security main
`, "http://mirror.example/debian http://mirror.example/debian-security"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range txtar.Parse([]byte(c.files)).Files {
				p := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := apt.HostMirror(dir, "base.mirror in the spec", "KSCRATCH_MIRROR")
			got := strings.TrimSpace(m.Archive + " " + m.Security)
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
