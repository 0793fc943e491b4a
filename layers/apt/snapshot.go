package apt

import (
	"strings"
	"time"
)

// Snapshot returns the mirror that an archive of Debian snapshots has of a
// moment. The archive is laid out as Debian's own service is: below its base
// URL are archive/debian/TIMESTAMP/ and archive/debian-security/TIMESTAMP/,
// each a mirror as it was then, TIMESTAMP being UTC as 20060102T150405Z. The
// service answers for the newest snapshot that is not after the moment asked
// for, by a redirect.
//
// Its other layout, file/SHA1, is not used: the indexes of Debian 13 have no
// SHA-1 of a package.
func Snapshot(base string, at time.Time) Mirror {
	root := strings.TrimRight(base, "/") + "/archive/"
	stamp := "/" + at.UTC().Format("20060102T150405Z")
	return Mirror{Archive: root + "debian" + stamp, Security: root + "debian-security" + stamp}
}
