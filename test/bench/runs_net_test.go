//go:build net && !bench

package bench

const runs = 1
