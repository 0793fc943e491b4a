package inspect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/layers"
)

// Secret is something in an image that must not get out. Its content is never
// told.
type Secret struct {
	Path string `json:"path"` // on the node
	Kind string `json:"kind"` // what its content looks like, or "declared"
	Use  string `json:"use"`  // what the build says it is for; empty: it knew nothing of it
}

// maxSecret is the size in bytes of the largest file that is looked through.
const maxSecret = 64 << 10

// What secrets look like. A program that can write a key has such a text in
// it, too, but not on lines of its own with a key behind it.
var (
	privateKey   = looksLike{"PRIVATE KEY-----", regexp.MustCompile(`(?m)^\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----\s*\n\s*[A-Za-z0-9+/=]{16}`)}
	clientKey    = looksLike{"client-key-data", regexp.MustCompile(`(?m)^\s*"?client-key-data"?:\s*"?[A-Za-z0-9+/=]{16}`)}
	bearerToken  = looksLike{"token", regexp.MustCompile(`(?m)^\s*"?token"?:\s*"?[A-Za-z0-9._-]{16}`)}
	registryAuth = looksLike{`"auth"`, regexp.MustCompile(`"auth"\s*:\s*"[A-Za-z0-9+/=]{4}`)}
	passwordHash = looksLike{":$", regexp.MustCompile(`(?m)^[a-z_][a-z0-9_-]*:\$[0-9a-z]+\$`)}
)

// looksLike is a pattern and a text that is in everything it matches: most
// files lack it, and that is seen fast.
type looksLike struct {
	text    string
	pattern *regexp.Regexp
}

// in reports whether the pattern matches.
func (l looksLike) in(b []byte) bool { return bytes.Contains(b, []byte(l.text)) && l.pattern.Match(b) }

// Secrets looks through what the first boot writes and through the small files
// of the root, and compares with what the build declared. Both count: what was
// declared without a secret being found, and what was found without being
// declared.
func (i *Image) Secrets(ctx context.Context) ([]Secret, error) {
	uses := map[string]string{}
	for _, s := range i.Build.Secrets {
		uses[s.Path] = s.Use
	}
	kinds := map[string]string{}
	for _, t := range []*layers.Tree{i.Root, i.Config} {
		for f := range t.Files() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if !f.Mode.IsRegular() || f.Size == 0 || f.Size > maxSecret {
				continue
			}
			b, err := f.Read()
			if err != nil {
				return nil, err
			}
			if kind := kindOf(f.Path, b); kind != "" {
				kinds["/"+f.Path] = kind
			}
		}
	}
	users, err := i.passwords()
	if err != nil {
		return nil, err
	}
	out := []Secret{}
	for p, kind := range kinds {
		out = append(out, Secret{p, kind, uses[p]})
	}
	for p, use := range uses {
		if kinds[p] == "" {
			out = append(out, Secret{p, "declared", use})
		}
	}
	for _, u := range users {
		out = append(out, Secret{"/etc/shadow", "password hash of " + u, ""})
	}
	slices.SortFunc(out, func(a, b Secret) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind)) })
	return out, nil
}

// kindOf says what kind of secret a content is; "" for none.
func kindOf(p string, b []byte) string {
	switch {
	case privateKey.in(b):
		return "private key"
	case clientKey.in(b):
		return "kubeconfig with a client key"
	case bearerToken.in(b) && strings.Contains(p, "kubeconfig"):
		return "kubeconfig with a token"
	case strings.Contains(p, "registries.json") || strings.HasSuffix(p, "config.json"):
		if registryAuth.in(b) {
			return "registry passwords"
		}
	case strings.HasSuffix(p, "etc/shadow") || strings.HasSuffix(p, "etc/shadow-"):
		if passwordHash.in(b) {
			return "password hashes"
		}
	}
	return ""
}

// passwords returns the users to whom the first boot gives a password.
func (i *Image) passwords() ([]string, error) {
	b, err := i.Initrd.ReadFile(ignitionPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c struct {
		Passwd struct {
			Users []struct {
				Name string  `json:"name"`
				Hash *string `json:"passwordHash"`
			} `json:"users"`
		} `json:"passwd"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("reading the users in /%s of the initrd: %w", ignitionPath, err)
	}
	var out []string
	for _, u := range c.Passwd.Users {
		if u.Hash != nil && *u.Hash != "" && *u.Hash != "*" {
			out = append(out, u.Name)
		}
	}
	return out, nil
}
