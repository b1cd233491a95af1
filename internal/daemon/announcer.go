package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// An announcer is the speaker as the agent wants it, with the devices that the adverts
// of a virtual MAC address go out by. It follows what the cluster agreed on: which
// groups there are, and who the nodes are. Its methods may be called from any goroutine.
type announcer struct {
	*speaker
	macs    *vmacs
	self    fsm.InstanceID
	state   func() *fsm.State
	log     *slog.Logger
	changed chan struct{} // holds one: the state is another than when it was looked at last

	mu     sync.Mutex      // one group at a time; guards what follows
	served map[string]bool // by group
}

func newAnnouncer(s *speaker, macs *vmacs, self fsm.InstanceID, state func() *fsm.State, log *slog.Logger) *announcer {
	a := &announcer{speaker: s, macs: macs, self: self, state: state, log: log, changed: make(chan struct{}, 1), served: map[string]bool{}}
	a.noteChange() // what there is at the start
	return a
}

// Serve has the group's devices ready, and its virtual routers heard. A group that left
// the document while its devices were looked for is passed over.
func (a *announcer) Serve(g fsm.Group, at []core.Place) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !advertised(a.state().Document, g.Name) {
		return nil
	}
	a.served[g.Name] = true
	return a.serveGroup(g, at)
}

func (a *announcer) serveGroup(g fsm.Group, at []core.Place) error {
	return errors.Join(a.macs.serve(g, at), a.speaker.Serve(g, at))
}

// advertised reports whether the document has the group, with a VRRP id.
func advertised(d fsm.Document, group string) bool {
	g, ok := d.Group(group)
	return ok && g.VRRP.ID != 0
}

// noteChange says that the replicated state may be another. It never blocks.
func (a *announcer) noteChange() {
	select {
	case a.changed <- struct{}{}:
	default: // noted already
	}
}

// follow looks at the replicated state after each change, until ctx ends.
func (a *announcer) follow(ctx context.Context) error {
	for {
		select {
		case <-a.changed:
			if err := a.look(); err != nil {
				a.log.Warn("cannot end a group's part in VRRP", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// look tells the speaker who the cluster's other nodes are, and ends the listening for
// groups that are not advertised any more. The state is read under the lock: a group
// that was served since has a newer one.
func (a *announcer) look() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.state()
	var others []netip.Addr
	for _, m := range st.Nodes {
		if m.ID != a.self {
			others = append(others, m.Address.Addr())
		}
	}
	a.Insiders(others)
	var errs []error
	for name := range a.served {
		if !advertised(st.Document, name) {
			delete(a.served, name)
			errs = append(errs, a.serveGroup(fsm.Group{Name: name}, nil))
		}
	}
	return errors.Join(errs...)
}
