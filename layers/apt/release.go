package apt

import (
	"bytes"
	"context"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/deb"
	"github.com/kscratch/kscratch/layers/fetch"
)

// keyFiles are the keys of the Debian archive; keys/README.md says which and
// from where.
//
//go:embed keys/*.asc
var keyFiles embed.FS

func debianKeys() []byte {
	var all []byte
	for _, n := range []string{"stable", "automatic", "security-automatic"} {
		b, err := keyFiles.ReadFile("keys/trixie-" + n + ".asc")
		if err != nil {
			panic("internal error: " + err.Error()) // embedded, so it is there
		}
		all = append(all, b...)
	}
	return all
}

const (
	maxRelease    = 16 << 20      // bytes of an InRelease file; trixie's has 0.2 MB
	maxSignatures = 16            // on an InRelease file
	maxKeys       = 64            // in a set of keys
	maxAhead      = 1 * time.Hour // by which the mirror's clock may be ahead of ours
)

// VerifyError says that an index cannot be trusted.
type VerifyError struct {
	Suite string
	Err   error
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("verifying InRelease of %s: %v", e.Suite, e.Err)
}

func (e *VerifyError) Unwrap() error { return e.Err }

type keyring = openpgp.EntityList

// readKeys reads binary keys, or any number of armoured blocks of them.
func readKeys(b []byte) (keyring, error) {
	const begin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	if !bytes.Contains(b, []byte(begin)) {
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("reading OpenPGP keys: %w", err)
		}
		return keys, nil
	}
	var all keyring
	for _, block := range bytes.Split(b, []byte(begin))[1:] {
		keys, err := openpgp.ReadArmoredKeyRing(io.MultiReader(strings.NewReader(begin), bytes.NewReader(block)))
		if err != nil {
			return nil, fmt.Errorf("reading OpenPGP key %d: %w", len(all)+1, err)
		}
		if all = append(all, keys...); len(all) > maxKeys {
			return nil, fmt.Errorf("reading OpenPGP keys: more than %d", maxKeys)
		}
	}
	return all, nil
}

// release fetches, verifies and reads the InRelease file of a suite.
func (op opener) release(ctx context.Context, s Suite) (Release, error) {
	u, err := op.mirror.url(s.Archive, path.Join("dists", s.Name, "InRelease"))
	if err != nil {
		return Release{}, err
	}
	var raw bytes.Buffer
	if err := fetch.Get(ctx, u, &raw, maxRelease, op.o.Fetch); err != nil {
		return Release{}, fmt.Errorf("fetching InRelease: %w", err)
	}
	r, err := readRelease(raw.Bytes(), s, op.keys, op.now, op.o.IgnoreValidUntil)
	if err != nil {
		return Release{}, &VerifyError{s.Name, err}
	}
	_, err = op.store.Fetch(ctx, r.Digest, func(_ context.Context, w io.Writer) error {
		_, err := w.Write(raw.Bytes())
		return err
	})
	return r, err
}

func readRelease(raw []byte, s Suite, keys keyring, now time.Time, late bool) (Release, error) {
	text, signers, err := verify(raw, keys, now)
	if err != nil {
		return Release{}, err
	}
	r, err := parseRelease(text, s)
	if err != nil {
		return Release{}, err
	}
	r.Digest, r.Signers = layers.DigestOf(raw), signers
	return r, r.checkDates(now, late)
}

// verify returns the signed text of a clear-signed message and the
// fingerprints of the keys that signed it. One good signature is enough: a
// suite is signed by the keys of several Debian releases.
func verify(raw []byte, keys keyring, now time.Time) (text []byte, signers []string, err error) {
	block, rest := clearsign.Decode(raw)
	if block == nil {
		return nil, nil, errors.New("is not a clear-signed OpenPGP message")
	}
	// Text outside of the signed part would not be covered by the signature.
	if !bytes.HasPrefix(raw, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("has text outside of the signed part")
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	packets := packet.NewReader(block.ArmoredSignature.Body)
	err = errors.New("has no signature")
	for range maxSignatures {
		p, perr := packets.Next()
		if perr != nil {
			break // the end, or what cannot be read and so does not count
		}
		sig, ok := p.(*packet.Signature)
		if !ok {
			continue
		}
		signer, serr := check(block.Bytes, sig, keys, config)
		if serr != nil {
			err = serr
			continue
		}
		signers = append(signers, strings.ToUpper(hex.EncodeToString(signer.PrimaryKey.Fingerprint)))
	}
	if len(signers) == 0 {
		return nil, nil, fmt.Errorf("no good signature by a known key: %w", err)
	}
	slices.Sort(signers)
	return block.Bytes, slices.Compact(signers), nil
}

func check(text []byte, sig *packet.Signature, keys keyring, config *packet.Config) (*openpgp.Entity, error) {
	var b bytes.Buffer
	if err := sig.Serialize(&b); err != nil {
		return nil, err
	}
	_, signer, err := openpgp.VerifyDetachedSignature(keys, bytes.NewReader(text), &b, config)
	return signer, err
}

// sum is the digest and size of a file that a release lists.
type sum struct {
	digest layers.Digest
	size   int64
}

// parseRelease reads the signed text of a suite's release.
func parseRelease(text []byte, s Suite) (Release, error) {
	var p deb.Paragraph
	for q, err := range deb.Paragraphs(bytes.NewReader(text)) {
		if err != nil {
			return Release{}, err
		}
		if p != nil {
			return Release{}, errors.New("has more than one paragraph")
		}
		p = q
	}
	if n := p.Get("Codename"); n != s.Name && p.Get("Suite") != s.Name {
		return Release{}, fmt.Errorf("is of the suite %q (%q), want %q", n, p.Get("Suite"), s.Name)
	}
	r := Release{Suite: s.Name, Archive: s.Archive, Version: p.Get("Version"), acquireByHash: p.Get("Acquire-By-Hash") == "yes"}
	var err error
	if r.Date, err = parseDate(p.Get("Date")); err != nil {
		return Release{}, fmt.Errorf("reading Date: %w", err)
	}
	if v := p.Get("Valid-Until"); v != "" {
		if r.ValidUntil, err = parseDate(v); err != nil {
			return Release{}, fmt.Errorf("reading Valid-Until: %w", err)
		}
	}
	if r.sums, err = parseSums(p.Get("SHA256")); err != nil {
		return Release{}, fmt.Errorf("reading SHA256: %w", err)
	}
	return r, nil
}

// parseDate reads a date as RFC 2822 writes it, in UTC.
func parseDate(s string) (time.Time, error) {
	for _, zone := range []string{"UTC", "+0000", "GMT"} {
		if v, ok := strings.CutSuffix(s, " "+zone); ok {
			t, err := time.Parse("Mon, _2 Jan 2006 15:04:05", v)
			if err != nil {
				return time.Time{}, fmt.Errorf("%q is not a date", s)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date in UTC", s)
}

// parseSums reads lines of digest, size and path.
func parseSums(s string) (map[string]sum, error) {
	out := map[string]sum{}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %q: want digest, size and path", strings.TrimSpace(line))
		}
		d := layers.Digest("sha256:" + f[0])
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err := errors.Join(err, d.Check()); err != nil || size < 0 || !fs.ValidPath(f[2]) {
			return nil, fmt.Errorf("line %q: not a digest, a size and a path", strings.TrimSpace(line))
		}
		out[f[2]] = sum{d, size}
	}
	return out, nil
}

func (r Release) checkDates(now time.Time, late bool) error {
	if r.Date.After(now.Add(maxAhead)) {
		return fmt.Errorf("its date %s lies in the future (now is %s): is a clock wrong?", stamp(r.Date), stamp(now))
	}
	if !late && !r.ValidUntil.IsZero() && now.After(r.ValidUntil) {
		return fmt.Errorf("it was valid until %s (now is %s): the mirror is out of date, or a clock is wrong", stamp(r.ValidUntil), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
