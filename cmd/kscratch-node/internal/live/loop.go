package live

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sector is the block size in bytes of attached devices: that of the partition
// table, whatever a CD has.
const sector = 512

// attempts bounds how often another one may take a free loop device first.
const attempts = 20

// Attach shows a file or a block device to the kernel as a loop device with
// partitions, loop(4), and returns the device's path. It stays when the process
// ends, also if the file is removed.
func Attach(source string, writable bool) (string, error) {
	dev, err := attach(source, writable)
	if err != nil {
		return "", fmt.Errorf("attaching %s to a loop device: %w", source, err)
	}
	return dev, nil
}

func attach(source string, writable bool) (_ string, err error) {
	how := os.O_RDONLY
	c := unix.LoopConfig{Size: sector}
	c.Info.Flags = unix.LO_FLAGS_PARTSCAN
	if writable {
		how = os.O_RDWR
	} else {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	f, err := os.OpenFile(source, how, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	c.Fd = uint32(f.Fd())
	copy(c.Info.File_name[:len(c.Info.File_name)-1], source)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for range attempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", err
		}
		dev := fmt.Sprintf("/dev/loop%d", n)
		if err = configure(dev, how, &c); !errors.Is(err, unix.EBUSY) {
			return dev, err
		}
	}
	return "", errors.New("all loop devices are taken by others as soon as they are free")
}

func configure(dev string, how int, c *unix.LoopConfig) error {
	f, err := os.OpenFile(dev, how, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlLoopConfigure(int(f.Fd()), c), f.Close())
}

// InMemory makes an empty disk in memory and returns the path of its device.
// It may grow to half of the memory, which it only takes as it is filled. Dir
// is where its file system is mounted.
func InMemory(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a disk in memory: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=50%"); err != nil {
		return "", fmt.Errorf("making a disk in memory: mounting %s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("making a disk in memory: %w", err)
	}
	f, err := os.OpenFile(dir+"/state", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("making a disk in memory: %w", err)
	}
	size := int64(st.Blocks) * st.Bsize &^ (blankEnd - 1)
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", fmt.Errorf("making a disk in memory: %w", err)
	}
	return Attach(f.Name(), true)
}

// blockDevice is a device of the kernel's.
type blockDevice struct{ *os.File }

func openDevice(path string) (Device, error) {
	f, err := os.Open(path)
	return blockDevice{f}, err
}

func (d blockDevice) Size() (int64, error) { return d.Seek(0, io.SeekEnd) }
