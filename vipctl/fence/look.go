package fence

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl/internal/netns"
)

// Look returns each address that a fence with the tag guards in the calling thread's
// network namespace, with its deadline, and changes nothing; none: there is no such
// fence. It is for whoever wants to know what a dead daemon left. The error wraps
// ErrUnavailable when this process may not ask.
func Look(tag string) (map[netip.Addr]election.Instant, error) {
	if err := checkTag(tag); err != nil {
		return nil, err
	}
	if err := checkCapabilities(); err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	f := &Fence{tag: tag, ns: ns}
	entries := map[netip.Addr]election.Instant{}
	err = ns.Do(func() error { return f.look(entries) })
	return entries, errors.Join(err, ns.Close())
}

func (f *Fence) look(entries map[netip.Addr]election.Instant) error {
	var err error
	if f.hook, err = openHook(0); err != nil {
		return err
	}
	devices, err := listDevices()
	if err != nil {
		return err
	}
	seen := map[ebpf.MapID]bool{}
	for _, d := range devices {
		if _, err := f.eachMap(d, seen, func(id ebpf.MapID) error { return f.lookAt(id, entries) }); err != nil {
			return fmt.Errorf("look at the fence on %s: %w", d.name, err)
		}
	}
	return nil
}

// lookAt reads the deadlines of one map. Of two for an address the earlier counts,
// as it will when a daemon takes the fence over.
func (f *Fence) lookAt(id ebpf.MapID, entries map[netip.Addr]election.Instant) error {
	found, err := f.deadlinesIn(id)
	if err != nil {
		return err
	}
	for addr, until := range found {
		if old, ok := entries[addr]; !ok || election.Instant(until) < old {
			entries[addr] = election.Instant(until)
		}
	}
	return nil
}

// deadlinesIn is empty for a map of another kind.
func (f *Fence) deadlinesIn(id ebpf.MapID) (found map[netip.Addr]uint64, err error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	info, err := m.Info()
	if err != nil || info.Name != deadlinesName(f.tag) {
		return nil, err
	}
	return readMap(m)
}
