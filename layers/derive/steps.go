package derive

// What the maintainer scripts of a node's packages do and no step repeats, and
// why: update-initramfs, kernel-install and bootctl (kscratch makes the initrd,
// the UKI and the ESP itself); starting services; debconf; menus, info and
// manual pages; libwrap's hosts.allow and hosts.deny (absent means the same);
// AppArmor's local overrides (no parser is installed); journalctl
// --update-catalog (runs on the node); machine ids and ld.so.cache (see the
// steps etc and ldso); anything for upgrades from older packages.

// Steps is everything that is derived, in order. The order matters where a
// step reads what another wrote:
//
//   - usrmerge first: all later steps write below /usr;
//   - drop early, so that nothing is derived from what goes;
//   - accounts before permissions and var, which need the ids of groups;
//   - etc after usrmerge, because shells are listed under both names;
//   - presets after every step that may bring a unit;
//   - ldso after presets, which clears /etc/systemd/system of other links;
//   - var after every step that may bring something below /var, but before
//     dpkg, whose link there is for those who read the image and not the node;
//   - updated last: it must be as new as everything else.
var Steps = []Step{
	stepUsrmerge,
	stepDrop,
	stepAlternatives,
	stepAccounts,
	stepEtc,
	stepDirs,
	stepPermissions,
	stepPAM,
	stepCerts,
	stepOSRelease,
	stepModules,
	stepHardware,
	stepPresets,
	stepLdso,
	stepVar,
	stepDpkg,
	stepUpdated,
}
