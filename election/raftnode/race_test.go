//go:build race

package raftnode

// raced: the race detector makes everything some ten times slower.
const raced = true
