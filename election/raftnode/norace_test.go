//go:build !race

package raftnode

const raced = false
