// Package programs holds the programs of ours that run on nodes, so that
// kscratch is one file: kscratch-node, and the pause program of pod sandboxes.
// Makefile builds them, static and without paths or build ids, before it
// builds kscratch; they are linux/amd64 executables.
package programs

import (
	"embed"
	"fmt"
)

//go:embed all:bin
var bin embed.FS

// Node returns the program kscratch-node.
func Node() ([]byte, error) { return read("kscratch-node") }

// Pause returns the pause program.
func Pause() ([]byte, error) { return read("pause") }

func read(name string) ([]byte, error) {
	b, err := bin.ReadFile("bin/" + name)
	if err != nil {
		return nil, fmt.Errorf("this kscratch was built without %s: build it with `make build`, which embeds the programs that run on nodes", name)
	}
	return b, nil
}
