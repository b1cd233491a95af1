// Package bubble runs whole nodes in virtual time: the agent with its goroutines,
// hashicorp/raft with its own timers, memberlist, the node link with its TLS, wired
// as the daemon wires them, on networks, kernels and disks in memory.
//
// Each run is a testing/synctest bubble. Faults are drawn from a seed; what the
// goroutines make of them is not, for the scheduler and the libraries' own random
// timeouts have a say. So a run cannot be replayed, and the same seed twice is two
// runs: this is a statistical test. The deterministic one is tests/sim.
//
// Below the nodes everything is made up:
//
//	network  datagrams are lost, doubled, late and out of order; streams are reliable
//	         or break, as TCP's do; links are cut, one way or both
//	kernel   a clock with an offset and a rate of its own; the fence, whose deadlines
//	         hold whatever becomes of the process; addresses with a lifetime
//	disk     the real files of Raft, in memory where the host has such a file
//	         system, and late by the virtual clock
//
// Virtual time passes only while every goroutine waits. Computing takes none, and
// nothing happens between two steps of a goroutine unless one of them waits: so the
// agent is made to wait, now and then, where it reads its clock or deals with its host.
//
// A judge sees every kernel at once, in true time: whether two hosts could answer for
// one address, whether anybody speaks for an address that he has no fence for, and
// how long nobody answered.
//
//	go test ./tests/sim/bubble -v                        the figures of each run
//	go test ./tests/sim/bubble -bubble.seeds 500 -timeout 1h   more runs
//	go test ./tests/sim/bubble -bubble.seed 17 -v        one of them, with its story
package bubble
