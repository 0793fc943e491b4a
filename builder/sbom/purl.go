package sbom

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// purl renders a package URL. Qualifiers without a value are left out.
// https://github.com/package-url/purl-spec, PURL-SPECIFICATION, "Rules for each
// component": names of type golang and oci are in lower case.
func purl(kind, namespace, name, version string, qualifiers map[string]string) string {
	var b strings.Builder
	b.WriteString("pkg:" + kind)
	for part := range strings.SplitSeq(namespace, "/") {
		if part != "" {
			b.WriteString("/" + escape(part))
		}
	}
	b.WriteString("/" + escape(name))
	if version != "" {
		b.WriteString("@" + escape(version))
	}
	mark := "?"
	for _, key := range slices.Sorted(maps.Keys(qualifiers)) {
		if v := qualifiers[key]; v != "" {
			b.WriteString(mark + key + "=" + escape(v))
			mark = "&"
		}
	}
	return b.String()
}

// golang returns the package URL of a Go module.
func golang(path, version string) string {
	path = strings.ToLower(path)
	i := strings.LastIndexByte(path, '/')
	return purl("golang", path[:max(i, 0)], path[i+1:], version, nil)
}

// escape encodes what is neither a letter or digit nor one of . - _ ~ and :,
// as the specification's section on character encoding has it.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_~:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
