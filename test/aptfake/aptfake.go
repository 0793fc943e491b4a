// Package aptfake makes small, signed Debian archives for tests: the main and
// the security archive with suites trixie, trixie-updates and trixie-security,
// over HTTP ([New]) or as files ([Write]). A test then runs against the real
// client, with packages that it describes in a few lines.
//
// Everything is deterministic, signatures included: the same packages give the
// same bytes, so that digests may stand in golden files. The key comes from a
// fixed seed in this source and protects nothing.
//
// See the Debian repository format, https://wiki.debian.org/DebianRepository/Format.
// Not supported: source packages, Contents and translations, diffs, several
// architectures.
package aptfake

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Date is the date of every Release file unless the settings give another.
var Date = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)

// The suites of the archive; a package is in "trixie" unless it says otherwise.
const (
	Trixie   = "trixie"
	Updates  = "trixie-updates"
	Security = "trixie-security"
)

// Settings describes an archive. The zero value is an empty one.
type Settings struct {
	Debs       []Deb
	Date       time.Time // of the Release files; zero means [Date]
	ValidUntil time.Time // of the Release files; zero leaves it out

	// Compress lists the forms in which Packages is there: "", ".gz" or
	// ".xz". None means only "", so that no digest depends on a compressor.
	Compress []string

	// Release changes a Release file before it is signed. It may be nil.
	Release func(suite, text string) string
}

// Files returns the archive: content by path. The paths begin with "debian/"
// or "debian-security/".
func (s Settings) Files() (map[string][]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, suite := range []string{Trixie, Updates, Security} {
		if err := s.addSuite(out, suite, key); err != nil {
			return nil, fmt.Errorf("making suite %s: %w", suite, err)
		}
	}
	return out, nil
}

func (s Settings) addSuite(out map[string][]byte, suite string, key signer) error {
	root := rootOf(suite)
	var packages bytes.Buffer
	for _, d := range s.Debs {
		d = d.withDefaults()
		if d.Suite != suite {
			continue
		}
		b, err := d.Bytes()
		if err != nil {
			return fmt.Errorf("making package %s: %w", d.Name, err)
		}
		out[root+"/"+d.Filename()] = b
		fmt.Fprintf(&packages, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", d.control(), d.Filename(), len(b), sha256.Sum256(b))
	}
	index, err := s.compressed(packages.Bytes())
	if err != nil {
		return err
	}
	// Release lists the uncompressed form even where it is not served; apt
	// insists.
	listed := maps.Clone(index)
	listed[""] = packages.Bytes()
	text := s.release(suite, listed)
	if s.Release != nil {
		text = s.Release(suite, text)
	}
	signed, err := key.clearsign(text)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	dists := root + "/dists/" + suite + "/"
	out[dists+"InRelease"] = signed
	for ext, b := range index {
		out[dists+"main/binary-amd64/Packages"+ext] = b
		out[dists+"main/binary-amd64/by-hash/SHA256/"+fmt.Sprintf("%x", sha256.Sum256(b))] = b
	}
	return nil
}

func rootOf(suite string) string {
	if suite == Security {
		return "debian-security"
	}
	return "debian"
}

// compressed returns the forms of Packages by file name extension.
func (s Settings) compressed(b []byte) (map[string][]byte, error) {
	exts := s.Compress
	if len(exts) == 0 {
		exts = []string{""}
	}
	out := map[string][]byte{}
	for _, ext := range exts {
		c, err := Compress(ext, b)
		if err != nil {
			return nil, err
		}
		out[ext] = c
	}
	return out, nil
}

func (s Settings) release(suite string, index map[string][]byte) string {
	var b strings.Builder
	date := s.Date
	if date.IsZero() {
		date = Date
	}
	fmt.Fprintf(&b, "Origin: Debian\nLabel: Debian\nSuite: %s\nCodename: %s\n", strings.Replace(suite, "trixie", "stable", 1), suite)
	fmt.Fprintf(&b, "Date: %s\n", releaseDate(date))
	if !s.ValidUntil.IsZero() {
		fmt.Fprintf(&b, "Valid-Until: %s\n", releaseDate(s.ValidUntil))
	}
	b.WriteString("Acquire-By-Hash: yes\nArchitectures: all amd64\nComponents: main\nDescription: made for a test\nSHA256:\n")
	for _, ext := range slices.Sorted(maps.Keys(index)) {
		fmt.Fprintf(&b, " %x %d main/binary-amd64/Packages%s\n", sha256.Sum256(index[ext]), len(index[ext]), ext)
	}
	return b.String()
}

// releaseDate writes a time as Release files do.
func releaseDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC") }

// Compress returns b in the form that a file name extension stands for.
func Compress(ext string, b []byte) ([]byte, error) {
	var out bytes.Buffer
	switch ext {
	case "":
		return b, nil
	case ".gz":
		w := gzip.NewWriter(&out)
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		err := w.Close()
		return out.Bytes(), err
	case ".xz":
		w, err := xz.NewWriter(&out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		err = w.Close()
		return out.Bytes(), err
	case ".zst":
		w, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(b, nil), w.Close()
	}
	return nil, fmt.Errorf("compression %q is not supported", ext)
}

// Write makes the archive in dir, for file URLs: the main archive is
// "file://<dir>/debian", the security archive "file://<dir>/debian-security".
// It returns the public key, armoured.
func Write(dir string, debs ...Deb) (keys []byte, err error) {
	return Settings{Debs: debs}.Write(dir)
}

// Write is [Write] for an archive with settings of its own.
func (s Settings) Write(dir string) (keys []byte, err error) {
	files, err := s.Files()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("writing archive: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("writing archive: %w", err)
	}
	defer root.Close()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if err := root.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return nil, fmt.Errorf("writing archive: %w", err)
		}
		if err := root.WriteFile(p, files[p], 0o644); err != nil {
			return nil, fmt.Errorf("writing archive: %w", err)
		}
	}
	return Keys()
}
