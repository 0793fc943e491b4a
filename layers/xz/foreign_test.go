//go:build foreign

package xz_test

import (
	"bytes"
	"os/exec"
	"testing"
)

// TestForeign reads what the C program writes, in all its ways.
func TestForeign(t *testing.T) {
	for name, want := range contents() {
		for _, args := range [][]string{
			{"-0"}, {"-6"}, {"-9e"}, {"-T2", "--block-size=1MiB"}, {"--check=crc32", "--lzma2=preset=6,dict=1MiB"}, {"--check=sha256", "--lzma2=lc=0,lp=4,pb=0"},
		} {
			cmd := exec.Command("xz", append([]string{"--stdout"}, args...)...)
			cmd.Stdin = bytes.NewReader(want)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v", cmd.Args, err)
			}
			if got, err := unpack(packed); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %v: %d bytes of %d, %v", name, args, len(got), len(want), err)
			}
		}
	}
}
