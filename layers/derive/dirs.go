package derive

import (
	"context"
	"io/fs"

	"github.com/kscratch/kscratch/layers"
)

var stepDirs = Step{
	Name: "dirs",
	Doc:  "mount points and directories that must exist because the root is read-only (base-files postinst and the node's own)",
	Run:  makeDirs,
}

var directories = []struct {
	path string
	perm fs.FileMode
}{
	{".", 0o755},
	// mount points
	{"boot", 0o755}, {"efi", 0o755}, {"dev", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"run", 0o755},
	{"tmp", 0o777 | fs.ModeSticky}, {"mnt", 0o755}, {"media", 0o755}, {"var", 0o755},
	// empty homes of things
	{"home", 0o755}, {"root", 0o700}, {"srv", 0o755}, {"opt", 0o755}, {"etc/opt", 0o755},
	{"usr/local/bin", 0o755}, {"usr/local/sbin", 0o755}, {"usr/local/lib", 0o755}, {"usr/local/libexec", 0o755},
	{"usr/local/share", 0o755}, {"usr/local/etc", 0o755},
	// where the kubelet and docker look
	{"etc/kubernetes", 0o755}, {"etc/docker", 0o755}, {"opt/cni", 0o755}, {"opt/cni/bin", 0o755},
	{"usr/libexec/kubernetes/kubelet-plugins/volume/exec", 0o755},
}

func makeDirs(_ context.Context, in Input) (Result, error) {
	var files []layers.File
	for _, d := range directories {
		files = append(files, dir(d.path, d.perm))
	}
	return Result{Files: files}, nil
}
