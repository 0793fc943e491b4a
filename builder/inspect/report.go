package inspect

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/ignition/firstboot"
	"github.com/kscratch/kscratch/layers"
)

// Report is what is in an image. There is no secret in it.
type Report struct {
	Image      string          `json:"image"`  // name of the file
	Format     string          `json:"format"` // of the file
	Size       int64           `json:"size"`   // of the disk, bytes
	Build      Summary         `json:"build"`
	Partitions []Partition     `json:"partitions"`
	Verity     Verity          `json:"verity"`
	UKI        []Section       `json:"uki"`
	Versions   []Version       `json:"versions"`
	Layers     []Layer         `json:"layers"`
	Images     []ImageReport   `json:"images"`
	FirstBoot  FirstBoot       `json:"firstBoot"`
	Config     []ConfigFile    `json:"config"` // what the first boot writes
	Secrets    []Secret        `json:"secrets"`
	Setuid     []string        `json:"setuid"` // in the root, container images apart
	Packages   []PackageReport `json:"packages"`
}

// Summary says what an image was built for.
type Summary struct {
	Role     string        `json:"role"`
	Version  string        `json:"version"`
	Root     string        `json:"root"` // version of the root
	Time     time.Time     `json:"time"`
	Cluster  string        `json:"cluster"`
	Security string        `json:"security"`
	Lock     layers.Digest `json:"lock"`
	Spec     layers.Digest `json:"spec"`
	PKI      layers.Digest `json:"pki"`
}

// Partition is a partition of the disk.
type Partition struct {
	Label  string `json:"label"`
	Type   string `json:"type"` // a name, or a GUID that has none here
	UUID   string `json:"uuid"`
	Offset int64  `json:"offset"` // bytes
	Size   int64  `json:"size"`   // bytes
}

// Verity says how the root is protected.
type Verity struct {
	RootHash string `json:"rootHash"`
	Salt     string `json:"salt"`
	DataSize int64  `json:"dataSize"`          // bytes that the hash tree covers
	Matches  bool   `json:"partitionsMatch"`   // the partitions' UUIDs are the halves of the root hash
	Checked  bool   `json:"checked"`           // all data was read and compared
	Problem  string `json:"problem,omitempty"` // what the comparison found
}

// Section is a part of the unified kernel image.
type Section struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
	Text string `json:"text,omitempty"`
}

// Version is the version of a component that people ask for by name.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	From    string `json:"from"` // where it came from
}

// Layer is what one source brings to the root.
type Layer struct {
	Name  string `json:"name"`
	Files int    `json:"files"` // regular files
	Other int    `json:"other"` // directories, links, …
	Bytes int64  `json:"bytes"` // content of regular files
}

// PackageReport is a Debian package and what it brings to the root.
type PackageReport struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
}

// ImageReport is a container image and where it came from.
type ImageReport struct {
	record.Image
	From string `json:"from"`
}

// FirstBoot says what the first boot accepts.
type FirstBoot struct {
	PodCIDR     string   `json:"podCIDR"` // which ranges are accepted, or who gives them
	Sources     []string `json:"sources"` // where it is looked for, in this order
	ClusterCIDR string   `json:"clusterCIDR"`
	ServiceCIDR string   `json:"serviceCIDR"`
	Example     string   `json:"example,omitempty"`
	NodeName    string   `json:"nodeName"`
}

// ConfigFile is a file that the first boot writes.
type ConfigFile struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"`             // octal
	Digest string `json:"digest,omitempty"` // of the content; empty for a secret
	Note   string `json:"note,omitempty"`
}

// Report looks through an image. With verify it reads all of the root; a root
// that does not match its hash is told in the report, not as an error.
func (i *Image) Report(ctx context.Context, verify bool) (Report, error) {
	b := i.Build
	r := Report{
		Image: i.Name, Format: i.Format, Size: i.disk.Size,
		Build: Summary{b.Role, b.Version, b.Root, b.Time, b.Cluster, b.Security, b.Lock, b.Spec, b.PKI},
	}
	for _, p := range i.disk.Parts {
		r.Partitions = append(r.Partitions, Partition{p.Label, typeName(p.Type), uuidText(p.GUID), p.Offset, p.Size})
	}
	for _, s := range i.sections {
		r.UKI = append(r.UKI, Section{s.Name, s.Size, s.text})
	}
	var err error
	if r.Verity, err = i.verity(ctx, verify); err != nil {
		return Report{}, err
	}
	for _, im := range i.Record.Images {
		r.Images = append(r.Images, ImageReport{im, i.Build.Sources["image:"+im.Name]})
	}
	r.Versions = i.versions()
	r.Layers, r.Packages = i.sizes()
	if r.FirstBoot, err = i.firstBoot(); err != nil {
		return Report{}, err
	}
	if r.Secrets, err = i.Secrets(ctx); err != nil {
		return Report{}, err
	}
	for _, e := range i.report.Entries {
		c := ConfigFile{e.Path, Octal(e.Mode), e.Digest, e.Note}
		if slices.ContainsFunc(r.Secrets, func(s Secret) bool { return s.Path == e.Path }) {
			c.Digest = "" // by which a weak password could be found
		}
		r.Config = append(r.Config, c)
	}
	r.Setuid = i.setuid()
	return r, nil
}

var typeNames = map[disk.Type]string{
	disk.ESP: "esp", disk.Root: "root", disk.RootVerity: "root-verity", disk.Var: "var", disk.LinuxGeneric: "linux-generic",
}

func typeName(t disk.Type) string { return cmp.Or(typeNames[t], string(t)) }

func uuidText(u [16]byte) string {
	h := hex.EncodeToString(u[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

func (i *Image) verity(ctx context.Context, verify bool) (Verity, error) {
	hash, err := i.RootHash()
	if err != nil {
		return Verity{Problem: err.Error()}, nil
	}
	v := Verity{RootHash: hash.String()}
	data, tree := hash.UUIDs()
	d, h := i.disk.Find(disk.Root), i.disk.Find(disk.RootVerity)
	if h < 0 {
		v.Problem = "there is no partition with a hash tree"
		return v, nil
	}
	v.Matches = i.disk.Parts[d].GUID == data && i.disk.Parts[h].GUID == tree
	sb, err := verity.ReadSuperblock(i.disk.Reader(h))
	if err != nil {
		v.Problem = err.Error()
		return v, nil
	}
	v.Salt, v.DataSize = hex.EncodeToString(sb.Salt), sb.DataSize
	if !verify {
		return v, nil
	}
	v.Checked = true
	if err := i.Verify(ctx); err != nil {
		if ctx.Err() != nil {
			return v, err
		}
		v.Problem = err.Error()
	}
	return v, nil
}

// versions are those of the components that people ask for by name.
func (i *Image) versions() []Version {
	out := []Version{{"linux", i.Section(".uname"), i.packageOf("boot/vmlinuz-" + i.Section(".uname"))}}
	for _, p := range i.Record.Programs {
		out = append(out, Version{p.Name, p.Version, i.Build.Sources["program:"+p.Name]})
	}
	for _, im := range i.Record.Images {
		repo, tag, _ := strings.Cut(im.Name[strings.LastIndexByte(im.Name, '/')+1:], ":")
		if !slices.ContainsFunc(out, func(v Version) bool { return v.Name == repo }) {
			out = append(out, Version{repo, tag, i.Build.Sources["image:"+im.Name]})
		}
	}
	for _, p := range i.Record.Packages {
		switch p.Name {
		case "docker.io", "containerd", "runc", "systemd", "iptables", "ignition":
			out = append(out, Version{p.Name, p.Version, "Debian"})
		}
	}
	slices.SortStableFunc(out[1:], func(a, b Version) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (i *Image) packageOf(p string) string {
	if f, ok := i.owners[p]; ok {
		return strings.TrimPrefix(f.Owner, "deb:")
	}
	for _, p := range i.Record.Packages {
		if strings.HasPrefix(p.Name, "linux-image-") && strings.Contains(p.Name, i.Section(".uname")) {
			return p.Name + "=" + p.Version
		}
	}
	return ""
}

// sourceOf returns who brings a file in the words of a reader.
func sourceOf(owner string) string {
	kind, rest, _ := strings.Cut(owner, ":")
	switch {
	case kind == "deb":
		return "Debian packages"
	case kind == "derive":
		return "derived from packages"
	case kind == "image" || owner == "kscratch:images":
		return "container images"
	case kind == "kscratch":
		return "kscratch " + rest
	}
	name, _, _ := strings.Cut(owner, "=")
	return name
}

// sizes adds up the root by source and by package.
func (i *Image) sizes() ([]Layer, []PackageReport) {
	sources, pkgs := map[string]Layer{}, map[string]Layer{}
	add := func(to map[string]Layer, name string, f layers.File) {
		l := to[name]
		l.Name = name
		if f.Mode.IsRegular() {
			l.Files++
		} else {
			l.Other++
		}
		l.Bytes += f.Size
		to[name] = l
	}
	for f := range i.Root.Files() {
		owner := i.owners[f.Path].Owner
		add(sources, sourceOf(owner), f)
		add(pkgs, owner, f)
	}
	var out []Layer
	for _, l := range sources {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Layer) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name)) })
	var list []PackageReport
	for _, p := range i.Record.Packages {
		l := pkgs[p.Owner()]
		list = append(list, PackageReport{p.Name, p.Version, p.Arch, l.Files, l.Bytes})
	}
	return out, list
}

func (i *Image) firstBoot() (FirstBoot, error) {
	b, err := i.Config.ReadFile(firstboot.ConfigPath)
	if errors.Is(err, fs.ErrNotExist) {
		return FirstBoot{PodCIDR: "the image has no /" + firstboot.ConfigPath}, nil
	}
	if err != nil {
		return FirstBoot{}, err
	}
	c, err := firstboot.ParseConfig(b)
	if err != nil {
		return FirstBoot{}, err
	}
	out := FirstBoot{ClusterCIDR: c.ClusterCIDR.String(), ServiceCIDR: c.ServiceCIDR.String()}
	switch {
	case c.NodeName != "":
		out.NodeName = c.NodeName
	case c.NodeNameFromDHCP:
		out.NodeName = "the host name in the DHCP lease"
	case c.PodCIDRByCluster:
		out.NodeName = c.Role + "-<hardware address>"
	default:
		out.NodeName = firstboot.NodeName(c.Role, c.Networks().Example()) + " for the example"
	}
	if c.PodCIDRByCluster {
		out.PodCIDR = "given by the cluster; none is asked for"
		return out, nil
	}
	out.PodCIDR = "an IPv4 network of /" + itoa(max(firstboot.MinBits, c.ClusterCIDR.Bits())) + " to /" + itoa(firstboot.MaxBits) +
		" inside " + out.ClusterCIDR + ", apart from " + out.ServiceCIDR
	out.Example = c.Networks().Example().String()
	out.Sources = []string{
		"systemd credential " + firstboot.CredentialName, "kernel argument " + firstboot.KernelArgument + "=",
		"file /etc/kscratch/pod-cidr", "the value that the node remembers",
	}
	return out, nil
}

// setuid returns the set-user-id and set-group-id programs of the root.
// Container images have their own, within reach of their containers alone.
func (i *Image) setuid() []string {
	out := []string{}
	for f := range i.Root.Files() {
		if f.Mode.IsRegular() && f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && sourceOf(i.owners[f.Path].Owner) != "container images" {
			out = append(out, "/"+f.Path)
		}
	}
	return out
}
