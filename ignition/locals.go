package ignition

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	yamlv3 "gopkg.in/yaml.v3"
)

// Locals returns the names of the files that a Butane file includes, relative
// to dir, which is [Snippet.Dir]; sorted, each once. They are what stands under
// the keys local, contents_local and *_local of Butane's specification; of a
// directory, as storage.trees has them, all files in it. What is not there, and
// a file that is not YAML, is passed over: whoever translates it will tell.
func Locals(butane []byte, dir string) []string {
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
	var out []string
	for _, name := range named {
		// An error ends the walk of one name; nothing depends on it.
		_ = fs.WalkDir(root.FS(), path.Clean(name), func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				out = append(out, p)
			}
			return err
		})
	}
	slices.Sort(out)
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
				if v.Kind == yamlv3.ScalarNode {
					*out = append(*out, v.Value)
				}
			}
		}
	}
	for _, c := range n.Content {
		locals(c, out)
	}
}
