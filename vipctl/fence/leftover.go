package fence

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// leftover is what an earlier life of the daemon left in the kernel.
type leftover struct {
	on               []device // where its programs stand
	deadlines, drops *ebpf.Map
}

func (l *leftover) close() {
	for _, m := range []*ebpf.Map{l.deadlines, l.drops} {
		if m != nil {
			m.Close()
		}
	}
}

// findMaps goes from the devices to our programs on them, and from those to
// their maps.
func (f *Fence) findMaps(devices []device) (_ *leftover, err error) {
	left := &leftover{}
	defer func() {
		if err != nil {
			left.close()
		}
	}()
	seen := map[ebpf.MapID]bool{}
	for _, d := range devices {
		found, err := f.eachMap(d, seen, func(id ebpf.MapID) error { return f.takeMap(left, id) })
		if err != nil {
			return nil, fmt.Errorf("take over the fence on %s: %w", d.name, err)
		}
		if found {
			left.on = append(left.on, d)
		}
	}
	return left, nil
}

// eachMap hands over the maps of our programs on a device, but those that were seen. found
// says that there is such a program.
func (f *Fence) eachMap(d device, seen map[ebpf.MapID]bool, use func(ebpf.MapID) error) (found bool, err error) {
	for _, dir := range directions {
		list, err := f.hook.attached(d, dir)
		if err != nil {
			return found, err
		}
		ours, err := f.ours(list)
		if err != nil {
			return found, err
		}
		for _, a := range ours {
			found = true
			info, err := programInfo(a.id)
			if err != nil {
				return found, err
			}
			ids, _ := info.MapIDs()
			for _, id := range ids {
				if seen[id] {
					continue
				}
				seen[id] = true
				if err := use(id); err != nil {
					return found, fmt.Errorf("map %d: %w", id, err)
				}
			}
		}
	}
	return found, nil
}

func (f *Fence) takeMap(left *leftover, id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	info, err := m.Info()
	if err != nil {
		return errors.Join(err, m.Close())
	}
	switch {
	case info.Name == deadlinesName(f.tag) && left.deadlines == nil:
		left.deadlines = m
		return nil
	case info.Name == dropsName(f.tag) && left.drops == nil:
		left.drops = m
		return nil
	case info.Name == deadlinesName(f.tag):
		// Two maps under one tag: a life that ended half way. The earlier
		// deadline of the two counts, so that joining them opens nothing.
		return errors.Join(merge(left.deadlines, m), m.Close())
	default:
		return m.Close()
	}
}

func merge(into, from *ebpf.Map) error {
	have, err := readMap(into)
	if err != nil {
		return err
	}
	more, err := readMap(from)
	if err != nil {
		return err
	}
	for addr, until := range more {
		if old, ok := have[addr]; ok && old <= until {
			continue
		}
		if err := into.Put(addr.As16(), until); err != nil {
			return fmt.Errorf("join the entry of %s: %w", addr, err)
		}
	}
	return nil
}
