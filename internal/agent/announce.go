package agent

import (
	"net/netip"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
)

// announce tells the LAN of a few dozen addresses on one device. The pace of many such
// jobs is the core's.
func (a *Agent) announce(e core.Announce) {
	if a.tooLate(e.Until) {
		return
	}
	if err := a.cfg.Host.Announce(e.At[0].Link, addrsOf(e.At)); err != nil {
		a.warn("announce "+e.Group, "cannot announce an address", "group", e.Group, "link", e.At[0].Link, "error", err)
	}
	if e.First {
		a.Post(core.Said{Group: e.Group})
	}
}

func addrsOf(at []core.Place) []netip.Addr {
	out := make([]netip.Addr, 0, len(at))
	for _, p := range at {
		out = append(out, p.Prefix.Addr())
	}
	return out
}

// A teller has portions left of what known neighbours are told. It belongs to the LAN jobs.
type teller struct {
	gen  uint64
	next []func() (more bool, err error) // one for each device
}

// tell says one portion.
func (a *Agent) tell(e core.Tell) {
	t := a.tellers[e.Group]
	if t == nil || t.gen != e.Gen {
		t = &teller{gen: e.Gen}
		for _, on := range byLink(e.At) {
			if next := a.cfg.Host.Tell(on.link, on.addrs); next != nil {
				t.next = append(t.next, next)
			}
		}
		a.tellers[e.Group] = t
	}
	if len(t.next) > 0 && !a.tooLate(e.Until) {
		more, err := t.next[0]()
		if err != nil {
			a.warn("tell "+e.Group, "cannot tell the known neighbours of an address", "group", e.Group, "error", err)
		}
		if !more {
			t.next = t.next[1:]
		}
	}
	if len(t.next) == 0 {
		delete(a.tellers, e.Group)
	}
	a.Post(core.Told{Group: e.Group, Gen: e.Gen, More: len(t.next) > 0})
}

type onLink struct {
	link  string
	addrs []netip.Addr
}

// byLink sorts addresses by device, in the order in which those come.
func byLink(at []core.Place) (out []onLink) {
	index := map[string]int{}
	for _, p := range at {
		i, ok := index[p.Link]
		if !ok {
			i = len(out)
			index[p.Link] = i
			out = append(out, onLink{link: p.Link})
		}
		out[i].addrs = append(out[i].addrs, p.Prefix.Addr())
	}
	return out
}

// tooLate: what waited until its deadline is not said any more. The next owner may
// be announcing already.
//
//quorate:rule nothing-late
func (a *Agent) tooLate(until election.Instant) bool { return !a.cfg.Now().Before(until) }
