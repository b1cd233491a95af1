package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A kind says what a phase is for.
type kind int

const (
	chaos   kind = iota + 1 // faults on any node, overlapping
	starved                 // busy loops and no fault: nothing may happen
)

// String gives a word for the journal.
func (k kind) String() string {
	switch k {
	case chaos:
		return "chaos"
	case starved:
		return "starved"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// MarshalText makes the journal readable.
func (k kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A phase is a stretch of the soak, after which the cluster has to be well.
type phase struct {
	Number int           `json:"number"`
	Kind   kind          `json:"kind"`
	Length time.Duration `json:"length_ns"` // of a starved one; chaos ends with its last step
	Busy   bool          `json:"busy"`      // chaos on a starved machine
	Steps  []step        `json:"-"`
}

// A step is one fault.
type step struct {
	At    time.Duration // after the phase's beginning
	Fault string        // its name in lab.Table
	Node  int           // to which it is done; theOwner: whoever is owner then
	Peer  int           // how many nodes further its peer is, where it has one
	Hold  time.Duration
}

// theOwner stands for a node that is only known when the time has come.
const theOwner = -1

// Every third phase is a starved one.
const starvedEvery = 3

const (
	chaosLength   = 10 * time.Second // in which steps begin
	starvedLength = 20 * time.Second
	shortestGap   = 50 * time.Millisecond // between two steps
	longestGap    = 900 * time.Millisecond
	shortestHold  = 20 * time.Millisecond
	longestHold   = 2500 * time.Millisecond
)

// weights say how often a fault comes, out of their sum.
var weights = []struct {
	fault  string
	weight int
}{
	{"kill", 10}, {"freeze", 14}, {"stop", 6}, {"wall-step", 3},
	{"cut", 10}, {"pull", 8}, {"deaf", 8}, {"mute", 8}, {"flap", 4}, {"lossy", 6},
	{"pair", 5}, {"pair-from", 6}, {"pair-to", 6}, {"partition", 6},
	{"move", 8}, {"release", 4},
}

// planned returns the phase of that number: a function of its arguments alone, so that a
// seed and a number are all that it takes to do it again.
func planned(seed uint64, number, nodes int) phase {
	if number%starvedEvery == starvedEvery-1 {
		return phase{Number: number, Kind: starved, Length: starvedLength}
	}
	rng := rand.New(rand.NewPCG(seed, uint64(number)))
	p := phase{Number: number, Kind: chaos, Busy: rng.IntN(4) == 0}
	at := time.Duration(0)
	for {
		at += between(rng, shortestGap, longestGap)
		if at > chaosLength {
			return p
		}
		s := step{
			At: at, Fault: pick(rng), Node: theOwner, Peer: 1 + rng.IntN(nodes-1),
			Hold: between(rng, shortestHold, longestHold),
		}
		if rng.IntN(5) < 3 {
			s.Node = rng.IntN(nodes)
		}
		p.Steps = append(p.Steps, s)
	}
}

func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(rng.Int64N(int64(to-from)))).Round(time.Millisecond)
}

func pick(rng *rand.Rand) string {
	sum := 0
	for _, w := range weights {
		sum += w.weight
	}
	n := rng.IntN(sum)
	for _, w := range weights {
		if n < w.weight {
			return w.fault
		}
		n -= w.weight
	}
	panic("soak: weights do not add up")
}
