package derive

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/kscratch/kscratch/layers"
)

var stepCerts = Step{
	Name: "certs",
	Doc:  "the CA bundle, its links by name and by OpenSSL's subject hash, and ca-certificates.conf (update-ca-certificates)",
	Run:  certs,
}

const (
	caShared = "usr/share/ca-certificates"
	caLocal  = "usr/local/share/ca-certificates"
	caDir    = "etc/ssl/certs"
)

func certs(_ context.Context, in Input) (Result, error) {
	shared := in.certFiles(caShared)
	all := append(shared, in.certFiles(caLocal)...)
	if len(all) == 0 {
		return Result{}, nil
	}
	var bundle, conf bytes.Buffer
	conf.WriteString("# Certificates of /usr/share/ca-certificates that are trusted; a leading ! distrusts.\n")
	for _, f := range shared {
		fmt.Fprintln(&conf, strings.TrimPrefix(f.Path, caShared+"/"))
	}
	var links []layers.File
	hashes := hashLinks{}
	for _, f := range all {
		b, err := f.Read()
		if err != nil {
			return Result{}, err
		}
		bundle.Write(b)
		if !bytes.HasSuffix(b, []byte("\n")) {
			bundle.WriteByte('\n')
		}
		name := certName(f.Path)
		links = append(links, link(path.Join(caDir, name), "/"+f.Path))
		if err := hashes.add(name, b); err != nil {
			return Result{}, fmt.Errorf("reading /%s: %w", f.Path, err)
		}
	}
	files := append(links, file(caDir+"/ca-certificates.crt", 0o644, bundle.String()))
	files = append(files, in.unlessThere(file("etc/ca-certificates.conf", 0o644, conf.String()))...)
	return Result{Files: append(files, hashes.files()...)}, nil
}

func (in Input) certFiles(dir string) []layers.File {
	var out []layers.File
	for f := range in.Tree.Under(dir) {
		if f.Mode.IsRegular() && strings.HasSuffix(f.Path, ".crt") {
			out = append(out, f)
		}
	}
	return out
}

// certName is the name of a certificate's link, as update-ca-certificates
// forms it.
func certName(p string) string {
	r := strings.NewReplacer(" ", "_", "(", "=", ")", "=", ",", "_")
	return r.Replace(strings.TrimSuffix(path.Base(p), ".crt")) + ".pem"
}

// hashLinks collects, by subject hash, the names of the certificates with that
// hash. OpenSSL looks for <hash>.0, <hash>.1, … in a directory.
type hashLinks map[string][]hashedCert

type hashedCert struct {
	name  string
	print [sha256.Size]byte
}

// add notes a file with one certificate; openssl rehash passes over others.
func (h hashLinks) add(name string, b []byte) error {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("no PEM certificate")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	hash, err := subjectHash(c.RawSubject)
	if err != nil {
		return err
	}
	h[hash] = append(h[hash], hashedCert{name, sha256.Sum256(c.Raw)})
	return nil
}

func (h hashLinks) files() []layers.File {
	var out []layers.File
	for hash, certs := range h {
		slices.SortFunc(certs, func(a, b hashedCert) int { return strings.Compare(a.name, b.name) })
		seen := map[[sha256.Size]byte]bool{}
		for _, c := range certs {
			if !seen[c.print] {
				out = append(out, link(fmt.Sprintf("%s/%s.%d", caDir, hash, len(seen)), c.name))
			}
			seen[c.print] = true
		}
	}
	slices.SortFunc(out, func(a, b layers.File) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// subjectHash returns the eight hexadecimal digits of OpenSSL's
// X509_NAME_hash for a DER-encoded name: the first four bytes, read as a
// little-endian number, of the SHA-1 of the canonical name. In the canonical
// name each string is a UTF8String in lower case (ASCII letters only) with
// blanks trimmed and runs of them made one, and the outer SEQUENCE has no
// header.
func subjectHash(rawName []byte) (string, error) {
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(rawName, &rdns); err != nil {
		return "", fmt.Errorf("reading subject: %w", err)
	}
	sum := sha1.New()
	for _, rdn := range rdns {
		c, err := canonicalRDN(rdn.FullBytes)
		if err != nil {
			return "", fmt.Errorf("reading subject: %w", err)
		}
		sum.Write(c)
	}
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum.Sum(nil))), nil
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func canonicalRDN(der []byte) ([]byte, error) {
	var attrs []attribute
	if _, err := asn1.UnmarshalWithParams(der, &attrs, "set"); err != nil {
		return nil, err
	}
	var set [][]byte
	for _, a := range attrs {
		v, err := canonicalValue(a.Value)
		if err != nil {
			return nil, err
		}
		b, err := asn1.Marshal(attribute{a.Type, v})
		if err != nil {
			return nil, err
		}
		set = append(set, b)
	}
	slices.SortFunc(set, bytes.Compare) // DER: the elements of a SET OF are in order
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(set, nil)})
}

// Tags of string types that encoding/asn1 has no name for.
const (
	tagVisible   = 26
	tagUniversal = 28
)

// canonicalValue converts the string types; other values stay as they are.
func canonicalValue(v asn1.RawValue) (asn1.RawValue, error) {
	var s string
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, tagVisible:
		s = string(v.Bytes)
	case asn1.TagT61String: // taken for Latin-1, as OpenSSL does
		r := make([]rune, len(v.Bytes))
		for i, c := range v.Bytes {
			r[i] = rune(c)
		}
		s = string(r)
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return v, fmt.Errorf("BMPString of %d bytes", len(v.Bytes))
		}
		u := make([]uint16, len(v.Bytes)/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		s = string(utf16.Decode(u))
	case tagUniversal:
		if len(v.Bytes)%4 != 0 {
			return v, fmt.Errorf("UniversalString of %d bytes", len(v.Bytes))
		}
		for i := 0; i < len(v.Bytes); i += 4 {
			s += string(rune(binary.BigEndian.Uint32(v.Bytes[i:])))
		}
	default:
		return asn1.RawValue{FullBytes: v.FullBytes}, nil
	}
	return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: canonicalString(s)}, nil
}

func canonicalString(s string) []byte {
	space := func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) }
	b := []byte(strings.Join(strings.FieldsFunc(s, space), " "))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}
