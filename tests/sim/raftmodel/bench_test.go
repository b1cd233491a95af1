package raftmodel

import (
	"testing"

	"github.com/quorate/quorate/fsm"
)

// three returns a cluster of three voters whose first leads and has opened its term.
func three(t testing.TB) *Cluster {
	t.Helper()
	c := New(fsm.InstanceID{1}, fsm.InstanceID{2}, fsm.InstanceID{3})
	for s := range c.Len() {
		c.Start(s)
	}
	if err := c.Bootstrap(0, Configuration{Voters: SetOf(0, 1, 2)}); err != nil {
		t.Fatal(err)
	}
	if !c.Elect(0, Forced, nil) {
		t.Fatal("server 0 was not elected")
	}
	if _, err := c.Append(0, fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}); err != nil {
		t.Fatal(err)
	}
	c.spread(0)
	return c
}

// spread gives everyone all entries of a leader, and then what is committed.
func (c *Cluster) spread(l int) {
	for range 2 {
		for f := range c.Len() {
			c.Replicate(l, f, 0, true)
		}
	}
}

func BenchmarkElect(b *testing.B) {
	c := three(b)
	for i := 0; b.Loop(); i++ {
		if i%1024 == 1023 { // a run has no more
			c = three(b)
		}
		c.Lapse(0)
		if !c.Elect(0, Forced, nil) {
			b.Fatal("not elected")
		}
		if i%64 == 63 {
			if _, err := c.Append(0, fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}); err != nil {
				b.Fatal(err)
			}
			c.spread(0)
			c.settle()
		}
	}
}

// settle has everyone apply everything and compact.
func (c *Cluster) settle() {
	for s := range c.Len() {
		_, _ = c.Apply(s, -1)
		c.Compact(s)
	}
}

func BenchmarkReplicateNothing(b *testing.B) {
	c := three(b)
	for b.Loop() {
		c.Replicate(0, 1, 0, true)
	}
}

// BenchmarkCommit is a whole round: an entry is appended, brought to two followers,
// told to be committed, and applied by all.
func BenchmarkCommit(b *testing.B) {
	c := three(b)
	cmd := fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}
	for i := 0; b.Loop(); i++ {
		if i%1024 == 1023 {
			c = three(b)
		}
		if _, err := c.Append(0, cmd); err != nil {
			b.Fatal(err)
		}
		c.spread(0)
		for s := range 3 {
			_, _ = c.Apply(s, -1)
		}
		if i%64 == 63 {
			c.settle()
		}
	}
}
