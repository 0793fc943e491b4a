package derive

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// cert returns a self-signed certificate; serial tells two of one subject
// apart. Nothing here looks at the key or the signature.
func cert(t testing.TB, subject pkix.Name, serial int64) string {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: subject, NotAfter: time.Unix(2_000_000_000, 0)}
	der, err := x509.CreateCertificate(nil, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

var acme = pkix.Name{Country: []string{"DE"}, Organization: []string{"  ACME   Ltd "}, CommonName: "Root Ä"}

func certTree(t testing.TB) string {
	line := func(p, s string) string { return p + " = " + strings.ReplaceAll(s, "\n", `\n`) + "\n" }
	a, b := cert(t, acme, 1), cert(t, acme, 2)
	return line("usr/share/ca-certificates/mozilla/A_(b),c.crt", a) +
		line("usr/share/ca-certificates/mozilla/B.crt", strings.TrimSuffix(b, "\n")) +
		line("usr/local/share/ca-certificates/two.crt", a+b) +
		line("usr/local/share/ca-certificates/again.crt", a) +
		line("usr/share/ca-certificates/README", "no")
}

func TestCerts(t *testing.T) {
	got, changes, err := runStep(t, stepCerts, tree(t, certTree(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := `+ etc/ca-certificates.conf 0644 0:0 = # Certificates of /usr/share/ca-certificates that are trusted; a leading ! distrusts.\nmozilla/A_(b),c.crt\nmozilla/B.crt\n
+ etc/ssl/certs/A_=b=_c.pem -> /usr/share/ca-certificates/mozilla/A_(b),c.crt
+ etc/ssl/certs/B.pem -> /usr/share/ca-certificates/mozilla/B.crt
+ etc/ssl/certs/HASH.0 -> A_=b=_c.pem
+ etc/ssl/certs/HASH.1 -> B.pem
+ etc/ssl/certs/again.pem -> /usr/local/share/ca-certificates/again.crt
+ etc/ssl/certs/ca-certificates.crt 0644 0:0 = …
+ etc/ssl/certs/two.pem -> /usr/local/share/ca-certificates/two.crt
`
	if changes = sortedLines(strings.ReplaceAll(changes, acmeHash, "HASH")); changes != sortedLines(want) {
		t.Errorf("changes:\n%s\nwant:\n%s", changes, want)
	}
	b, err := got.ReadFile("etc/ssl/certs/ca-certificates.crt")
	if n := strings.Count(string(b), "-----BEGIN CERTIFICATE-----\n"); err != nil || n != 5 {
		t.Errorf("%d certificates in the bundle, %v; want 5", n, err)
	}
}

func sortedLines(s string) string {
	lines := strings.SplitAfter(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// The subject hash of acme, as openssl x509 -hash prints it.
const acmeHash = "b75e1059"

func TestCanonicalString(t *testing.T) {
	for in, want := range map[string]string{
		"Abc": "abc", "  a \t B ": "a b", "": "", "ÄÖ x": "ÄÖ x", " ": "",
	} {
		if got := string(canonicalString(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestCanonicalValue(t *testing.T) {
	for _, tt := range []struct {
		tag      int
		in, want string // hexadecimal in, text out
	}{
		{asn1.TagPrintableString, "4142", "ab"},
		{asn1.TagT61String, "c4", "Ä"},
		{asn1.TagBMPString, "004100c4d83dde00", "aÄ😀"},
		{tagUniversal, "0000004100000042", "ab"},
	} {
		b, err := hex.DecodeString(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		v, err := canonicalValue(asn1.RawValue{Tag: tt.tag, Bytes: b})
		if err != nil || v.Tag != asn1.TagUTF8String || string(v.Bytes) != tt.want {
			t.Errorf("tag %d of %s is %q, %v; want %q", tt.tag, tt.in, v.Bytes, err, tt.want)
		}
	}
	for _, tag := range []int{asn1.TagBMPString, tagUniversal} {
		if _, err := canonicalValue(asn1.RawValue{Tag: tag, Bytes: []byte("abc")}); err == nil {
			t.Errorf("tag %d of three bytes was taken", tag)
		}
	}
}

func FuzzSubjectHash(f *testing.F) {
	for _, n := range []pkix.Name{acme, {CommonName: "x"}, {}} {
		b, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := subjectHash(b); err == nil && len(h) != 8 {
			t.Errorf("hash %q", h)
		}
	})
}

func FuzzPAMProfile(f *testing.F) {
	f.Add("Name: x\nPriority: 3\nAuth-Type: Primary\nAuth:\n\t[success=end]\tpam_x.so  a b\n\nrequired x\n")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePAMProfile("x", []byte(s))
		if err == nil {
			renderPAM("x\n"+pamPrimary+"\n"+pamFallback+"\n"+pamAdditional+"\n", "Auth", []pamProfile{p})
		}
	})
}
