package derive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

var stepOSRelease = Step{
	Name: "os-release",
	Doc:  "IMAGE_ID and IMAGE_VERSION in os-release, and the greeting in /etc/issue and /etc/issue.net",
	Run:  osRelease,
}

func osRelease(_ context.Context, in Input) (Result, error) {
	const p = "usr/lib/os-release"
	if !in.has(p) || in.ImageID == "" && in.ImageVersion == "" {
		return Result{}, nil
	}
	if err := checkImageNames(in.ImageID, in.ImageVersion); err != nil {
		return Result{}, err
	}
	old, err := in.Tree.ReadFile(p)
	if err != nil {
		return Result{}, err
	}
	var out bytes.Buffer
	pretty := ""
	for line := range strings.Lines(string(old)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "PRETTY_NAME" {
			pretty = strings.Trim(v, `"`)
		}
		if k != "IMAGE_ID" && k != "IMAGE_VERSION" {
			out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	if in.ImageID != "" {
		fmt.Fprintf(&out, "IMAGE_ID=%s\n", in.ImageID)
	}
	if in.ImageVersion != "" {
		fmt.Fprintf(&out, "IMAGE_VERSION=%s\n", in.ImageVersion)
	}
	greeting := strings.TrimSpace(cmp.Or(in.ImageID, "kscratch")+" "+in.ImageVersion) + ", " + cmp.Or(pretty, "Debian")
	return Result{Files: []layers.File{
		file(p, 0o644, out.String()),
		file("etc/issue", 0o644, greeting+` \n \l`+"\n\n"),
		file("etc/issue.net", 0o644, greeting+"\n"),
	}}, nil
}

// checkImageNames holds the values to what os-release(5) allows for them:
// lower-case letters, digits, ".", "_", "-" and, in versions, "+" and "~".
func checkImageNames(id, version string) error {
	for _, s := range []string{id, version} {
		for _, c := range s {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", c) && (s == id || !strings.ContainsRune("+~^", c)) {
				return fmt.Errorf("image name %q: %q is not allowed in os-release", s, c)
			}
		}
	}
	return nil
}
