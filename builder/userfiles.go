package builder

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/ignition/field"
	"github.com/kscratch/kscratch/ignition/pki"
	"github.com/kscratch/kscratch/layers"
)

// userFiles pins the files that decide about an image and are pinned nowhere
// else: Butane files and what they include, patches, the keyring of the
// archive, authorities and passwords of registries. Programs, tarballs and
// image archives of this machine are among a lock's files and images.
func userFiles(s *Spec, keys pki.Set, o Options) ([]UserFile, error) {
	found := map[string]UserFile{}
	var problems []Problem
	add := func(at, name string, secret bool) []byte {
		b, err := o.readFile(name)
		if err != nil {
			problems = append(problems, unreadable(s, at, err))
			return nil
		}
		f := UserFile{Path: name, Digest: layers.DigestOf(b), Keyed: secret}
		if secret {
			if f.Digest, err = keyedDigest(keys, b); err != nil {
				problems = append(problems, unreadable(s, at, err))
			}
		}
		found[name] = f
		return b
	}
	for at, name := range butaneNames(s) {
		b := add(at, name, false)
		for _, l := range ignition.Locals(b, o.includes(name)) {
			path := filepath.Join(filepath.Dir(name), l.Name)
			if l.Link != "" {
				found[path] = UserFile{Path: path, Digest: layers.DigestOf([]byte(l.Link)), Link: l.Link}
				continue
			}
			add(at, path, false)
			if f := found[path]; l.Exec {
				f.Exec = true
				found[path] = f
			}
		}
	}
	for i, p := range s.Manifests.Patches {
		if p.File != "" {
			add(field.Index("manifests.patches", i)+".file", p.File, false)
		}
	}
	if s.Base.Keyring != "" {
		add("base.keyring", s.Base.Keyring, false)
	}
	for i, r := range s.Docker.Registries {
		at := field.Index("docker.registries", i)
		if r.CA != "" {
			add(at+".ca", r.CA, false)
		}
		if r.PasswordFile != "" {
			add(at+".passwordFile", r.PasswordFile, true)
		}
	}
	if len(problems) > 0 {
		slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
		return nil, &SpecError{problems}
	}
	var out []UserFile
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[name])
	}
	return out, nil
}

// butaneNames returns the names of all Butane files by the field that has them.
func butaneNames(s *Spec) map[string]string {
	out := map[string]string{}
	for i, name := range s.Butane {
		out[field.Index("butane", i)] = name
	}
	for role, names := range s.RoleButane {
		for i, name := range names {
			out[field.Index("roleButane."+role, i)] = name
		}
	}
	return out
}

// keyedDigest is HMAC-SHA256 (RFC 2104) of a password. A plain digest in a file
// that everyone may read would let a weak password be found; the key is one
// that whoever builds images has anyway.
func keyedDigest(keys pki.Set, b []byte) (layers.Digest, error) {
	key, err := keys.Bytes(pki.CAKey)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, []byte(layers.DigestOfParts("kscratch lock password", string(key))))
	h.Write(b)
	return layers.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// Stale says why a lock does not fit a spec any more; "" if it does.
func Stale(s *Spec, l *Lock, o Options) (string, error) {
	now, err := inputsOf(s, o)
	if err != nil {
		return "", err
	}
	changes := changedInputs(l.Inputs, now)
	if len(changes) == 0 {
		return "", nil
	}
	return changes[0], nil
}

// changedInputs says in words what is not as it was.
func changedInputs(old, now Inputs) []string {
	var out []string
	for _, in := range []struct {
		changed bool
		what    string
	}{
		{old.Spec != now.Spec || old.Sources != now.Sources, "the cluster file has changed"},
		{old.PKI != now.PKI, "the PKI has changed"},
		{old.Kscratch != now.Kscratch, "it was made by another kscratch"},
	} {
		if in.changed {
			out = append(out, in.what)
		}
	}
	// With another PKI, a keyed digest says nothing.
	was, is := byPath(old.Files), byPath(now.Files)
	for _, path := range sortedKeys(was, is) {
		a, had := was[path]
		b, has := is[path]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("the file %s is new", path))
		case !has:
			out = append(out, fmt.Sprintf("the file %s is not used any more", path))
		case a != b && !(a.Keyed && b.Keyed && old.PKI != now.PKI):
			out = append(out, fmt.Sprintf("the file %s has changed", path))
		}
	}
	return out
}

// sortedKeys returns the keys of both maps, each once.
func sortedKeys[V any](a, b map[string]V) []string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return slices.Sorted(maps.Keys(both))
}

func byPath(files []UserFile) map[string]UserFile {
	out := map[string]UserFile{}
	for _, f := range files {
		out[f.Path] = f
	}
	return out
}
