package ignition

// base is what every node needs that is nobody else's subject.
func base(n Node) (part, error) {
	dirs := []string{
		"d " + n.Kubelet.RootDir + " 0750 root root -",
		"d " + n.Docker.DataRoot + " 0710 root root -",
	}
	if n.Role == Master {
		dirs = append(dirs, "d "+n.Etcd.DataDir+" 0700 root root -")
	}
	return part{
		dirs: []string{manifestDir}, // the kubelet complains when it is missing
		files: []file{
			text("/etc/systemd/journald.conf.d/10-kscratch.conf",
				"[Journal]", "Storage=persistent", "SystemMaxUse=512M", "RuntimeMaxUse=64M"),
			// Debian's Ignition reads it when it has written its files, and fails without.
			text("/etc/selinux/config", "SELINUX=disabled", "SELINUXTYPE=none"),
			text("/etc/tmpfiles.d/kscratch.conf", dirs...),
			// /etc lies on /var, so neither can be unmounted while there are
			// services: that is for systemd-shutdown, when all of them are gone.
			text("/etc/systemd/system/var.mount.d/10-kscratch.conf", "[Unit]", "DefaultDependencies=no"),
			text("/etc/systemd/system/etc.mount.d/10-kscratch.conf", "[Unit]", "DefaultDependencies=no"),
		},
		units: []unit{
			{name: "systemd-timesyncd.service", enabled: true},
			// No login, on any console, unless a snippet of the user's says `mask: false`.
			{name: "autovt@.service", mask: true},
			{name: "getty@.service", mask: true},
			{name: "serial-getty@.service", mask: true},
		},
	}, nil
}
