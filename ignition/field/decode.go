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
// have, and all values of a wrong type, sorted by path.
func Decode(v, into any) []Problem {
	b, err := json.Marshal(v)
	if err != nil {
		return []Problem{{Msg: "is not a value of JSON: " + err.Error()}}
	}
	t := reflect.TypeOf(into).Elem()
	unknown, err := kjson.UnmarshalStrict(b, into)
	var out []Problem
	if err != nil {
		var rest any
		out, rest = narrow(v, "", func(v any) error { return decode(v, t) })
		if b, err := json.Marshal(rest); err == nil && rest != nil {
			unknown, _ = kjson.UnmarshalStrict(b, reflect.New(t).Interface()) // it decodes, now
		}
	}
	for _, err := range unknown {
		out = append(out, unknownField(err, t))
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
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
// the first one. The rest is the value without those parts; nil if nothing of it
// is left.
func narrow(v any, path string, decode func(any) error) (out []Problem, rest any) {
	err := decode(v)
	if err == nil {
		return nil, v
	}
	switch v := v.(type) {
	case map[string]any:
		if decode(map[string]any{}) == nil {
			out, rest = narrowMap(v, path, decode)
		} // else there should be no mapping
	case []any:
		if decode([]any{}) == nil {
			out, rest = narrowList(v, path, decode)
		}
	}
	if len(out) == 0 {
		return []Problem{{Path: path, Msg: reason(err)}}, nil
	}
	return out, rest
}

func narrowMap(m map[string]any, path string, decode func(any) error) (out []Problem, rest any) {
	left := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		bad, r := narrow(m[k], Join(path, k), func(e any) error { return decode(map[string]any{k: e}) })
		out = append(out, bad...)
		if r != nil {
			left[k] = r
		}
	}
	return out, left
}

// narrowList leaves out the whole list if an element has to be: the others
// would have other places.
func narrowList(l []any, path string, decode func(any) error) (out []Problem, rest any) {
	left, whole := make([]any, len(l)), true
	for i, e := range l {
		bad, r := narrow(e, Index(path, i), func(e any) error { return decode([]any{e}) })
		out, left[i] = append(out, bad...), r
		whole = whole && (r != nil || len(bad) == 0)
	}
	if !whole {
		return out, nil
	}
	return out, left
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
