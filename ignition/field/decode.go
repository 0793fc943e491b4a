package field

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
)

// Decode reads v into what the pointer into points to, as Kubernetes reads
// JSON: names are case-sensitive. It returns all fields that the type does not
// have, or, where there are values of a wrong type, all those.
func Decode(v, into any) []Problem {
	b, err := json.Marshal(v)
	if err != nil {
		return []Problem{{Msg: "is not a value of JSON: " + err.Error()}}
	}
	t := reflect.TypeOf(into).Elem()
	unknown, err := kjson.UnmarshalStrict(b, into)
	if err != nil {
		return narrow(v, "", func(v any) error { return decode(v, t) })
	}
	var out []Problem
	for _, err := range unknown {
		out = append(out, unknownField(err, t))
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// DecodeJSON parses JSON and reads it as [Decode] does.
func DecodeJSON(b []byte, into any) []Problem {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return []Problem{{Msg: "is not JSON: " + err.Error()}}
	}
	return Decode(v, into)
}

func decode(v any, t reflect.Type) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(b, reflect.New(t).Interface())
}

// narrow finds what of a value cannot be decoded: the smallest parts of it that
// fail alone. The errors of decoders name a place for some types only, and just
// the first one.
func narrow(v any, path string, decode func(any) error) []Problem {
	err := decode(v)
	if err == nil {
		return nil
	}
	var out []Problem
	switch v := v.(type) {
	case map[string]any:
		if decode(map[string]any{}) != nil {
			break // there should be no mapping
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, narrow(v[k], Join(path, k), func(e any) error { return decode(map[string]any{k: e}) })...)
		}
	case []any:
		if decode([]any{}) != nil {
			break // there should be no list
		}
		for i, e := range v {
			out = append(out, narrow(e, Index(path, i), func(e any) error { return decode([]any{e}) })...)
		}
	}
	if len(out) == 0 {
		out = []Problem{{Path: path, Msg: reason(err)}}
	}
	return out
}

func reason(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Sprintf("want %s, found %s", kind(wrong.Type.Kind()), wrong.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func kind(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number of type " + k.String()
}

func unknownField(err error, t reflect.Type) Problem {
	p := Problem{Msg: err.Error()}
	var at kjson.FieldError
	if !errors.As(err, &at) {
		return p
	}
	p.Path, p.Msg = at.FieldPath(), "is no field of "+t.Name()
	parent, last := "", p.Path
	if i := strings.LastIndexByte(p.Path, '.'); i >= 0 {
		parent, last = p.Path[:i], p.Path[i+1:]
	}
	p.Fix = DidYouMean(last, Names(t, parent))
	return p
}
