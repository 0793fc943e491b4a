package sbom

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// spdx is an SPDX document in the order of its specification, chapters 6 to 11.
type spdx struct {
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID               string         `json:"SPDXID"`
	Name             string         `json:"name"`
	Version          string         `json:"versionInfo,omitempty"`
	FileName         string         `json:"packageFileName,omitempty"`
	Supplier         string         `json:"supplier,omitempty"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	Homepage         string         `json:"homepage,omitempty"`
	Concluded        string         `json:"licenseConcluded"`
	Declared         string         `json:"licenseDeclared"`
	Copyright        string         `json:"copyrightText"`
	Purpose          string         `json:"primaryPackagePurpose,omitempty"`
	Refs             []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// none is what SPDX has for what nobody says.
const none = "NOASSERTION"

var spdxPurpose = map[Kind]string{Deb: "LIBRARY", Program: "APPLICATION", Image: "CONTAINER", Module: "LIBRARY"}

// SPDX renders a bill as an SPDX 2.3 document in JSON.
func SPDX(b Bill) ([]byte, error) {
	name := b.Name + "_" + b.Version
	d := spdx{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://kscratch.dev/spdx/" + name + "-" + b.uuid("spdx"),
		Creation:  spdxCreation{Created: b.Time.UTC().Format(time.RFC3339), Creators: []string{"Tool: kscratch-" + b.Tool}},
		// Its purpose is left open: the specification says OPERATING-SYSTEM, the
		// first schema of 2.3 only took OPERATING_SYSTEM.
		Packages: []spdxPackage{{
			ID: ref(rootID), Name: b.Name, Version: b.Version, DownloadLocation: none,
			Concluded: none, Declared: none, Copyright: none,
		}},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", ref(rootID)}},
	}
	for _, c := range b.Components {
		d.Packages = append(d.Packages, spdxOf(c))
		if c.Kind != Module {
			within := rootID
			if c.Within != "" {
				within = c.Within
			}
			d.Relationships = append(d.Relationships, spdxRelationship{ref(within), "CONTAINS", ref(c.ID)})
		}
		verb := "DEPENDS_ON"
		if c.Kind == Program {
			verb = "CONTAINS" // modules are linked into it
		}
		for _, n := range c.Needs {
			d.Relationships = append(d.Relationships, spdxRelationship{ref(c.ID), verb, ref(n)})
		}
	}
	return render(d)
}

func spdxOf(c Component) spdxPackage {
	p := spdxPackage{
		ID: ref(c.ID), Name: c.Name, Version: c.Version, FileName: c.Path, DownloadLocation: none, Homepage: c.Homepage,
		Concluded: none, Declared: none, Copyright: none, Purpose: spdxPurpose[c.Kind],
		Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", c.PURL}},
	}
	if c.Digest != "" {
		p.Checksums = []spdxChecksum{{"SHA256", c.Digest.Hex()}}
	}
	if name, mail := supplier(c.Supplier); name != "" {
		p.Supplier = "Organization: " + name
		if mail != "" {
			p.Supplier += " (" + mail + ")"
		}
	}
	return p
}

func ref(id string) string { return "SPDXRef-" + id }

var maintainer = regexp.MustCompile(`^(.*?)\s*(?:<([^<>]*)>)?$`)

// supplier splits a name from a mail address.
func supplier(s string) (name, mail string) {
	m := maintainer.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return s, ""
	}
	return strings.Trim(m[1], `"`), m[2]
}

func render(v any) ([]byte, error) {
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, fmt.Errorf("internal error: rendering an SBOM: %w", err)
	}
	return append(out, '\n'), nil
}
