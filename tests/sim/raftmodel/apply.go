package raftmodel

import (
	"errors"
	"fmt"

	"github.com/quorate/quorate/fsm"
)

// Applied is what one step did to a server's state machine.
type Applied struct {
	State    *fsm.State   // shared with other servers: read-only
	Command  *fsm.Command // nil if Restored
	Err      error        // why the command changed nothing
	Restored bool         // a snapshot took the place of the state
	Position Position     // of the command, or of the snapshot's last entry
}

// ErrGap means that an entry which is to be applied is not in the log any more, as
// can be after a late snapshot. The library panics there: crash and start the server.
var ErrGap = errors.New("an entry to apply was compacted away")

// Apply has a server's state machine take up to n further entries that it knows to be
// committed, all of them if n is negative. Entries of all kinds count; only commands
// are in the result, which is valid until the next operation.
func (c *Cluster) Apply(s int, n int) ([]Applied, error) {
	c.out = c.out[:0]
	err := c.apply(s, n)
	return c.out, err
}

func (c *Cluster) apply(s, n int) error {
	sv := c.servers[s]
	for ; n != 0 && sv.applied < sv.handed; n-- {
		e := sv.at(sv.applied + 1)
		if e == nil {
			return fmt.Errorf("entry %d: %w", sv.applied+1, ErrGap)
		}
		sv.applied = e.Index
		switch e.Kind {
		case KindCommand:
			sv.seen = e.Position
			st := c.step(sv.state, e)
			sv.state = st.to
			c.out = append(c.out, Applied{State: st.to, Command: e.Command, Err: st.err, Position: e.Position})
		case KindConfiguration:
			sv.seen = e.Position
			c.viewChanged(s, sv.trail.Commit(e.Index))
		}
	}
	return nil
}

// step applies a command, or finds the result of when another server did.
func (c *Cluster) step(from *fsm.State, e *Entry) step {
	for uint64(len(c.steps)) <= e.Index {
		c.steps = append(c.steps, step{})
	}
	st := &c.steps[e.Index]
	if st.from != from || st.command != e.Command || st.at != e.Position {
		*st = step{from: from, command: e.Command, at: e.Position}
		st.to, st.err = from.Apply(e.Index, e.Term, *e.Command)
	}
	return *st
}
