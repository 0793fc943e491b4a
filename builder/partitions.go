package builder

import "fmt"

// The disk, after the first boot:
//
//	ESP  verity-A  root-A  verity-B  root-B  state
//
// An image has the first three. Its root is no larger than it must be, so that
// no image carries, and nobody copies or hashes, the empty part of a slot;
// systemd-repart lets it grow to the size of a slot and adds the other
// partitions, from definitions that match what is there by type and order.

const mib = 1 << 20

// veritySize returns the size of a verity partition in MiB for a root slot of
// so many MiB: the hash tree needs 1/127 of the data, and a superblock.
func veritySize(root int) int { return root/127 + 8 }

// stateLabel is the partition label of the state partition.
const stateLabel = "kscratch-state"

// repart returns the definitions for systemd-repart by file name, repart.d(5).
func repart(d Disk) map[string]string {
	part := func(kind string, size int, more string) string {
		return fmt.Sprintf("[Partition]\nType=%s\nSizeMinBytes=%dM\nSizeMaxBytes=%dM\n%s", kind, size, size, more)
	}
	// An empty slot has the label _empty, as systemd-sysupdate wants it.
	const empty = "Label=_empty\n"
	return map[string]string{
		"10-esp.conf":      part("esp", d.ESP, ""),
		"20-verity-a.conf": part("root-verity", veritySize(d.Root), ""),
		"21-root-a.conf":   part("root", d.Root, ""),
		"30-verity-b.conf": part("root-verity", veritySize(d.Root), empty),
		"31-root-b.conf":   part("root", d.Root, empty),
		"40-state.conf":    "[Partition]\nType=var\nLabel=" + stateLabel + "\nFormat=ext4\nSizeMinBytes=1G\n",
	}
}
