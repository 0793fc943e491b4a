package builder

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/images"
	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/derive"
)

// Manifest says what an image is and what it is made of. It is written beside
// the image as JSON.
type Manifest struct {
	Role       Role            `json:"role"`
	Version    string          `json:"version"`
	Time       time.Time       `json:"time"`
	Lock       layers.Digest   `json:"lock"`
	RootHash   string          `json:"rootHash"`
	Artifacts  []Artifact      `json:"artifacts"`
	Partitions []Partition     `json:"partitions"`
	Root       RootStats       `json:"root"`
	Packages   []LockedPackage `json:"packages"`
	Files      []LockedFile    `json:"files"`
	Images     []BakedImage    `json:"images"`
	Config     []ConfigFile    `json:"config"`  // what the first boot of this version puts where
	Derived    []derive.Change `json:"derived"` // what maintainer scripts would have done
	Build      BuildStats      `json:"build"`
}

// Artifact is a file that a build wrote.
type Artifact struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"` // bytes, holes included
	Digest layers.Digest `json:"digest"`
}

// Partition is a partition of the image.
type Partition struct {
	Label  string `json:"label"`
	Type   string `json:"type"`
	UUID   string `json:"uuid"`
	Offset int64  `json:"offset"` // bytes
	Size   int64  `json:"size"`   // bytes
	Used   int64  `json:"used"`   // bytes with content
}

// RootStats counts what is in the root.
type RootStats struct {
	Files  int      `json:"files"`  // entries of all kinds
	Bytes  int64    `json:"bytes"`  // content of regular files
	Setuid []string `json:"setuid"` // set-user-id and set-group-id programs, those in container images apart
}

// BakedImage is a container image in the root.
type BakedImage struct {
	Name   string        `json:"name"`
	ID     layers.Digest `json:"id"` // docker's
	Digest layers.Digest `json:"digest,omitempty"`
	Size   int64         `json:"size"` // bytes, uncompressed
	From   string        `json:"from"`

	Packages []LockedPackage `json:"packages,omitempty"` // Debian packages that it is made from
}

// ConfigFile is a file that Ignition writes.
type ConfigFile struct {
	Path   string        `json:"path"`
	Mode   string        `json:"mode"`             // octal
	Digest layers.Digest `json:"digest,omitempty"` // of the content; empty for a secret
	Note   string        `json:"note,omitempty"`
}

// BuildStats is what a build took. It is the one part of a manifest that two
// builds of a lock do not share.
type BuildStats struct {
	PeakRSS int64 `json:"peakRSS"` // bytes, of the whole process
}

func bakedImages(l *Lock, role Role, baked []images.Image) (out []BakedImage) {
	locked := l.images(role)
	for i, im := range baked {
		out = append(out, BakedImage{Name: im.Ref, ID: im.ID, Digest: im.Digest, Size: im.Size(), From: locked[i].From, Packages: locked[i].Packages})
	}
	return out
}

func newManifest(l *Lock, role Role, version string, baked []BakedImage, changes []derive.Change, told told) Manifest {
	m := Manifest{
		Role: role, Version: version, Time: l.Time, Lock: l.Digest(),
		Packages: l.packages(role), Files: l.Files, Images: baked, Derived: changes,
	}
	for _, e := range told.report.Entries {
		c := ConfigFile{Path: e.Path, Mode: fmt.Sprintf("%04o", e.Mode.Perm()), Digest: layers.Digest(e.Digest), Note: e.Note}
		if slices.ContainsFunc(told.secrets, func(s ignition.Secret) bool { return s.Path == e.Path }) {
			c.Digest = "" // by which a weak password could be found
		}
		m.Config = append(m.Config, c)
	}
	return m
}

func rootStats(t *layers.Tree) RootStats {
	var s RootStats
	inStore := func(p string) bool { return len(p) > len(bakedStore) && p[:len(bakedStore)+1] == bakedStore+"/" }
	for f := range t.Files() {
		s.Files++
		s.Bytes += f.Size
		if f.Mode.IsRegular() && f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !inStore(f.Path) {
			s.Setuid = append(s.Setuid, "/"+f.Path)
		}
	}
	return s
}

func (m Manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("internal error: rendering the manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// peakRSS returns the most memory that this process has had, in bytes.
func peakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss * 1024
}
