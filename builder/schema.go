package builder

import (
	"encoding/json"
	"fmt"

	"github.com/invopop/jsonschema"
)

// Schema returns the JSON schema (draft 2020-12) of the cluster file, for
// editors. Every field is optional.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true}
	s := r.Reflect(&Spec{})
	s.Title = "kscratch cluster file"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("internal error: rendering the schema: %w", err)
	}
	return append(b, '\n'), nil
}

// JSONSchema lets an editor take v: 2 as well as v: "2".
func (Flags) JSONSchema() *jsonschema.Schema {
	var scalars []*jsonschema.Schema
	for _, t := range []string{"string", "number", "boolean"} {
		scalars = append(scalars, &jsonschema.Schema{Type: t})
	}
	return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{AnyOf: scalars}}
}
