//go:build bench

package bench

// runs is how often each case is measured.
const runs = 7
