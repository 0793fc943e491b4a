package builder

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/layers"
)

// DefaultYAML is the built-in cluster file, with comments, as kscratch init
// writes it. Parsing it gives [Default].
//
//go:embed default.yaml
var DefaultYAML []byte

// Load reads a cluster file. A missing file is the built-in default if
// fallback is set. All that is wrong with the file comes back at once, as a
// *[SpecError].
func Load(path string, fallback bool) (*Spec, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && fallback {
		return Parse("(built-in default)", DefaultYAML)
	}
	if err != nil {
		return nil, fmt.Errorf("reading cluster file: %w", err)
	}
	return Parse(path, b)
}

// Parse reads a cluster file from b; name stands in messages. What the file
// leaves out is as in [Default].
func Parse(name string, b []byte) (*Spec, error) {
	p := &parser{where: Positions{file: name, at: map[string]position{}}}
	spec := Default()
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(b))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF): // an empty file is the default
	case err != nil:
		return nil, &SpecError{[]Problem{syntaxProblem(name, err)}}
	default:
		p.value(doc.Content[0], "", reflect.ValueOf(spec).Elem())
		if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
			p.problem("", "holds more than one document", "keep one")
		}
	}
	validate(spec, p.problem)
	if len(p.problems) > 0 {
		return nil, &SpecError{p.problems}
	}
	spec.Where = p.where
	return spec, nil
}

// encode renders the spec with every field.
func (s *Spec) encode() ([]byte, error) {
	b, err := yaml.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("internal error: rendering the spec: %w", err)
	}
	return b, nil
}

// Digest names the spec's content, defaults included: two files that mean the
// same have the same digest.
func (s *Spec) Digest() (layers.Digest, error) {
	b, err := s.encode()
	return layers.DigestOf(b), err
}

// Places returns where the fields of a cluster file stand, as "file:line:col"
// by the path of the field, such as base.packages[0]. Fields that the file
// leaves to their defaults are not in it. Problems of the file do not matter.
func Places(name string, b []byte) (map[string]string, error) {
	p := &parser{where: Positions{file: name, at: map[string]position{}}}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, &SpecError{[]Problem{syntaxProblem(name, err)}}
	}
	if len(doc.Content) > 0 {
		p.value(doc.Content[0], "", reflect.ValueOf(Default()).Elem())
	}
	out := map[string]string{}
	for path, at := range p.where.at {
		if path != "" {
			out[path] = fmt.Sprintf("%s:%d:%d", name, at.line, at.col)
		}
	}
	return out, nil
}

// syntaxProblem turns "yaml: line 3: …" into a problem with a place.
func syntaxProblem(file string, err error) Problem {
	p := Problem{File: file, Msg: strings.TrimPrefix(err.Error(), "yaml: "), Fix: "the file must be YAML 1.2"}
	var line int
	if n, _ := fmt.Sscanf(p.Msg, "line %d:", &line); n == 1 {
		_, msg, _ := strings.Cut(p.Msg, ": ")
		p.Line, p.Col, p.Msg = line, 1, msg
	}
	return p
}

// parser puts YAML nodes into typed values and notes where each field stood.
type parser struct {
	where    Positions
	problems []Problem
}

// problem notes a problem at a field.
func (p *parser) problem(path, msg, fix string) {
	p.problems = append(p.problems, p.where.Problem(path, msg, fix))
}

func (p *parser) value(n *yaml.Node, path string, v reflect.Value) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	p.where.set(path, n)
	if n.Tag == "!!null" {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		p.mapping(n, path, "a mapping", func(key *yaml.Node, at string, val *yaml.Node) {
			f, ok := fieldOf(v, key.Value)
			if !ok {
				p.where.set(at, key)
				p.problem(at, "unknown field", didYouMean(key.Value, fieldNames(v.Type())))
				return
			}
			p.value(val, at, f)
		})
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		p.mapping(n, path, "a mapping", func(key *yaml.Node, at string, val *yaml.Node) {
			e := reflect.New(v.Type().Elem()).Elem()
			p.value(val, at, e)
			m.SetMapIndex(reflect.ValueOf(key.Value), e)
			if v.Type().Elem().Kind() != reflect.Slice {
				p.where.set(at, key) // the user's own names: what is wrong is most often the name
			}
		})
		v.Set(m)
	case reflect.Slice:
		p.sequence(n, path, v)
	case reflect.Interface:
		p.tree(n, path, v)
	default:
		if err := n.Decode(v.Addr().Interface()); err != nil || n.Kind != yaml.ScalarNode {
			p.problem(path, fmt.Sprintf("want %s, found %s", kindName(v.Kind()), describe(n)), "")
		}
	}
}

// tree takes a value whose shape is somebody else's business. It must be one
// that JSON has, too.
func (p *parser) tree(n *yaml.Node, path string, v reflect.Value) {
	p.where.mark(path, n)
	err := n.Decode(v.Addr().Interface())
	if err == nil {
		_, err = json.Marshal(v.Interface())
	}
	if err != nil {
		p.problem(path, "is not a value of JSON: "+oneLine(err), "use text as keys, each once, and finite numbers")
		v.SetZero()
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func (p *parser) mapping(n *yaml.Node, path, want string, each func(key *yaml.Node, at string, val *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.problem(path, fmt.Sprintf("want %s, found %s", want, describe(n)), "")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := field.Join(path, key.Value)
		if seen[key.Value] {
			p.where.set(at, key)
			p.problem(at, "stands twice", "remove one")
			continue
		}
		seen[key.Value] = true
		each(key, at, n.Content[i+1])
	}
}

func (p *parser) sequence(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		p.problem(path, fmt.Sprintf("want a list, found %s", describe(n)), "")
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		p.value(e, field.Index(path, i), s.Index(i))
	}
	v.Set(s)
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if name := yamlName(v.Type().Field(i)); name == key && name != notInFile {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func fieldNames(t reflect.Type) (out []string) {
	for i := range t.NumField() {
		if name := yamlName(t.Field(i)); name != notInFile {
			out = append(out, name)
		}
	}
	return out
}

// notInFile is how a tag says that a field is not one of the file's.
const notInFile = "-"

func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return k.String()
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// didYouMean names the candidate nearest to word, or all if none is near.
func didYouMean(word string, candidates []string) string {
	if guess := field.DidYouMean(word, candidates); guess != "" {
		return guess
	}
	return "known here: " + strings.Join(candidates, ", ")
}
