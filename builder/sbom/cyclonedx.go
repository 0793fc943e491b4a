package sbom

import (
	"slices"
	"time"
)

// cyclonedx is a CycloneDX document.
type cyclonedx struct {
	Schema       string          `json:"$schema"`
	Format       string          `json:"bomFormat"`
	Spec         string          `json:"specVersion"`
	Serial       string          `json:"serialNumber"`
	Version      int             `json:"version"`
	Metadata     cdxMetadata     `json:"metadata"`
	Components   []cdxComponent  `json:"components"`
	Dependencies []cdxDependency `json:"dependencies"`
}

type cdxMetadata struct {
	Timestamp string       `json:"timestamp"`
	Tools     cdxTools     `json:"tools"`
	Component cdxComponent `json:"component"`
}

type cdxTools struct {
	Components []cdxComponent `json:"components"`
}

type cdxComponent struct {
	Type       string        `json:"type"`
	Ref        string        `json:"bom-ref,omitempty"`
	Supplier   *cdxSupplier  `json:"supplier,omitempty"`
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`
	Hashes     []cdxHash     `json:"hashes,omitempty"`
	PURL       string        `json:"purl,omitempty"`
	External   []cdxExternal `json:"externalReferences,omitempty"`
	Properties []cdxProperty `json:"properties,omitempty"`
}

type cdxSupplier struct {
	Name string `json:"name"`
}

type cdxHash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type cdxExternal struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxDependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

var cdxType = map[Kind]string{Deb: "library", Program: "application", Image: "container", Module: "library"}

// CycloneDX renders a bill as a CycloneDX 1.6 document in JSON. Containment is
// a dependency there: the image depends on what it has, a program on the
// modules in it.
func CycloneDX(b Bill) ([]byte, error) {
	d := cyclonedx{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6",
		Serial: "urn:uuid:" + b.uuid("cyclonedx"), Version: 1,
		Metadata: cdxMetadata{
			Timestamp: b.Time.UTC().Format(time.RFC3339),
			Tools:     cdxTools{[]cdxComponent{{Type: "application", Name: "kscratch", Version: b.Tool}}},
			Component: cdxComponent{Type: "operating-system", Ref: rootID, Name: b.Name, Version: b.Version},
		},
	}
	needs := map[string][]string{}
	for _, c := range b.Components {
		d.Components = append(d.Components, cdxOf(c))
		needs[c.ID] = append(needs[c.ID], c.Needs...)
		switch {
		case c.Within != "":
			needs[c.Within] = append(needs[c.Within], c.ID)
		case c.Kind != Module:
			needs[rootID] = append(needs[rootID], c.ID)
		}
	}
	slices.Sort(needs[rootID])
	d.Dependencies = []cdxDependency{{rootID, needs[rootID]}}
	for _, c := range b.Components {
		slices.Sort(needs[c.ID])
		d.Dependencies = append(d.Dependencies, cdxDependency{c.ID, slices.Compact(needs[c.ID])})
	}
	return render(d)
}

func cdxOf(c Component) cdxComponent {
	out := cdxComponent{Type: cdxType[c.Kind], Ref: c.ID, Name: c.Name, Version: c.Version, PURL: c.PURL}
	if name, _ := supplier(c.Supplier); name != "" {
		out.Supplier = &cdxSupplier{name}
	}
	if c.Digest != "" {
		out.Hashes = []cdxHash{{"SHA-256", c.Digest.Hex()}}
	}
	if c.Homepage != "" {
		out.External = []cdxExternal{{"website", c.Homepage}}
	}
	if c.Path != "" {
		out.Properties = []cdxProperty{{"kscratch:path", c.Path}}
	}
	return out
}
