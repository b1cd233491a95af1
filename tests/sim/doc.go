// Package sim runs whole clusters in one process and in virtual time: the real agent
// loop, the real rules and the real codecs, over a made-up network, log and kernel.
//
// Everything that happens is drawn from one seed, so the same seed is the same run,
// byte for byte. A World is the cluster and its surroundings; a Watch looks at every
// kernel with true time and notes each broken promise; a Chaos is a run in which
// everything fails.
//
//	go test ./tests/sim -run 'TestChaos$' -seeds 20000     # more runs, on all cores; some 5 ms each
//	go test ./tests/sim -run 'TestChaos$' -first 5000000   # other runs
//	go test ./tests/sim -run 'TestChaos$' -seed 4711 -v    # one run, and its story
//	go test ./tests/sim -run TestStories -update           # accept the traces of testdata
//
// A process is a set of coroutines: the agent's loop, its two workers, each of its
// tasks. They run until they wait, so nothing depends on the Go scheduler. Each call
// of the agent into its surroundings is a Point at which the process can be stopped,
// killed, or taken down with its host.
package sim
