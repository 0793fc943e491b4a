// Package verity writes and checks dm-verity hash trees, by which the kernel
// proves each block it reads from a partition against one root hash.
//
// The format is the one of veritysetup(8): a superblock of version 1, then the
// tree with its root first, hash type 1, SHA-256, data and hash blocks of 4096
// bytes. See https://docs.kernel.org/admin-guide/device-mapper/verity.html and
// https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity.
//
// Leaves are hashed on all cores: either with [Write], which reads the data
// back, or with a [Hasher], which hashes the stream while it is written. Memory
// is 32 bytes per data block (8 MiB per GiB) and a fixed number of buffers.
//
// It does not support other hashes or block sizes, hash type 0, hash areas on
// the data device, forward error correction or root hash signatures.
//
// github.com/containerd/go-dmverity was tried first. It takes device paths
// instead of readers, so a partition inside of a disk file cannot be hashed,
// works on one core, and issues a write call for each 32 byte digest.
package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// BlockSize is the size of data and hash blocks in bytes.
const BlockSize = 4096

const (
	digestSize     = sha256.Size
	perBlock       = BlockSize / digestSize
	superblockSize = 512
	maxSalt        = 256
	// maxLevels is the kernel's bound DM_VERITY_MAX_LEVELS; 128^9 blocks
	// are more than an int64 of bytes anyway.
	maxLevels = 63
	// maxTree bounds what Verify reads into memory, in bytes: a tree for
	// 128 GiB of data.
	maxTree = 1 << 30
)

// Hash is a root hash.
type Hash [digestSize]byte

// String returns h in hexadecimal, as the kernel argument roothash= has it.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// UUIDs returns the two halves of h. The Discoverable Partitions Specification
// has the first as the UUID of the data partition, the second as the one of the
// hash partition.
func (h Hash) UUIDs() (data, hash [16]byte) {
	return [16]byte(h[:16]), [16]byte(h[16:])
}

// Options are the parameters of a hash tree. The zero value is a tree without
// salt whose superblock has a UUID of zeros.
type Options struct {
	Salt []byte   // put before each block; at most 256 bytes
	UUID [16]byte // of the superblock
}

func (o Options) check(size int64) error {
	switch {
	case len(o.Salt) > maxSalt:
		return fmt.Errorf("salt of %d bytes: at most %d are possible", len(o.Salt), maxSalt)
	case size <= 0 || size%BlockSize != 0:
		return fmt.Errorf("data of %d bytes: not a positive multiple of %d", size, BlockSize)
	}
	return nil
}

// HashSize returns the size in bytes of the superblock and the tree for data of
// a size, which is a positive multiple of [BlockSize].
func HashSize(size int64) int64 {
	total := int64(BlockSize)
	for _, n := range levels(size / BlockSize) {
		total += n * BlockSize
	}
	return total
}

// levels returns the number of blocks of each level of the tree over n data
// blocks, the level over the data first. One block needs no tree.
func levels(n int64) []int64 {
	var ls []int64
	for n > 1 {
		n = (n + perBlock - 1) / perBlock
		ls = append(ls, n)
	}
	return ls
}

// Write reads size bytes of data and writes superblock and tree to hash, from
// offset 0. It returns the root hash and the number of bytes written. Cores are
// used as GOMAXPROCS says.
func Write(ctx context.Context, data io.ReaderAt, size int64, hash io.WriterAt, o Options) (Hash, int64, error) {
	if err := o.check(size); err != nil {
		return Hash{}, 0, fmt.Errorf("writing verity tree: %w", err)
	}
	leaves, err := readLeaves(ctx, data, size, o.Salt)
	if err != nil {
		return Hash{}, 0, err
	}
	return writeTree(hash, leaves, o)
}

// writeTree writes superblock and tree over the digests of all data blocks.
func writeTree(w io.WriterAt, leaves []byte, o Options) (Hash, int64, error) {
	blocks := int64(len(leaves) / digestSize)
	size := HashSize(blocks * BlockSize)
	end := size
	digests := leaves
	for _, n := range levels(blocks) {
		end -= n * BlockSize
		level := padded(digests, n)
		if _, err := w.WriteAt(level, end); err != nil {
			return Hash{}, 0, fmt.Errorf("writing verity tree: %w", err)
		}
		digests = hashBlocks(nil, level, o.Salt)
	}
	sb := superblock(blocks, o)
	if _, err := w.WriteAt(sb, 0); err != nil {
		return Hash{}, 0, fmt.Errorf("writing verity superblock: %w", err)
	}
	return Hash(digests[:digestSize]), size, nil
}

// padded returns b filled up with zeros to n blocks.
func padded(b []byte, n int64) []byte {
	if int64(len(b)) == n*BlockSize {
		return b
	}
	out := make([]byte, n*BlockSize)
	copy(out, b)
	return out
}

// hashBlocks appends the digest of each block of b to dst.
func hashBlocks(dst, b, salt []byte) []byte {
	h := sha256.New()
	for ; len(b) > 0; b = b[BlockSize:] {
		h.Reset()
		h.Write(salt)
		h.Write(b[:BlockSize])
		dst = h.Sum(dst)
	}
	return dst
}

var signature = []byte("verity\x00\x00")

// superblock returns the first hash block: struct verity_sb of cryptsetup's
// lib/verity/verity.c, little endian, and zeros.
func superblock(blocks int64, o Options) []byte {
	b := make([]byte, BlockSize)
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[8:], 1)  // version
	binary.LittleEndian.PutUint32(b[12:], 1) // hash type: salt comes first
	copy(b[16:32], o.UUID[:])
	copy(b[32:64], "sha256")
	binary.LittleEndian.PutUint32(b[64:], BlockSize)
	binary.LittleEndian.PutUint32(b[68:], BlockSize)
	binary.LittleEndian.PutUint64(b[72:], uint64(blocks))
	binary.LittleEndian.PutUint16(b[80:], uint16(len(o.Salt)))
	copy(b[88:], o.Salt)
	return b
}

// Superblock says what a hash tree is made for.
type Superblock struct {
	UUID     [16]byte
	Salt     []byte
	DataSize int64 // bytes that the tree covers
}

// ReadSuperblock reads the superblock at the start of a hash partition. A
// superblock of a format that this package does not support is an error.
func ReadSuperblock(hash io.ReaderAt) (Superblock, error) {
	b := make([]byte, superblockSize)
	if n, err := hash.ReadAt(b, 0); n < len(b) {
		return Superblock{}, fmt.Errorf("reading verity superblock: %w", err)
	}
	sb, err := parseSuperblock(b)
	if err != nil {
		return Superblock{}, fmt.Errorf("reading verity superblock: %w", err)
	}
	return sb, nil
}

func parseSuperblock(b []byte) (Superblock, error) {
	u32 := binary.LittleEndian.Uint32
	blocks := binary.LittleEndian.Uint64(b[72:])
	salt := int(binary.LittleEndian.Uint16(b[80:]))
	switch {
	case !bytes.Equal(b[:8], signature):
		return Superblock{}, errors.New("no verity signature")
	case u32(b[8:]) != 1 || u32(b[12:]) != 1:
		return Superblock{}, fmt.Errorf("version %d with hash type %d is not supported, only 1 with 1", u32(b[8:]), u32(b[12:]))
	case string(bytes.TrimRight(b[32:64], "\x00")) != "sha256":
		return Superblock{}, fmt.Errorf("hash %q is not supported, only sha256", bytes.TrimRight(b[32:64], "\x00"))
	case u32(b[64:]) != BlockSize || u32(b[68:]) != BlockSize:
		return Superblock{}, fmt.Errorf("block sizes %d and %d are not supported, only %d", u32(b[64:]), u32(b[68:]), BlockSize)
	case salt > maxSalt:
		return Superblock{}, fmt.Errorf("salt of %d bytes: at most %d are possible", salt, maxSalt)
	case blocks == 0 || blocks > 1<<50:
		return Superblock{}, fmt.Errorf("%d data blocks are not supported", blocks)
	}
	return Superblock{
		UUID:     [16]byte(b[16:32]),
		Salt:     bytes.Clone(b[88 : 88+salt]),
		DataSize: int64(blocks) * BlockSize,
	}, nil
}
