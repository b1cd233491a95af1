//go:build race

package sim

// slowdown divides the number of runs where each is that much slower.
const slowdown = 12
