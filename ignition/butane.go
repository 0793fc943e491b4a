package ignition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	yamlv3 "gopkg.in/yaml.v3"
	"sigs.k8s.io/yaml"
)

// mode is the permission bits of a file. It is written in octal.
type mode uint32

func (m mode) MarshalYAML() (any, error) {
	return &yamlv3.Node{Kind: yamlv3.ScalarNode, Tag: "!!int", Value: fmt.Sprintf("%#04o", uint32(m))}, nil
}

// unit is a systemd unit: one of ours with contents, or one of the system's
// that is enabled, masked or given drop-ins.
type unit struct {
	name     string
	enabled  bool
	mask     bool
	contents string
	dropins  []dropin
}

type dropin struct{ name, contents string }

// The part of Butane's fcos 1.4.0 that is used here, without its zero values.
type (
	butaneConfig struct {
		Variant string        `yaml:"variant"`
		Version string        `yaml:"version"`
		Storage butaneStorage `yaml:"storage"`
		Systemd butaneSystemd `yaml:"systemd"`
	}
	butaneStorage struct {
		Directories []butaneDir  `yaml:"directories"`
		Files       []butaneFile `yaml:"files"`
	}
	butaneDir struct {
		Path string `yaml:"path"`
		Mode mode   `yaml:"mode"`
	}
	butaneFile struct {
		Path      string         `yaml:"path"`
		Mode      mode           `yaml:"mode"`
		Overwrite bool           `yaml:"overwrite"`
		Contents  butaneContents `yaml:"contents"`
	}
	butaneContents struct {
		Inline string `yaml:"inline"`
	}
	butaneSystemd struct {
		Units []butaneUnit `yaml:"units"`
	}
	butaneUnit struct {
		Name     string         `yaml:"name"`
		Enabled  *bool          `yaml:"enabled,omitempty"`
		Mask     *bool          `yaml:"mask,omitempty"`
		Contents string         `yaml:"contents,omitempty"`
		Dropins  []butaneDropin `yaml:"dropins,omitempty"`
	}
	butaneDropin struct {
		Name     string `yaml:"name"`
		Contents string `yaml:"contents"`
	}
)

// butane writes p as YAML. Files overwrite: the root may ship one of that
// name, and Ignition may be interrupted and start over.
func (p part) butane(n Node) ([]byte, error) {
	c := butaneConfig{Variant: "fcos", Version: "1.4.0"}
	for _, d := range p.dirs {
		c.Storage.Directories = append(c.Storage.Directories, butaneDir{d, 0o755})
	}
	for _, f := range p.files {
		c.Storage.Files = append(c.Storage.Files, butaneFile{f.path, f.mode, true, butaneContents{string(f.body)}})
	}
	for _, u := range p.units {
		c.Systemd.Units = append(c.Systemd.Units, u.butane())
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Cluster %s, role %s. Rendered by kscratch.\n", n.Cluster, n.Role)
	enc := yamlv3.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("writing Butane: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing Butane: %w", err)
	}
	return b.Bytes(), nil
}

func (u unit) butane() butaneUnit {
	b := butaneUnit{Name: u.name, Contents: u.contents}
	if u.enabled {
		b.Enabled = new(true)
	}
	if u.mask {
		b.Mask = new(true)
	}
	for _, d := range u.dropins {
		b.Dropins = append(b.Dropins, butaneDropin{d.name, d.contents})
	}
	return b
}

// ini joins lines, with an empty one before each section but the first.
func ini(lines ...string) string {
	var b strings.Builder
	for i, l := range lines {
		if i > 0 && strings.HasPrefix(l, "[") {
			b.WriteByte('\n')
		}
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.String()
}

// object writes a Kubernetes object or configuration as YAML, keys sorted.
// Kubernetes' types have many fields that serialise when they are zero; null,
// "", 0s and empty lists and maps are left out, as is a status, since each of
// them reads as the default. Zero numbers and false are kept.
func object(v any) ([]byte, error) {
	m, err := fields(v)
	if err != nil {
		return nil, err
	}
	return asYAML(m)
}

// fields returns what object writes.
func fields(v any) (map[string]any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing a %T: %w", v, err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("writing a %T: %w", v, err)
	}
	delete(m, "status")
	prune(m)
	return m, nil
}

// asYAML writes a value of JSON as YAML, keys sorted.
func asYAML(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	out, err := yaml.JSONToYAML(raw)
	if err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out, nil
}

// prune removes what says nothing from v and reports whether v says nothing.
// Elements of lists stay.
func prune(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == "" || v == "0s"
	case []any:
		for _, e := range v {
			prune(e)
		}
		return len(v) == 0
	case map[string]any:
		for k, e := range v {
			if prune(e) {
				delete(v, k)
			}
		}
		return len(v) == 0
	}
	return false
}
