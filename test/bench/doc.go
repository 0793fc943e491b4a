// Package bench measures whole builds of real images, as a user would see
// them: wall clock, processor time and memory of the program kscratch.
//
// `make bench` runs each case several times and prints medians; `make test`
// runs each once and looks at what must hold on any machine. What was measured
// where is in docs/performance.md.
package bench
