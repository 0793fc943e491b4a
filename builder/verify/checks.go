package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/inspect"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/uki"
	"github.com/kscratch/kscratch/layers"
)

// checks are the checks of an image that can be looked into, each with what it
// says if all is well.
var checks = []struct {
	name string
	do   func(context.Context, *inspect.Image) (string, error)
}{
	{"root", checkRoot},
	{"files of the root", checkRecord},
	{"EFI system partition", checkESP},
	{"unified kernel image", checkUKI},
	{"initrd", checkInitrd},
	{"recipe", checkRecipe},
}

// checkRoot reads every block, and wants the partitions to have the UUIDs by
// which the initrd finds them.
func checkRoot(ctx context.Context, i *inspect.Image) (string, error) {
	hash, err := i.RootHash()
	if err != nil {
		return "", err
	}
	if err := i.Verify(ctx); err != nil {
		return "", err
	}
	d := i.Disk()
	data, tree := hash.UUIDs()
	if d.Parts[d.Find(disk.Root)].GUID != data || d.Parts[d.Find(disk.RootVerity)].GUID != tree {
		return "", errors.New("the UUIDs of the partitions are not the halves of the root hash")
	}
	return "every block matches the root hash " + hash.String(), nil
}

// checkRecord holds every file of the root to the record in it.
func checkRecord(ctx context.Context, i *inspect.Image) (string, error) {
	known := i.Record.ByPath()
	for f := range i.Root.Files() {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		want, ok := known[f.Path]
		if !ok {
			return "", fmt.Errorf("/%s is not in the record", f.Path)
		}
		delete(known, f.Path)
		if !f.Mode.IsRegular() || f.Path == record.RootPath {
			continue
		}
		got, err := sumOf(f)
		if err != nil {
			return "", err
		}
		if got != want.Sum {
			return "", fmt.Errorf("/%s of %s has SHA-256 %s, the record says %s", f.Path, want.Owner, got, want.Sum)
		}
	}
	for p, f := range known {
		return "", fmt.Errorf("/%s of %s is missing", p, f.Owner)
	}
	return fmt.Sprintf("%d entries are as recorded", i.Root.Len()), nil
}

// checkESP wants exactly the files that a build writes. The unified kernel
// image is looked at apart.
func checkESP(_ context.Context, i *inspect.Image) (string, error) {
	want := map[string]layers.Digest{}
	for _, p := range builder.LoaderPaths {
		want[p] = i.Build.Boot["loader"]
	}
	for _, f := range builder.LoaderFiles {
		want[f.Path] = layers.DigestOf([]byte(f.Text))
	}
	found := 0
	for f := range i.ESP.Files() {
		if f.Mode.IsDir() || f.Path == ukiPath(i) {
			continue
		}
		if want[f.Path] == "" {
			return "", fmt.Errorf("/%s is not what a build writes", f.Path)
		}
		got, err := sumOf(f)
		if err != nil {
			return "", err
		}
		if sum := layers.Digest("sha256:" + got); sum != want[f.Path] {
			return "", fmt.Errorf("/%s has %s, want %s", f.Path, sum, want[f.Path])
		}
		found++
	}
	if found != len(want) {
		return "", fmt.Errorf("%d files beside the unified kernel image, want %d", found, len(want))
	}
	return fmt.Sprintf("%d files are as recorded", found), nil
}

// ukiPath is where a build writes the unified kernel image.
func ukiPath(i *inspect.Image) string {
	return "EFI/Linux/kscratch-" + i.Build.Role + "_" + i.Build.Version + "+3.efi"
}

// checkUKI holds the kernel to the record, and the names to each other.
func checkUKI(_ context.Context, i *inspect.Image) (string, error) {
	all := i.Sections()
	kernel, ok := uki.Find(all, ".linux")
	if !ok {
		return "", errors.New("it has no kernel")
	}
	got, err := sumOf(layers.File{Path: ".linux", Owner: "uki", Size: kernel.Size, Open: kernel.Open})
	if err != nil {
		return "", err
	}
	if sum := layers.Digest("sha256:" + got); sum != i.Build.Boot["kernel"] {
		return "", fmt.Errorf("the kernel has %s, the record says %s", sum, i.Build.Boot["kernel"])
	}
	id := "kscratch-" + i.Build.Role
	for _, line := range []string{"IMAGE_ID=" + id, "IMAGE_VERSION=" + i.Build.Version} {
		if !strings.Contains("\n"+i.Section(".osrel")+"\n", "\n"+line+"\n") {
			return "", fmt.Errorf("its os-release has no line %s, as the record has it", line)
		}
	}
	if name := ukiPath(i); !has(i.ESP, name) {
		return "", fmt.Errorf("its name is not /%s, as the record has it", name)
	}
	return "kernel " + i.Section(".uname") + " is as recorded", nil
}

// checkInitrd compares files that the initrd takes over from the root with
// those that are there: what differs was put into one of them.
func checkInitrd(ctx context.Context, i *inspect.Image) (string, error) {
	same, all := 0, i.Record.ByPath()
	for f := range i.Initrd.Files() {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		known := all[f.Path]
		if !f.Mode.IsRegular() || known.Sum == "" || builder.InitrdOwn(f.Path) {
			continue
		}
		got, err := sumOf(f)
		if err != nil {
			return "", err
		}
		if got != known.Sum {
			return "", fmt.Errorf("/%s has SHA-256 %s, in the root it has %s", f.Path, got, known.Sum)
		}
		same++
	}
	return fmt.Sprintf("%d files are those of the root", same), nil
}

// checkRecipe holds cluster file and lock to their digests in the record.
func checkRecipe(_ context.Context, i *inspect.Image) (string, error) {
	r, err := recipeOf(i)
	if err != nil {
		return "", err
	}
	if r.Lock.Digest() != i.Build.Lock {
		return "", fmt.Errorf("the lock has %s, the record says %s", r.Lock.Digest(), i.Build.Lock)
	}
	return "lock " + string(i.Build.Lock), nil
}

func has(t *layers.Tree, p string) bool {
	_, ok := t.Lookup(p)
	return ok
}

func sumOf(f layers.File) (string, error) {
	r, err := f.Open()
	if err != nil {
		return "", fmt.Errorf("reading /%s: %w", f.Path, err)
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("reading /%s: %w", f.Path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
