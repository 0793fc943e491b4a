package derive

import "strings"

// stepTest is a step, a tree, and the changes it makes: "+" added, "~"
// replaced, "-" removed.
type stepTest struct {
	step             Step
	name, tree, want string
}

var stepTests = []stepTest{
	{stepUsrmerge, "links are there", "bin -> usr/bin\nusr/bin/\nsbin -> /usr/sbin\nusr/sbin/", ""},
	{stepUsrmerge, "links are missing", "usr/bin/\nusr/lib/\nusr/lib64/\nlib -> usr/lib", `
		+ bin -> usr/bin
		+ lib64 -> usr/lib64`},

	{stepAlternatives, "best provider", "usr/bin/mawk =\nusr/bin/gawk =\nusr/bin/bash =\nusr/bin/dash =", `
		+ usr/bin/awk -> gawk
		+ usr/bin/nawk -> gawk
		+ usr/bin/sh -> dash`},
	{stepAlternatives, "what is there stays", "usr/bin/sh -> bash\nusr/bin/bash =\nusr/bin/dash =\nusr/bin/mawk =\nusr/bin/awk =", `
		+ usr/bin/nawk -> mawk`},
	{stepAlternatives, "iptables", `
		usr/sbin/iptables-legacy =
		usr/sbin/iptables-legacy-save =
		usr/sbin/iptables-nft -> xtables-nft-multi
		usr/sbin/iptables-nft-save -> xtables-nft-multi
		usr/sbin/iptables-nft-restore -> xtables-nft-multi
		usr/sbin/ip6tables-legacy =
		usr/sbin/ebtables-nft =`, `
		+ usr/sbin/ebtables -> ebtables-nft
		+ usr/sbin/ip6tables -> ip6tables-legacy
		+ usr/sbin/iptables -> iptables-nft
		+ usr/sbin/iptables-restore -> iptables-nft-restore
		+ usr/sbin/iptables-save -> iptables-nft-save`},

	{stepAccounts, "no base-passwd", "usr/sbin/dockerd =\nusr/lib/sysusers.d/a.conf = u x -", ""},
	{stepAccounts, "masters, sysusers and docker", `
		usr/share/base-passwd/passwd.master = root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n
		usr/share/base-passwd/group.master = root:*:0:\nshadow:*:42:\nnogroup:*:65534:\n
		usr/sbin/dockerd =
		usr/lib/sysusers.d/b.conf = u! systemd-network - "systemd Network"\n# comment\ng kvm -
		usr/lib/sysusers.d/a.conf = u own 600:root - /own /bin/sh\nm own kvm\ng root 7`, `
		+ etc/group 0644 0:0 = root:x:0:\nshadow:x:42:\nnogroup:x:65534:\nkvm:x:991:own\ndocker:x:989:\nsystemd-network:x:998:\n
		+ etc/gshadow 0640 0:42 = root:*::\nshadow:*::\nnogroup:*::\nkvm:*::own\ndocker:*::\nsystemd-network:*::\n
		+ etc/passwd 0644 0:0 = root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nown:x:600:0::/own:/bin/sh\nsystemd-network:x:998:998:systemd Network:/:/usr/sbin/nologin\n
		+ etc/shadow 0640 0:42 = root:*:19675:0:99999:7:::\nnobody:*:19675:0:99999:7:::\nown:!*:19675::::::\nsystemd-network:!*:19675:::::1:\n
		+ etc/subgid 0644 0:0 = 
		+ etc/subuid 0644 0:0 = `},

	{stepEtc, "templates and links", `
		etc/hostname = debian\n
		etc/hosts = mine\n
		etc/default/
		usr/share/libc-bin/nsswitch.conf 0644 = passwd: files\n
		usr/share/base-files/dot.bashrc = rc\n
		usr/lib/systemd/systemd-resolved 0755 = x
		usr/share/zoneinfo/Etc/UTC = z
		etc/dpkg/origins/debian = d`, `
		+ etc/default/locale -> ../locale.conf
		+ etc/dpkg/origins/default -> debian
		+ etc/environment 0644 0:0 = 
		- etc/hostname
		+ etc/locale.conf 0644 0:0 = LANG=C.UTF-8\n
		+ etc/localtime -> /usr/share/zoneinfo/Etc/UTC
		+ etc/machine-id 0444 0:0 = 
		+ etc/modules 0644 0:0 = # Modules to load at boot, one name a line.\n
		+ etc/mtab -> ../proc/self/mounts
		+ etc/networks 0644 0:0 = default		0.0.0.0\nloopback	127.0.0.0\nlink-local	169.254.0.0\n
		+ etc/nsswitch.conf 0644 0:0 = passwd: files\n
		+ etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf
		+ etc/security/opasswd 0600 0:0 = 
		+ root/.bashrc 0644 0:0 = rc\n`},

	{stepPermissions, "by name of group", `
		etc/passwd = root:x:0:0::/:/bin/sh\n
		etc/group = root:x:0:\nmessagebus:x:995:\n
		etc/ssl/private/ 0755
		usr/lib/dbus-1.0/dbus-daemon-launch-helper 0755 = elf`, `
		~ etc/ssl/private/ 0700 0:0
		~ usr/lib/dbus-1.0/dbus-daemon-launch-helper 4754 0:995 = elf`},

	{stepOSRelease, "names", `
		usr/lib/os-release = PRETTY_NAME="Debian 13"\nIMAGE_ID=old\nID=debian
		etc/issue = Debian`, `
		~ etc/issue 0644 0:0 = kscratch-master 20260701.1, Debian 13 \n \l\n\n
		+ etc/issue.net 0644 0:0 = kscratch-master 20260701.1, Debian 13\n
		~ usr/lib/os-release 0644 0:0 = PRETTY_NAME="Debian 13"\nID=debian\nIMAGE_ID=kscratch-master\nIMAGE_VERSION=20260701.1\n`},

	{stepDrop, "documentation but not licences", `
		usr/share/doc/a/copyright = (c)
		usr/share/doc/a/changelog.gz = c
		usr/share/doc/a/examples/x = x
		usr/share/doc/b -> a
		usr/share/doc/c/README = r
		usr/share/common-licenses/GPL = g
		usr/share/man/man1/a = m
		boot/vmlinuz-6 = k
		boot/config-6 = CONFIG_X=y
		etc/init.d/a = i
		var/lib/dpkg/status = s`, `
		- boot/config-6
		- boot/vmlinuz-6
		- etc/init.d
		+ usr/lib/modules/6/config 0644 0:0 = CONFIG_X=y
		- usr/share/doc/a/changelog.gz
		- usr/share/doc/a/examples
		- usr/share/doc/c
		- usr/share/man
		- var/lib/dpkg`},

	{stepPAM, "defaults", pamTree, `
		+ etc/pam.d/common-auth 0644 0:0 = ` + pamAuth + `
		+ etc/pam.d/common-session 0644 0:0 = ` + pamSession + `
		+ etc/pam.d/common-session-noninteractive 0644 0:0 = ` + pamNonInteractive},

	{stepModules, "no kernel", "usr/lib/modules/", ""},
	{stepModules, "kernel without modules", "usr/lib/modules/6.1/modules.order =", ""},

	{stepHardware, "database", `
		usr/lib/udev/hwdb.d/20-a.hwdb = x*\n A=b\n
		etc/udev/hwdb.d/`, `
		+ usr/lib/udev/hwdb.bin 0444 0:0 = …
		- usr/lib/udev/hwdb.d`},

	{stepLdso, "listed directories without libraries", `
		etc/ld.so.conf = include /etc/ld.so.conf.d/*.conf\n
		etc/ld.so.conf.d/a.conf = # Multiarch\n/usr/local/lib\n/lib/x86_64-linux-gnu\n/none\n
		usr/lib/x86_64-linux-gnu/libc.so.6 =
		lib -> usr/lib
		usr/local/lib/
		usr/lib/systemd/system/ldconfig.service =
		etc/ld.so.cache = c`, `
		- etc/ld.so.cache
		+ etc/systemd/system/ldconfig.service -> /dev/null`},

	{stepVar, "lines and factory", `
		etc/group = root:x:0:\nsystemd-journal:x:999:\n
		usr/lib/tmpfiles.d/var.conf = d /var/log 0755 - - -\nL$ /var/run - - - - ../run\n
		var/log/
		var/run/
		var/lock/ 1777
		var/lib/x/ 2770 33:33
		var/lib/x/data 0600 33:0 = d
		var/spool/mail -> ../mail`, `
		+ usr/lib/tmpfiles.d/kscratch-var.conf 0644 0:0 = # What Debian's packages keep below /var, made on the empty state partition.\nd /var/lib 0755 0 0 - -\nd /var/lib/x 2770 33 33 - -\nC /var/lib/x/data 0600 33 0 - /usr/share/factory/var/lib/x/data\nL /var/lock - - - - ../run/lock\nd /var/spool 0755 0 0 - -\nL /var/spool/mail - - - - ../mail\nd /var/log/journal 2755 root systemd-journal - -\nd /var/opt 0755 root root - -\n
		+ usr/share/factory/var/lib/x/data 0600 33:0 = d
		- var/lib
		- var/lock
		- var/log
		- var/run
		- var/spool`},

	{stepDpkg, "list", "var/", `
		+ usr/lib/kscratch/dpkg/status 0644 0:0 = Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\nPackage: udev\nStatus: install ok installed\nArchitecture: amd64\nSource: systemd\nVersion: 257.13-1\n\n
		+ usr/lib/tmpfiles.d/kscratch-dpkg.conf 0644 0:0 = L+ /var/lib/dpkg - - - - /usr/lib/kscratch/dpkg\n
		+ var/lib/dpkg -> /usr/lib/kscratch/dpkg`},

	{stepUpdated, "stamp", "usr/lib/systemd/systemd-update-done 0755 =", `
		+ etc/.updated 0644 0:0 = # The state of /usr that /etc was made for, see systemd-update-done(8).\nTIMESTAMP_NSEC=1700000000000000000\n`},

	{stepPresets, "no systemd", "usr/lib/", ""},
	{stepPresets, "kscratch's units", `
		usr/lib/systemd/system/default.target -> graphical.target
		usr/lib/systemd/system/docker.service = [Unit]\nWantedBy=not-here\n[Install]\nWantedBy=multi-user.target\n
		usr/lib/systemd/system/docker.socket = [Install]\nWantedBy=sockets.target
		usr/lib/systemd/system/fstrim.timer = [Install]\nWantedBy=timers.target
		usr/lib/systemd/system/systemd-resolved.service = [Install]\nWantedBy=sysinit.target\nAlias=dbus-org.freedesktop.resolve1.service
		usr/lib/systemd/system-preset/90-systemd.preset = enable fstrim.timer
		etc/systemd/system/timers.target.wants/fstrim.timer -> /usr/lib/systemd/system/fstrim.timer`, `
		+ etc/systemd/system-generators/systemd-getty-generator -> /dev/null
		+ etc/systemd/system/dbus-org.freedesktop.resolve1.service -> /usr/lib/systemd/system/systemd-resolved.service
		+ etc/systemd/system/multi-user.target.wants/docker.service -> /usr/lib/systemd/system/docker.service
		+ etc/systemd/system/sysinit.target.wants/systemd-resolved.service -> /usr/lib/systemd/system/systemd-resolved.service
		+ etc/systemd/system/systemd-firstboot.service -> /dev/null
		- etc/systemd/system/timers.target.wants/fstrim.timer
		+ usr/lib/systemd/logind.conf.d/10-kscratch.conf 0644 0:0 = [Login]\nNAutoVTs=0\nReserveVT=0\n
		+ usr/lib/systemd/system-preset/30-kscratch.preset 0644 0:0 = ` + strings.ReplaceAll(preset, "\n", `\n`) + `
		~ usr/lib/systemd/system/default.target -> multi-user.target
		+ usr/lib/systemd/system/systemd-networkd-wait-online.service.d/10-kscratch.conf 0644 0:0 = [Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any\n`},
}

// The marks of a template, and what pam-auth-update of Debian 13 makes of it.
const (
	pamMarks = `# here are the per-package modules (the "Primary" block)\n$x\n# here's the fallback if no module succeeds\nT\n` +
		`# and here are more per-package modules (the "Additional" block)\n$y\n# end of pam-auth-update config\n`

	pamTree = `
		usr/share/pam/common-auth = ` + pamMarks + `
		usr/share/pam/common-session = ` + pamMarks + `
		usr/share/pam/common-session-noninteractive = ` + pamMarks + `
		usr/share/pam/common-auth.md5sums = x
		usr/share/pam-configs/unix = Name: Unix\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_unix.so nullok  try_first_pass\nAuth-Initial:\n\t[success=end default=ignore]\tpam_unix.so nullok\nSession-Type: Additional\nSession:\n\trequired\tpam_unix.so\n
		usr/share/pam-configs/ldap = Name: LDAP\nDefault: yes\nPriority: 128\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_ldap.so use_first_pass\nAuth-Initial:\n\t[success=end default=ignore]\tpam_ldap.so\n
		usr/share/pam-configs/systemd = Name: systemd\nDefault: yes\nPriority: 0\nSession-Interactive-Only: yes\nSession-Type: Additional\nSession:\n\toptional\tpam_systemd.so\n
		usr/share/pam-configs/off = Name: off\nDefault: no\nPriority: 900\nAuth-Type: Primary\nAuth:\n\trequired pam_off.so\n`

	pamBegin  = `# here are the per-package modules (the "Primary" block)\n`
	pamMiddle = `# here's the fallback if no module succeeds\nT\n# and here are more per-package modules (the "Additional" block)\n`

	pamAuth = pamBegin + `auth	[success=2 default=ignore]	pam_unix.so nullok\nauth	[success=1 default=ignore]	pam_ldap.so use_first_pass\n` +
		pamMiddle + `# end of pam-auth-update config\n`
	pamSession = pamBegin + `session	[default=1]			pam_permit.so\n` + pamMiddle +
		`session	required	pam_unix.so \nsession	optional	pam_systemd.so \n# end of pam-auth-update config\n`
	pamNonInteractive = pamBegin + `session	[default=1]			pam_permit.so\n` + pamMiddle + `session	required	pam_unix.so \n# end of pam-auth-update config\n`
)

var refusals = []stepTest{
	{stepUsrmerge, "a real /bin", "bin/ls =", "/bin of deb:test: want a link to usr/bin"},
	{stepAccounts, "torn master", "usr/share/base-passwd/passwd.master = root:x\nusr/share/base-passwd/group.master =", "passwd.master:1: 2 fields, want 7"},
	{stepAccounts, "sysusers", accountsTree + "usr/lib/sysusers.d/a.conf = q x -", "/usr/lib/sysusers.d/a.conf:1: type \"q\" is not known"},
	{stepAccounts, "sysusers specifier", accountsTree + "usr/lib/sysusers.d/a.conf = u %m -", "specifier"},
	{stepAccounts, "sysusers range", accountsTree + "usr/lib/sysusers.d/a.conf = r - 500-900", "ranges"},
	{stepAccounts, "unknown group", accountsTree + "usr/lib/sysusers.d/a.conf = u x -:none", `adding u x: group "none" is not there`},
	{stepPermissions, "no such group", "etc/passwd = root:x:0:0::/:\netc/group = root:x:0:\nusr/lib/dbus-1.0/dbus-daemon-launch-helper =", `"messagebus": not in /etc/group`},
	{stepPAM, "profile", "usr/share/pam-configs/x = no field", "/usr/share/pam-configs/x: line 1"},
	{stepPAM, "conflict", "usr/share/pam-configs/x = Default: yes\\nConflicts: y\nusr/share/pam-configs/y = Default: yes", "PAM profiles x and y conflict"},
	{stepCerts, "no certificate", "usr/share/ca-certificates/x.crt = none", "/usr/share/ca-certificates/x.crt: no PEM certificate"},
	{stepModules, "torn module", "usr/lib/modules/6.1/kernel/x.ko = elf", "kernel 6.1: reading module kernel/x.ko"},
	{stepHardware, "torn database", "usr/lib/udev/hwdb.d/a.hwdb = x", "/usr/lib/udev/hwdb.d/a.hwdb:1"},
	{stepLdso, "library elsewhere", "etc/ld.so.conf.d/a.conf = /opt/lib\nopt/lib/libx.so.1 =", "/opt/lib/libx.so.1 is found only with an ld.so.cache"},
	{stepVar, "file in /run", "var/run/x =", "/run is empty at boot"},
	{stepPresets, "preset", "usr/lib/systemd/system/a.service =\nusr/lib/systemd/system-preset/1.preset = enabel x", "/usr/lib/systemd/system-preset/1.preset: line 1"},
	{stepPresets, "specifier", "usr/lib/systemd/system/docker.service = [Install]\\nAlias=%H.service", `enabling docker.service: specifier %H`},
}

const accountsTree = `
	usr/share/base-passwd/passwd.master = root:*:0:0:root:/root:/bin/bash
	usr/share/base-passwd/group.master = root:*:0:
	`

// wholeTree has something for every step.
const wholeTree = pamTree + accountsTree + `
	bin -> usr/bin
	usr/bin/dash 0755 =
	usr/sbin/iptables-nft 0755 =
	usr/lib/os-release = ID=debian\n
	usr/lib/sysusers.d/dbus.conf = u messagebus -\n
	usr/lib/dbus-1.0/dbus-daemon-launch-helper 0755 =
	usr/lib/systemd/system/docker.service = [Install]\nWantedBy=multi-user.target\n
	usr/lib/systemd/systemd-update-done 0755 =
	usr/lib/tmpfiles.d/
	usr/lib/udev/hwdb.d/20-a.hwdb = x*\n A=b\n
	usr/share/doc/a/README = r
	var/lib/x/data = d
	`
