package ignition

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	yamlv3 "gopkg.in/yaml.v3"
)

// Local is what a Butane file includes: a file, or in a tree a symbolic link.
type Local struct {
	Name string // relative to the directory that it was looked for in
	Exec bool   // it is executable, which storage.trees keeps
	Link string // what a symbolic link points to; nothing is read through it
}

// Locals returns what a Butane file includes from dir, which is [Snippet.Dir]:
// sorted by name, each once. That is what stands under the keys local,
// contents_local and *_local of Butane's specification; of a directory, as
// storage.trees has them, all in it. What is not there, and a file that is not
// YAML, is passed over: whoever translates it will tell.
func Locals(butane []byte, dir string) []Local {
	var doc yamlv3.Node
	if yamlv3.Unmarshal(butane, &doc) != nil {
		return nil
	}
	var named []string
	locals(&doc, &named)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	var out []Local
	for _, name := range named {
		// An error ends the walk of one name; nothing depends on it.
		_ = fs.WalkDir(root.FS(), path.Clean(name), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			l := Local{Name: p}
			switch d.Type() {
			case 0:
				info, err := d.Info()
				if err != nil {
					return err
				}
				l.Exec = info.Mode()&0o111 != 0
			case fs.ModeSymlink:
				if l.Link, err = root.Readlink(p); err != nil {
					return err
				}
			default:
				return nil
			}
			out = append(out, l)
			return nil
		})
	}
	slices.SortFunc(out, func(a, b Local) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(out)
}

// locals collects the values of keys that name files.
func locals(n *yamlv3.Node, out *[]string) {
	if n.Kind == yamlv3.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if key != "local" && !strings.HasSuffix(key, "_local") {
				continue
			}
			for _, v := range append([]*yamlv3.Node{value}, value.Content...) {
				if v.Kind == yamlv3.ScalarNode && v.Value != "" && v.Tag != "!!null" {
					*out = append(*out, v.Value)
				}
			}
		}
	}
	for _, c := range n.Content {
		locals(c, out)
	}
}
