package inspect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/layers"
)

func (i *Image) buildValues(context.Context) (map[string]string, error) {
	b := i.Build
	return map[string]string{
		"role": b.Role, "version": b.Version, "root": b.Root, "cluster": b.Cluster, "security": b.Security,
		"PKI": string(b.PKI), "kscratch": string(b.Kscratch), "kernel arguments": i.args(),
	}, nil
}

// args returns the kernel's command line without the root hash, which differs
// whenever the root does.
func (i *Image) args() string {
	return strings.Join(slices.DeleteFunc(strings.Fields(i.cmdline), func(a string) bool { return strings.HasPrefix(a, "roothash=") }), " ")
}

func (i *Image) specValues(context.Context) (map[string]string, error) {
	v, err := i.values()
	out := map[string]string{}
	field.Flatten(out, "", v)
	return out, err
}

func (i *Image) componentValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range i.versions() {
		out[v.Name] = v.Version
	}
	return out, nil
}

func (i *Image) packageValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range i.Record.Packages {
		out[p.Name] = p.Version
	}
	return out, nil
}

// kernelConfig returns the options that the kernel was built with.
func (i *Image) kernelConfig(context.Context) (map[string]string, error) {
	out := map[string]string{}
	found, err := i.Root.Glob("usr/lib/modules/*/config")
	for _, f := range found {
		b, err := read(f)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(k, "CONFIG_") {
				out[k] = v
			}
		}
	}
	return out, err
}

// sysctls returns what sysctl.d(5) sets: files in order of name, where /etc
// hides /usr/lib.
func (i *Image) sysctls(context.Context) (map[string]string, error) {
	files := map[string]layers.File{}
	for _, at := range []struct {
		t   *layers.Tree
		dir string
	}{{i.Root, "usr/lib/sysctl.d"}, {i.Root, "etc/sysctl.d"}, {i.Config, "etc/sysctl.d"}} {
		found, err := at.t.Glob(at.dir + "/*.conf")
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			files[path.Base(f.Path)] = f
		}
	}
	out := map[string]string{}
	for _, name := range sortedKeys(files) {
		if !files[name].Mode.IsRegular() {
			continue
		}
		b, err := read(files[name])
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
			if ok && !strings.HasPrefix(k, "#") && !strings.HasPrefix(k, ";") {
				out[strings.TrimLeft(strings.TrimSpace(k), "-")] = strings.TrimSpace(v)
			}
		}
	}
	return out, nil
}

const manifests = "etc/kubernetes/manifests"

// podValues returns the image and each flag of each static pod.
func (i *Image) podValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for f := range i.Config.Under(manifests) {
		if !f.Mode.IsRegular() {
			continue
		}
		b, err := read(f)
		if err != nil {
			return nil, err
		}
		var pod struct {
			Spec struct {
				Containers []struct {
					Name, Image   string
					Command, Args []string
				}
			}
		}
		if err := yaml.Unmarshal(b, &pod); err != nil {
			return nil, fmt.Errorf("reading /%s: %w", f.Path, err)
		}
		for _, c := range pod.Spec.Containers {
			out[c.Name+" image"] = c.Image
			for _, arg := range append(c.Command, c.Args...) {
				if flag, ok := strings.CutPrefix(arg, "--"); ok {
					name, value, _ := strings.Cut(flag, "=")
					out[c.Name+" --"+name] = cmp.Or(value, "true")
				}
			}
		}
	}
	return out, nil
}

// objectValues returns every field of the YAML files below /etc/kubernetes
// that are no static pods' flags.
func (i *Image) objectValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for f := range i.Config.Under("etc/kubernetes") {
		if path.Ext(f.Path) != ".yaml" || !f.Mode.IsRegular() {
			continue
		}
		b, err := read(f)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(f.Path, "etc/kubernetes/")
		dec := yaml.NewDecoder(bytes.NewReader(b))
		for {
			var doc any
			if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("reading /%s: %w", f.Path, err)
			}
			fields := map[string]string{}
			field.Flatten(fields, "", doc)
			title := strings.Trim(fields["kind"]+"/"+fields["metadata.name"], "/")
			for k, v := range fields {
				if path.Dir(f.Path) != manifests || !strings.Contains(k, ".command[") && !strings.Contains(k, ".args[") && !strings.HasSuffix(k, "].image") {
					out[name+" "+title+" "+k] = v
				}
			}
		}
	}
	return out, nil
}

// unitValues returns every setting of every unit, and what is enabled. A file
// below /etc hides one of its name below /usr.
func (i *Image) unitValues(context.Context) (map[string]string, error) {
	files := map[string]layers.File{}
	for _, at := range []struct {
		t   *layers.Tree
		dir string
	}{{i.Root, "usr/lib/systemd/system"}, {i.Root, "etc/systemd/system"}, {i.Config, "etc/systemd/system"}} {
		for f := range at.t.Under(at.dir) {
			files[strings.TrimPrefix(f.Path, at.dir+"/")] = f
		}
	}
	out := map[string]string{}
	for name, f := range files {
		if f.Link != "" {
			out[name] = "link to " + f.Link
		}
		if !f.Mode.IsRegular() {
			continue
		}
		b, err := read(f)
		if err != nil {
			return nil, err
		}
		settings(out, name, string(b))
	}
	for _, e := range i.report.Entries {
		if name, ok := strings.CutPrefix(e.Path, "/etc/systemd/system/"); ok && e.Note != "" {
			out[name] = e.Note
		}
	}
	return out, nil
}

// settings puts the settings of a unit file into a map; one that stands
// several times has all its values.
func settings(into map[string]string, name, text string) {
	section := ""
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(k, "#") && !strings.HasPrefix(k, ";") {
			key := name + " " + section + " " + k
			into[key] = strings.TrimPrefix(into[key]+"; "+strings.Join(strings.Fields(v), " "), "; ")
		}
	}
}

func (i *Image) imageValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, im := range i.Record.Images {
		out[im.Name] = string(cmp.Or(im.Digest, im.ID)) + ", " + bytesText(im.Size)
	}
	return out, nil
}

func (i *Image) secretValues(ctx context.Context) (map[string]string, error) {
	found, err := i.Secrets(ctx)
	out := map[string]string{}
	for _, s := range found {
		out[s.Path] = s.Kind
	}
	return out, err
}

func (i *Image) setuidValues(context.Context) (map[string]string, error) { return set(i.setuid()), nil }

func (i *Image) sizeValues(context.Context) (map[string]string, error) {
	ls, _ := i.sizes()
	out := map[string]string{}
	for _, l := range ls {
		out[l.Name] = fmt.Sprintf("%s in %d files", bytesText(l.Bytes), l.Files)
	}
	return out, nil
}

// configValues returns what the first boot writes. Of secrets it only tells
// that they are there: the build's digest of the PKI tells two sets apart.
func (i *Image) configValues(ctx context.Context) (map[string]string, error) {
	secret, err := i.secretValues(ctx)
	out := map[string]string{}
	for _, e := range i.report.Entries {
		out[e.Path] = strings.TrimSpace(Octal(e.Mode) + " " + e.Owner + " " + e.Note)
		if secret[e.Path] == "" && e.Digest != "" {
			out[e.Path] += " " + short(e.Digest)
		}
	}
	return out, err
}

// fileValues returns the root's files, as its record has them. The records
// themselves follow from all else.
func (i *Image) fileValues(context.Context) (map[string]string, error) {
	out := map[string]string{}
	for f := range i.Root.Files() {
		v := fmt.Sprintf("%s %s %d:%d", typeOf(f.Mode), Octal(f.Mode), f.UID, f.GID)
		if sum := i.owners[f.Path].Sum; sum != "" {
			v += " " + short(sum)
		}
		out["/"+f.Path] = strings.TrimSpace(v + " " + f.Link)
	}
	return out, nil
}

// short returns the first digits of a digest, enough for a reader to tell two
// apart.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
