package lint_test

import "testing"

// own is a unit of the user's that a boot starts.
func own(name, text string) string {
	return "-- config/etc/systemd/system/" + name + " enabled --\n" + text + "\n[Install]\nWantedBy=multi-user.target\n"
}

func TestUnitCycle(t *testing.T) { run(t, cycles()) }

func cycles() []each {
	const at = "unit-cycle error /etc/systemd/system/"
	return []each{
		{"an order of two", own("a.service", "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/sh"), nil, ""},
		{"two units", own("a.service", "[Unit]\nBefore=docker.service\nAfter=kubelet.service\n[Service]\nExecStart=/bin/sh"), nil,
			at + "a.service (butane[0] a.bu): units wait for each other: a.service after kubelet.service: After=kubelet.service in /etc/systemd/system/a.service, " +
				"kubelet.service after cri-docker.service: After=cri-docker.service in /etc/systemd/system/kubelet.service, " +
				"cri-docker.service after docker.service: After=docker.service in /etc/systemd/system/cri-docker.service, " +
				"docker.service after a.service: Before=docker.service in /etc/systemd/system/a.service"},
		{"by default dependencies", own("a.service", "[Unit]\nBefore=sysinit.target\n[Service]\nExecStart=/bin/sh"), nil,
			at + "a.service (butane[0] a.bu): units wait for each other: a.service after sysinit.target: DefaultDependencies=yes, sysinit.target after a.service: Before=sysinit.target in"},
		{"without them", own("a.service", "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nExecStart=/bin/sh"), nil, ""},
		{"a target that starts what comes after it", own("a.service", "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/bin/sh"), nil, ""},
		{"by way of a target", "-- config/etc/systemd/system/a.target enabled --\n[Unit]\nWants=b.service\nBefore=docker.service\n[Install]\nWantedBy=multi-user.target\n" +
			"-- config/etc/systemd/system/b.service --\n[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/sh\n", nil,
			at + "b.service (butane[0] a.bu): units wait for each other: a.target after b.service: a.target starts it, b.service after docker.service: After=docker.service in "},
		{"a drop-in", "-- config/etc/systemd/system/docker.service.d/a.conf --\n[Unit]\nAfter=kubelet.service\n", nil, at + "docker.service.d/a.conf (butane[0] a.bu): "},
		{"a drop-in of the system that is overridden", "-- root/usr/lib/systemd/system/docker.service.d/a.conf --\n[Unit]\nAfter=kubelet.service\n" +
			"-- root/etc/systemd/system/docker.service.d/a.conf --\n-> /dev/null\n", nil, ""},
		{"a drop-in for all services", "-- config/etc/systemd/system/service.d/a.conf --\n[Unit]\nBefore=sysinit.target\n", nil, at + "service.d/a.conf (butane[0] a.bu): "},
		{"a socket", own("a.socket", "[Unit]\nAfter=a.service\n[Socket]\nListenStream=/run/a") + own("a.service", "[Service]\nExecStart=/bin/sh"), nil,
			at + "a.socket (butane[0] a.bu): units wait for each other: a.service after a.socket: it starts it, a.socket after a.service: After=a.service in"},
		{"a timer", own("a.timer", "[Unit]\nAfter=b.service\n[Timer]\nOnBootSec=1h\nUnit=b.service") + own("b.service", "[Service]\nExecStart=/bin/sh"), nil,
			at + "a.timer (butane[0] a.bu): "},
		{"a timer whose service starts later", own("a.timer", "[Unit]\nAfter=b.service\n[Timer]\nOnBootSec=1h\nUnit=b.service") +
			"-- config/etc/systemd/system/b.service --\n[Service]\nExecStart=/bin/sh\n", nil, ""},
		{"a mount", own("data.mount", "[Unit]\nAfter=docker.service\n[Mount]\nWhere=/data\nWhat=/dev/sdb") +
			"-- config/etc/systemd/system/docker.service.d/a.conf --\n[Unit]\nRequiresMountsFor=/data/x\n", nil, `
			` + at + `data.mount (butane[0] a.bu): units wait for each other: `},
		{"instances of a template", own("a@x.service", "[Unit]\nAfter=a@y.service\n[Service]\nExecStart=/bin/sh") +
			own("a@y.service", "[Unit]\nAfter=b@%i.service\n[Service]\nExecStart=/bin/sh") +
			"-- config/etc/systemd/system/b@.service --\n[Unit]\nAfter=a@x.service\n[Service]\nExecStart=/bin/sh\n" +
			own("c.service", "[Unit]\nWants=b@y.service\n[Service]\nExecStart=/bin/sh"), nil, at + "a@x.service (butane[0] a.bu): "},
		{"by an alias", "-- root/etc/systemd/system/box.service --\n-> /usr/lib/systemd/system/docker.service\n" +
			own("a.service", "[Unit]\nBefore=box.service\nAfter=docker.service\n[Service]\nExecStart=/bin/sh"), nil, at + "a.service (butane[0] a.bu): "},
		{"units that no boot starts", "-- config/etc/systemd/system/a.service --\n[Unit]\nAfter=b.service\n[Service]\nExecStart=/bin/sh\n" +
			"-- config/etc/systemd/system/b.service --\n[Unit]\nAfter=a.service\n[Service]\nExecStart=/bin/sh\n", nil, ""},
		{"a masked unit", own("a.service", "[Unit]\nBefore=docker.service\nAfter=kubelet.service\n[Service]\nExecStart=/bin/sh") +
			"-- config/etc/systemd/system/a.service masked --\n", nil, ""},
		{"Debian's own", "-- root/usr/lib/systemd/system/sockets.target --\n[Unit]\nAfter=multi-user.target\n", nil,
			"unit-cycle warning /usr/lib/systemd/system/basic.target: units wait for each other: "},
	}
}

func TestUnitMissing(t *testing.T) {
	run(t, []each{
		{"required", own("a.service", "[Unit]\nRequires=none.service dev-sda.device -.mount\nBindsTo=gone.service\nWants=none.target\n[Service]\nExecStart=/bin/sh"), nil, `
			unit-missing error /etc/systemd/system/a.service (butane[0] a.bu): BindsTo=gone.service: there is no such unit
			unit-missing error /etc/systemd/system/a.service (butane[0] a.bu): Requires=none.service: there is no such unit`},
		{"enabled", "-- config/etc/systemd/system/none.service enabled --\n", nil, "unit-missing warning /etc/systemd/system/none.service (butane[0] a.bu): is enabled, and there is no such unit"},
		{"disabled", "-- config/etc/systemd/system/none.service disabled --\n", nil, ""},
	})
}

func TestUnitProgram(t *testing.T) {
	const at = "unit-program error /etc/systemd/system/a.service (butane[0] a.bu): "
	unit := func(lines string) string { return own("a.service", "[Service]\n"+lines) }
	run(t, []each{
		{"there", unit("ExecStartPre=sh -c 'none'\nExecStart=@/bin/sh sh"), nil, ""},
		{"absent", unit("ExecStart=/opt/none --x\nExecStartPost=!!/usr/bin/none"), nil, at + "ExecStart: /opt/none is not in the image\n" + at + "ExecStartPost: /usr/bin/none is not in the image"},
		{"absent by name", unit("ExecStart=none"), nil, at + "ExecStart: none is not in the image"},
		{"may fail", unit("ExecStart=-/opt/none"), nil, ""},
		{"forgotten", unit("ExecStart=/opt/none\nExecStart=\nExecStart=/bin/sh"), nil, ""},
		{"a comment within", unit("ExecStart=/bin/sh \\\n# ExecStart=/opt/none\n ; more\n  -c x"), nil, ""},
		{"quoted", unit(`ExecStart="/bin/sh" -c "a b"`), nil, ""},
		{"made at run time", unit("ExecStart=/run/a/b\nExecStartPre=/var/lib/b\nExecStartPost=${SHELL}"), nil, ""},
		{"a file of the configuration", unit("ExecStart=/etc/a/b") + "-- config/etc/a/b 0755 --\n#!/bin/sh\n", nil, ""},
		{"that cannot be executed", unit("ExecStart=/etc/a/b") + "-- config/etc/a/b 0644 --\n#!/bin/sh\n", nil, at + "ExecStart: /etc/a/b cannot be executed: it has mode -rw-r--r--"},
		{"without a boot that starts it", "-- config/etc/systemd/system/a.service --\n[Service]\nExecStart=/opt/none\n", nil, at + "ExecStart: /opt/none"},
		{"called by a timer", own("a.timer", "[Timer]\nOnBootSec=1h") + "-- root/usr/lib/systemd/system/a.service --\n[Service]\nExecStart=/opt/none\n", nil,
			"unit-program warning /usr/lib/systemd/system/a.service: ExecStart: /opt/none"},
		{"Debian's own", "-- root/usr/lib/systemd/system/multi-user.target.wants/x.service --\n-> ../x.service\n" +
			"-- root/usr/lib/systemd/system/x.service --\n[Service]\nExecStart=/opt/none\n", nil, "unit-program warning /usr/lib/systemd/system/x.service: ExecStart: /opt/none"},
	})
}
