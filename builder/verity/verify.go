package verity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
)

// CorruptError says where data or tree do not match the root hash.
type CorruptError struct {
	Hash   bool  // in the hash partition, else in the data
	Offset int64 // of the first bad block in bytes
}

func (e *CorruptError) Error() string {
	if e.Hash {
		return fmt.Sprintf("corrupt hash block at byte %d", e.Offset)
	}
	return fmt.Sprintf("corrupt data block at byte %d", e.Offset)
}

// Verify checks all data and the whole tree in hash against a root hash. What
// does not match is a *[CorruptError]. It needs memory for the tree, which is
// 1/128 of the data, and refuses trees of more than 1 GiB.
func Verify(ctx context.Context, data, hash io.ReaderAt, root Hash) error {
	sb, err := ReadSuperblock(hash)
	if err != nil {
		return err
	}
	if HashSize(sb.DataSize) > maxTree {
		return fmt.Errorf("verifying data of %d bytes: its hash tree is larger than %d bytes", sb.DataSize, maxTree)
	}
	leaves, err := readTree(hash, sb, root)
	if err != nil {
		return fmt.Errorf("verifying hash tree: %w", err)
	}
	var mu sync.Mutex
	var bad *CorruptError
	err = eachPiece(ctx, data, sb.DataSize, func(p piece) error {
		got := hashBlocks(nil, p.data, sb.Salt)
		at := firstDiff(got, leaves[p.first*digestSize:])
		if at < 0 {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if off := (p.first + at) * BlockSize; bad == nil || off < bad.Offset {
			bad = &CorruptError{Offset: off}
		}
		return nil
	})
	if err == nil && bad != nil {
		err = bad
	}
	if err != nil {
		return fmt.Errorf("verifying data: %w", err)
	}
	return nil
}

// readTree returns the digests of the data blocks, proven against root. It
// goes down from the root, so a block is only believed once its digest is.
func readTree(hash io.ReaderAt, sb Superblock, root Hash) ([]byte, error) {
	want := root[:]
	pos := int64(BlockSize)
	ls := levels(sb.DataSize / BlockSize)
	if len(ls) > maxLevels {
		return nil, fmt.Errorf("%d levels: at most %d are possible", len(ls), maxLevels)
	}
	for i := len(ls) - 1; i >= 0; i-- {
		level, err := readLevel(hash, pos, ls[i])
		if err != nil {
			return nil, err
		}
		if at := firstDiff(hashBlocks(nil, level, sb.Salt), want); at >= 0 {
			return nil, &CorruptError{Hash: true, Offset: pos + at*BlockSize}
		}
		want, pos = level, pos+int64(len(level))
	}
	return want, nil
}

// readLevel reads n blocks at pos. It grows with what is really there, so that
// a superblock that lies about the size costs no memory.
func readLevel(hash io.ReaderAt, pos, n int64) ([]byte, error) {
	var b bytes.Buffer
	got, err := io.Copy(&b, io.NewSectionReader(hash, pos, n*BlockSize))
	if err != nil {
		return nil, fmt.Errorf("reading hash block at byte %d: %w", pos+got, err)
	}
	if got != n*BlockSize {
		return nil, fmt.Errorf("reading hash block at byte %d: %w", pos+got, io.ErrUnexpectedEOF)
	}
	return b.Bytes(), nil
}

// firstDiff returns the index of the first digest of got that differs from the
// one in want, or -1.
func firstDiff(got, want []byte) int64 {
	for i := 0; i < len(got); i += digestSize {
		if !bytes.Equal(got[i:i+digestSize], want[i:min(i+digestSize, len(want))]) {
			return int64(i / digestSize)
		}
	}
	return -1
}
