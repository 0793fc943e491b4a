// Package field says what is wrong with a value, and at which of its fields.
//
// A value is what a YAML or JSON document holds: maps by string, slices,
// strings, numbers, booleans and nil. [Decode] reads one into a Go type and
// takes no field for granted, so that a typo of the user's is an error with a
// place rather than a setting without effect.
package field

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Problem is one thing wrong with a value.
type Problem struct {
	Path string // of the field in the value, such as "containers[0].image"; empty: the whole value
	Msg  string // what is wrong, to be read after the path
	Fix  string // what to do about it; may be empty
}

// String renders the problem as "path: message; fix".
func (p Problem) String() string {
	s := p.Msg
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// Below returns the problem as one of the value that has this one at a path.
func (p Problem) Below(path string) Problem {
	switch {
	case p.Path == "":
		p.Path = path
	case p.Path[0] == '[':
		p.Path = path + p.Path
	default:
		p.Path = Join(path, p.Path)
	}
	return p
}

// Join returns the path of a field of the value at a path.
func Join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// Index returns the path of an element of the list at a path.
func Index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Lookup follows names through maps. It returns how many of them it found, and
// the value at the last of those.
func Lookup(v any, names ...string) (found int, at any) {
	for i, name := range names {
		m, _ := v.(map[string]any)
		e, ok := m[name]
		if !ok {
			return i, v
		}
		v = e
	}
	return len(names), v
}

// Names returns the names that a type has in JSON at a path, sorted; nil where
// the type has no struct there.
func Names(t reflect.Type, path string) []string {
	for part := range strings.SplitSeq(path, ".") {
		part, indexes, _ := strings.Cut(part, "[")
		if t = element(t); part != "" && t.Kind() == reflect.Struct {
			t = named(t, part)
		} else if part != "" {
			t = nil // a map's values; their keys are anybody's
		}
		if t == nil {
			return nil
		}
		for range strings.Count(indexes, "]") {
			if t = element(t); t.Kind() != reflect.Slice {
				return nil
			}
			t = t.Elem()
		}
	}
	if t = element(t); t.Kind() != reflect.Struct {
		return nil
	}
	var out []string
	eachField(t, func(name string, _ reflect.Type) { out = append(out, name) })
	slices.Sort(out)
	return out
}

func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func named(t reflect.Type, want string) (out reflect.Type) {
	eachField(t, func(name string, f reflect.Type) {
		if name == want {
			out = f
		}
	})
	return out
}

// eachField calls do with each field that a struct has in JSON, those of the
// structs inlined into it among them.
func eachField(t reflect.Type, do func(name string, f reflect.Type)) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous && element(f.Type).Kind() == reflect.Struct:
			eachField(element(f.Type), do)
		case name != "":
			do(name, f.Type)
		}
	}
}
