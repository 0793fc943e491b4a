// Package ignition says what a node is told: everything in a node's
// configuration that depends on the cluster, the role or the user.
//
// [Node] holds the values. [Butane] renders them as a Butane config (variant
// fcos, version 1.4.0), [Ignition] translates that to an Ignition config of
// spec 3.3.0, the newest that Debian 13's Ignition 2.14 reads, and [Merge] lays
// the user's own Butane files over it. The result is embedded in the initrd
// and applied on the first boot of each image version.
//
//	https://coreos.github.io/butane/config-fcos-v1_4/
//	https://coreos.github.io/ignition/configuration-v3_3/
//
// There is a file per subject (docker, network, kubelet, …), each a function
// from Node to files and units; subjects lists them. Kubernetes objects and
// configurations are built from the types of Kubernetes' own modules, so that
// a misspelt field does not compile.
//
// The same Node gives the same bytes. Contents are not compressed here: the
// initrd is, and a compressor's output may differ between its versions.
//
// Several masters are alike: kscratch-node tells them apart on the node.
//
// Not supported: IPv6 and dual-stack clusters, CNI
// plugins other than kubenet's, and anything about disks (systemd-repart makes those) or kernel arguments
// (they are part of the unified kernel image).
package ignition

import (
	"encoding/json"
	"fmt"

	butane "github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_3/types"
)

// part is what one subject puts on a node.
type part struct {
	dirs  []string // mode 0755
	files []file
	units []unit
}

// file is a regular file of root's.
type file struct {
	path string
	mode mode
	body []byte
}

// text returns a file of mode 0644.
func text(path string, lines ...string) file { return file{path, 0o644, []byte(ini(lines...))} }

// subjects is everything that a node is told, in the order of the config.
var subjects = []func(Node) (part, error){
	base, sysctl, network, filter, flannel, docker, criDocker, registries, kubelet, proxy, agent,
	secrets, etcd, apiServer, controllerManager, scheduler, bootstrap, coreDNS,
}

// Butane returns the node's configuration as a Butane config in YAML. Values
// left zero in n mean those of [Defaults]; a bad one is an error that lists
// every problem.
func Butane(n Node) ([]byte, error) {
	n = Defaults(n)
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("rendering the configuration of a %s: %w", n.Role, err)
	}
	// No subject can put a secret on a node that is not meant for its role.
	own, err := n.PKI.Only(Files(n.Role, n.Security)...)
	if err != nil {
		return nil, fmt.Errorf("rendering the configuration of a %s: %w", n.Role, err)
	}
	n.PKI = own
	var all part
	for _, subject := range subjects {
		p, err := subject(n)
		if err != nil {
			return nil, fmt.Errorf("rendering the configuration of a %s: %w", n.Role, err)
		}
		all.dirs = append(all.dirs, p.dirs...)
		all.files = append(all.files, p.files...)
		all.units = append(all.units, p.units...)
	}
	return all.butane(n)
}

// Ignition returns the node's configuration as an Ignition config in JSON,
// and what it holds. Any remark of the translator or the validator is an
// error: our own config gives no cause for one.
func Ignition(n Node) ([]byte, Report, error) {
	source, err := Butane(n)
	if err != nil {
		return nil, Report{}, err
	}
	out, err := translate(Snippet{Name: "internal error: base config", Data: source})
	if err != nil {
		return nil, Report{}, err
	}
	config, err := parse(out)
	if err != nil {
		return nil, Report{}, fmt.Errorf("internal error: base config: %w", err)
	}
	r, err := reportOf(config)
	if err != nil {
		return nil, Report{}, err
	}
	return out, r, nil
}

// Snippet is a Butane file of the user's.
type Snippet struct {
	Name string // of the file, for messages
	Data []byte // Butane YAML
	Dir  string // where `local:` files are looked for; empty: they are not allowed
}

// Merge lays snippets over base, an Ignition config in JSON, later ones over
// earlier ones, and returns an Ignition config of spec 3.3.0. Where both have
// a path, unit or user, the snippet's fields count. Problems
// are returned all at once, each as file:line:column.
func Merge(base []byte, snippets ...Snippet) ([]byte, error) {
	config, err := parse(base)
	if err != nil {
		return nil, fmt.Errorf("reading the base config: %w", err)
	}
	var problems Problems
	for _, s := range snippets {
		child, err := s.config()
		if err != nil {
			problems = append(problems, asProblems(err)...)
			continue
		}
		config = v3_3.Merge(config, child)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	out, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("writing the merged config: %w", err)
	}
	if _, err := parse(out); err != nil {
		return nil, fmt.Errorf("merging %s: %w", names(snippets), err)
	}
	return out, nil
}

// config translates s to the types of spec 3.3.0.
func (s Snippet) config() (types.Config, error) {
	out, err := translate(s)
	if err != nil {
		return types.Config{}, err
	}
	version, err := specVersion(out)
	if err != nil {
		return types.Config{}, Problems{s.at(1, 1, err.Error())}
	}
	if !supported(version) {
		return types.Config{}, Problems{s.at(1, 1, fmt.Sprintf(
			"needs Ignition spec %s, and the node's Ignition reads up to 3.3.0; fix: variant: fcos, version: 1.4.0", version))}
	}
	config, err := parse(out)
	if err != nil {
		return types.Config{}, Problems{s.at(1, 1, err.Error())}
	}
	if k := config.KernelArguments; len(k.ShouldExist)+len(k.ShouldNotExist) > 0 {
		return types.Config{}, Problems{s.at(1, 1,
			"sets kernel_arguments, but those are part of the signed kernel image; fix: put them into disk.kernelArgs of the cluster file")}
	}
	return config, nil
}

// translate turns Butane into Ignition JSON and fails on any remark.
func translate(s Snippet) ([]byte, error) {
	options := common.TranslateBytesOptions{Raw: true}
	options.NoResourceAutoCompression = true
	options.FilesDir = s.Dir
	out, report, err := butane.TranslateBytes(s.Data, options)
	if p := s.problems(report); len(p) > 0 {
		return nil, p
	}
	if err != nil {
		return nil, Problems{s.syntax(err)}
	}
	return out, nil
}

// parse reads an Ignition config of spec 3.3.0 or older and fails on any
// remark.
func parse(b []byte) (types.Config, error) {
	config, report, err := v3_3.ParseCompatibleVersion(b)
	if len(report.Entries) > 0 {
		return types.Config{}, fmt.Errorf("validating Ignition: %s", oneLine(report.String()))
	}
	if err != nil {
		return types.Config{}, fmt.Errorf("validating Ignition: %w", err)
	}
	return config, nil
}
