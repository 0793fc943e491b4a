//go:build foreign

package verity

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestVeritysetup lets cryptsetup's tool verify our tree, and compares it with
// the one that it makes itself.
func TestVeritysetup(t *testing.T) {
	for _, blocks := range []int{2, 128, 300, 128*128 + 1} {
		dir := t.TempDir()
		dataPath, hashPath, theirs := filepath.Join(dir, "data"), filepath.Join(dir, "hash"), filepath.Join(dir, "theirs")
		data := noise(blocks)
		if err := os.WriteFile(dataPath, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var hash mem
		uuid := [16]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x81, 0x23, 1, 2, 3, 4, 5, 6}
		root, _, err := Write(context.Background(), bytes.NewReader(data), int64(len(data)), &hash, Options{Salt: testSalt, UUID: uuid})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hashPath, hash.b, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "veritysetup", "verify", dataPath, hashPath, root.String())
		run(t, "veritysetup", "format", dataPath, theirs, "--salt", hex.EncodeToString(testSalt), "--uuid", "12345678-9abc-4def-8123-010203040506")
		got, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, hash.b) {
			t.Errorf("%d blocks: veritysetup writes another hash partition", blocks)
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
