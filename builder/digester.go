package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/layers"
)

var zeroBlock [64 << 10]byte

// digester computes the digest of a file from the parts that are not zero, in
// the order of their place.
type digester struct {
	h  hash.Hash
	at int64
}

func newDigester() *digester { return &digester{h: sha256.New()} }

// add takes the bytes at off; what lies between them and the last ones is zero.
func (d *digester) add(b []byte, off int64) {
	d.zeros(off)
	d.h.Write(b)
	d.at += int64(len(b))
}

func (d *digester) zeros(to int64) {
	for d.at < to {
		n := min(to-d.at, int64(len(zeroBlock)))
		d.h.Write(zeroBlock[:n])
		d.at += n
	}
}

// addAll takes what a source has, which begins at off.
func (d *digester) addAll(ctx context.Context, src blocks.Source, off int64, task Task) error {
	return blocks.Each(ctx, src, 1<<20, nil, func(c *blocks.Chunk) error {
		d.add(c.Data, off+c.Off)
		task.Add(int64(len(c.Data)))
		return nil
	})
}

// sum returns the digest of a file of so many bytes.
func (d *digester) sum(size int64) layers.Digest {
	d.zeros(size)
	return layers.Digest("sha256:" + hex.EncodeToString(d.h.Sum(nil)))
}
