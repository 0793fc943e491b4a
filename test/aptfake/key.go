package aptfake

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// keyDate is when the key was made and when every signature is. It lies before
// any date that a test has reason to use.
var keyDate = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

type signer struct {
	entity *openpgp.Entity
	config *packet.Config
}

// newKey makes the one key of this package, always the same.
func newKey() (signer, error) {
	plain := false // no random notation in signatures
	c := &packet.Config{
		Rand:                                  rand.NewChaCha8([32]byte([]byte("kscratch test archive, worthless"))),
		Time:                                  func() time.Time { return keyDate },
		Algorithm:                             packet.PubKeyAlgoEdDSA,
		NonDeterministicSignaturesViaNotation: &plain,
	}
	e, err := openpgp.NewEntity("kscratch test archive", "", "test@example.invalid", c)
	if err != nil {
		return signer{}, fmt.Errorf("making key: %w", err)
	}
	return signer{e, c}, nil
}

// Keys returns the public key of every archive of this package, armoured.
func Keys() ([]byte, error) {
	k, err := newKey()
	if err != nil {
		return nil, err
	}
	return armoured(openpgp.PublicKeyType, k.entity.Serialize)
}

func armoured(kind string, write func(io.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	if err != nil {
		return nil, err
	}
	if err := write(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func (s signer) clearsign(text string) ([]byte, error) {
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, s.entity.PrivateKey, s.config)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
