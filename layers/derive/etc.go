package derive

import (
	"bytes"
	"context"
	"path"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepEtc = Step{
	Name: "etc",
	Doc:  "the files of /etc and /root that postinsts write or copy from a template: hosts, resolv.conf, machine-id, nsswitch.conf, shells, …",
	Run:  etcFiles,
}

// hosts is netbase's; cri-dockerd makes no container without it.
const hosts = `127.0.0.1	localhost
::1		localhost ip6-localhost ip6-loopback
ff02::1		ip6-allnodes
ff02::2		ip6-allrouters
`

const networks = `default		0.0.0.0
loopback	127.0.0.0
link-local	169.254.0.0
`

// nsswitch is what libc-bin's template says with the modules that glibc
// itself contains; used when the template is not in the tree.
const nsswitch = `passwd:         files
group:          files
shadow:         files
gshadow:        files

hosts:          files dns
networks:       files

protocols:      db files
services:       db files
ethers:         db files
rpc:            db files

netgroup:       nis
`

// templates are copied, with their permissions, unless the target is there.
var templates = []struct{ from, to string }{
	{"usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"},
	{"usr/share/base-files/profile", "etc/profile"},
	{"usr/share/base-files/dot.profile", "root/.profile"},
	{"usr/share/base-files/dot.bashrc", "root/.bashrc"},
}

func etcFiles(_ context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, t := range templates {
		if f, ok := in.Tree.Lookup(t.from); ok {
			f.Path, f.Owner = t.to, ""
			files = append(files, f)
		}
	}
	files = append(files,
		file("etc/hosts", 0o644, hosts),
		file("etc/networks", 0o644, networks),
		file("etc/nsswitch.conf", 0o644, nsswitch),
		file("etc/environment", 0o644, ""),
		file("etc/locale.conf", 0o644, "LANG=C.UTF-8\n"),
		file("etc/modules", 0o644, "# Modules to load at boot, one name a line.\n"),
		file("etc/security/opasswd", 0o600, ""),
		link("etc/default/locale", "../locale.conf"),
		link("etc/mtab", "../proc/self/mounts"),
	)
	files = firstOf(in.unlessThere(files...))
	files = append(files, file("etc/machine-id", 0o444, "")) // empty: the initrd fills it in
	files = append(files, in.etcLinks()...)
	shells, err := in.shells()
	return Result{Files: append(files, shells...), Drop: []string{"etc/hostname"}}, err
}

// firstOf keeps the first of several files for one path.
func firstOf(files []layers.File) []layers.File {
	seen := map[string]bool{}
	var out []layers.File
	for _, f := range files {
		if !seen[f.Path] {
			out = append(out, f)
		}
		seen[f.Path] = true
	}
	return out
}

// etcLinks are links that make sense only with their target's package.
func (in Input) etcLinks() []layers.File {
	var out []layers.File
	for _, l := range []struct{ ifThere, path, target string }{
		{"usr/lib/systemd/systemd-resolved", "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"},
		{"usr/share/zoneinfo/Etc/UTC", "etc/localtime", "/usr/share/zoneinfo/Etc/UTC"},
		{"etc/dpkg/origins/debian", "etc/dpkg/origins/default", "debian"},
		{"etc/ssl", "usr/lib/ssl", "/etc/ssl"},
	} {
		if in.has(l.ifThere) {
			out = append(out, in.unlessThere(link(l.path, l.target))...)
		}
	}
	return out
}

// shells computes /etc/shells as update-shells does: debianutils' template,
// then the shells of other packages, each also under the name that it has
// with the links of merged /usr resolved.
func (in Input) shells() ([]layers.File, error) {
	const template = "usr/share/debianutils/shells"
	if !in.has(template) {
		return nil, nil
	}
	snippets, err := in.Tree.Glob(template + ".d/*")
	if err != nil {
		return nil, err
	}
	out, err := in.Tree.ReadFile(template)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, s := range shellLines(out) {
		have[s] = true
	}
	add := func(b []byte) {
		for _, s := range shellLines(b) {
			for _, name := range []string{s, in.realShell(s)} {
				if !have[name] {
					out = append(out, name+"\n"...)
				}
				have[name] = true
			}
		}
	}
	add(bytes.Clone(out))
	for _, f := range snippets {
		b, err := f.Read()
		if err != nil {
			return nil, err
		}
		add(b)
	}
	return []layers.File{file("etc/shells", 0o644, string(out))}, nil
}

func (in Input) realShell(s string) string {
	d, err := in.Tree.Resolve(strings.TrimPrefix(path.Dir(s), "/"))
	if err != nil {
		return s
	}
	return "/" + path.Join(d.Path, path.Base(s))
}

// shellLines returns the lines that are neither empty nor comments.
func shellLines(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if s, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "#"); s != "" {
			out = append(out, s)
		}
	}
	return out
}
