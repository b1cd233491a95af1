package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// String names a phase for people.
func (p phase) String() string {
	if p.Busy {
		return p.Kind.String() + " on a starved machine"
	}
	return p.Kind.String()
}

// chaos does the steps of a phase, each in its time, and returns when all are undone.
func (s *soak) chaos(ctx context.Context, p phase) error {
	s.tally.last, s.spans = 0, nil
	began := lab.Now()
	var load *lab.Load
	if p.Busy {
		var err error
		if load, err = s.lab.Starve(); err != nil {
			return err
		}
	}
	errs := make([]error, len(p.Steps))
	var steps sync.WaitGroup
	for i, st := range p.Steps {
		steps.Go(func() {
			if lab.Sleep(ctx, began.Add(st.At).Sub(lab.Now())) == nil {
				errs[i] = s.step(ctx, p.Number, st)
			}
		})
	}
	steps.Wait()
	if load != nil {
		errs = append(errs, load.Stop())
		s.tally.starve(lab.Now().Sub(began), false)
	}
	return errors.Join(errs...)
}

// step does one fault, holds it, and undoes it, whatever happens meanwhile.
func (s *soak) step(ctx context.Context, number int, st step) error {
	f, ok := lab.Named(st.Fault)
	if !ok {
		return fmt.Errorf("there is no fault %q", st.Fault)
	}
	f = f.Lasting(st.Hold)
	node, peer := s.who(st)
	e := entry{Phase: number, Fault: f.Name, Node: node.Name, Peer: peer.Name, HoldMS: f.Hold.Milliseconds()}
	log := func(what string, detail error) {
		e.What, e.Detail = what, nil
		if detail != nil {
			e.Detail = detail.Error()
		}
		s.journal.add(e)
	}
	if err := s.cluster.Possible(f); err != nil {
		log("skipped", err)
		return nil
	}
	mine := claim{layer: f.Layer, node: node.Name}
	if f.Layer.OfLab() {
		mine.node = ""
	}
	if !s.claim(mine) {
		log("skipped", nil) // another fault has hold of it
		return nil
	}
	defer s.unclaim(mine)

	began := lab.Now()
	defer func() { s.span(lab.Span{From: began, To: lab.Now()}) }()
	log("do", nil)
	undo, err := s.do(ctx, f, &lab.Case{Cluster: s.cluster, Node: node, Peer: peer})
	switch {
	case err == nil:
		s.tally.done(f.Name)
		_ = lab.Sleep(ctx, f.Hold) // however it ends, the fault is undone
	case f.Layer == lab.CommandLayer:
		// Refused, or asked of a node that cannot answer.
		s.tally.refuse()
		log("refused", err)
		err = nil
	}
	if undo != nil {
		err = errors.Join(err, undo())
	}
	if ctx.Err() != nil {
		return nil // what became of it says nothing
	}
	log("undone", err)
	return err
}

// do does a fault. Hand-overs in order take milliseconds; one there and one back within
// three of its questions looks to the judge like two owners (tests/lab/judge.go), so they
// keep a distance.
func (s *soak) do(ctx context.Context, f lab.Fault, k *lab.Case) (func() error, error) {
	if f.Effect == lab.HandOver || f.Layer == lab.CommandLayer {
		s.hands.Lock()
		defer s.hands.Unlock()
		defer func() { _ = lab.Sleep(ctx, 20*lab.DefaultPeriod) }()
	}
	return f.Do(ctx, k)
}

// who finds a step's node and its peer.
func (s *soak) who(st step) (node, peer *lab.Node) {
	nodes := s.cluster.Nodes
	i := st.Node
	if i == theOwner {
		i = 0
		now := lab.Now()
		if a := s.cluster.Probes4[0].TraceBetween(now.Add(-time.Second), now).Answers; len(a) > 0 {
			for n := range nodes {
				if nodes[n].Name == a[len(a)-1].Host {
					i = n
				}
			}
		}
	}
	return nodes[i], nodes[(i+st.Peer)%len(nodes)]
}

func (s *soak) claim(c claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[c] {
		return false
	}
	s.held[c] = true
	return true
}

func (s *soak) unclaim(c claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, c)
}

func (s *soak) span(sp lab.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(s.spans, sp)
}

// starvedOnly starves the machine and does nothing else. No owner may change.
func (s *soak) starvedOnly(ctx context.Context, p phase, from lab.Instant) error {
	s.tally.last = 0
	before, err := s.state(ctx)
	if err != nil {
		return err
	}
	load, err := s.lab.Starve()
	if err != nil {
		return err
	}
	_ = lab.Sleep(ctx, p.Length)
	to := lab.Now()
	after, err := s.state(ctx)
	if err = errors.Join(err, load.Stop()); err != nil {
		return err
	}
	s.tally.starve(to.Sub(from), true)
	if before.leader != after.leader {
		s.tally.leaders++
		s.journal.add(entry{Phase: p.Number, What: "leader changed", Detail: before.leader + " to " + after.leader})
	}
	changes := changesIn(s.cluster.Probes4[0].TraceBetween(from, to).Answers)
	wrong := withoutCause(changes, s.spans, explains)
	if len(wrong) == 0 && len(changes) == 0 && before.epoch != after.epoch {
		wrong = []change{{From: before.owner, To: after.owner}} // too quick to be seen outside
	}
	s.tally.wrong += len(wrong)
	if len(wrong) > 0 {
		return fmt.Errorf("%w: the owner changed while the machine was starved and nothing else was wrong: %v; epoch %d before, %d after",
			errBroken, wrong, before.epoch, after.epoch)
	}
	return nil
}

// A state is what the nodes say of the group.
type state struct {
	epoch         uint64
	owner, leader string
}

// state asks all nodes and takes the newest epoch.
func (s *soak) state(ctx context.Context) (newest state, err error) {
	for _, n := range s.cluster.Nodes {
		st, err := n.Look(ctx)
		if err != nil {
			return newest, err
		}
		if g, ok := st.Group(); ok && g.Epoch >= newest.epoch {
			newest = state{epoch: g.Epoch, owner: g.Owner, leader: st.Leader}
		}
	}
	return newest, nil
}

// panics looks for a daemon that fell over its own feet.
func (s *soak) panics() error {
	for _, n := range s.cluster.Nodes {
		b, err := os.ReadFile(n.Process().Log)
		if err != nil {
			return fmt.Errorf("read the log of %s: %w", n.Name, err)
		}
		for _, sign := range []string{"panic:", "fatal error:", "DATA RACE"} {
			if strings.Contains(string(b), sign) {
				return fmt.Errorf("%w: the log of %s has %q", errBroken, n.Name, sign)
			}
		}
	}
	return nil
}
