package fence

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A hook is one way of attaching programs to a device so that they outlive us.
type hook interface {
	kind() Kind
	// attached lists the programs on one side of a device, in the order in which
	// they run. A device that is gone has none.
	attached(device, direction) ([]attached, error)
	// attach puts the program before all others.
	attach(device, direction, *ebpf.Program, string) error
	// detach takes the program off.
	detach(device, direction, attached) error
	// clear removes what else attach made, if nobody else uses it.
	clear(device) error
}

// attached is a program found on a device.
type attached struct {
	id     ebpf.ProgramID
	handle uint32 // of its filter, with clsact
}

type device struct {
	name    string
	index   int
	framing framing
}

// listDevices returns every device of the calling thread's network namespace,
// whether up or down: one that is covered before it comes up lets nothing slip.
func listDevices() ([]device, error) {
	// A dump that was interrupted by a change may miss a device: ask again. The
	// last error stands; link events will have Cover called anyway.
	const tries = 5
	var err error
	for range tries {
		var links []netlink.Link
		if links, err = netlink.LinkList(); err != nil {
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				continue
			}
			break
		}
		devices := make([]device, 0, len(links))
		for _, l := range links {
			a := l.Attrs()
			fr := bare
			if a.EncapType == "ether" || a.EncapType == "loopback" {
				fr = framed
			}
			devices = append(devices, device{a.Name, a.Index, fr})
		}
		return devices, nil
	}
	return nil, fmt.Errorf("list the devices to cover: %w", err)
}

// Cover attaches the fence to every device of this network namespace that does
// not have it yet, or on which another program has come to run before it, and
// returns the names of those it changed. To be called at start, before the first
// address is added, and at each link event; calling it more often does no harm.
// With an error, the other devices have been covered all the same.
func (f *Fence) Cover() (added []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.ns.Do(func() error {
		devices, err := listDevices()
		if err != nil {
			return err
		}
		var errs []error
		for _, d := range devices {
			ok, err := f.covered(d)
			if err == nil && !ok {
				if err = f.cover(d); err == nil {
					added = append(added, d.name)
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("cover %s: %w", d.name, err))
			}
		}
		return errors.Join(errs...)
	})
	return added, err
}

// Covered returns the names of the devices on which the fence stands in both
// directions, before all other programs.
func (f *Fence) Covered() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	err := f.ns.Do(func() error {
		devices, err := listDevices()
		if err != nil {
			return err
		}
		for _, d := range devices {
			ok, err := f.covered(d)
			if err != nil {
				return fmt.Errorf("look at %s: %w", d.name, err)
			}
			if ok {
				names = append(names, d.name)
			}
		}
		return nil
	})
	return names, err
}

// Detach takes the fence off every device of this network namespace and leaves
// nothing behind: for a daemon that ends with no address held.
func (f *Fence) Detach() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ns.Do(func() error {
		devices, err := listDevices()
		if err != nil {
			return err
		}
		var errs []error
		for _, d := range devices {
			if err := f.uncover(d); err != nil {
				errs = append(errs, fmt.Errorf("take the fence off %s: %w", d.name, err))
			}
		}
		return errors.Join(errs...)
	})
}

func (f *Fence) covered(d device) (bool, error) {
	for _, dir := range directions {
		list, err := f.hook.attached(d, dir)
		if err != nil {
			return false, err
		}
		if len(list) == 0 || !f.current(list[0].id) {
			return false, nil
		}
	}
	return true, nil
}

// current reports whether a program is one that this process loaded.
func (f *Fence) current(id ebpf.ProgramID) bool {
	for _, p := range f.progs {
		if p.ids[id] {
			return true
		}
	}
	return false
}

// cover puts this process's program first on both sides of a device, and only
// then takes older ones of ours off: at every instant one of them stands.
func (f *Fence) cover(d device) error {
	for _, dir := range directions {
		list, err := f.hook.attached(d, dir)
		if err != nil {
			return err
		}
		if len(list) > 0 && f.current(list[0].id) {
			continue
		}
		progs, err := f.unused(list)
		if err != nil {
			return err
		}
		name := programName(f.tag, dir, d.framing)
		if err := f.hook.attach(d, dir, progs.by[dir][d.framing], name); err != nil {
			if errors.Is(err, unix.ENODEV) {
				return nil // deleted meanwhile: nothing to cover
			}
			return fmt.Errorf("attach to %s (%s): %w", dir, f.hook.kind(), err)
		}
		if err := f.detachOurs(d, dir, list); err != nil {
			return err
		}
	}
	return nil
}

// unused returns a copy of the programs of which none is in the list: one program
// can stand in a list only once, so moving ahead of others takes a second copy.
func (f *Fence) unused(list []attached) (*programs, error) {
	for _, p := range f.progs {
		free := true
		for _, a := range list {
			free = free && !p.ids[a.id]
		}
		if free {
			return p, nil
		}
	}
	l, err := load(f.tag, f.deadlines, f.drops)
	if err != nil {
		return nil, err
	}
	err = errors.Join(l.deadlines.Close(), l.drops.Close()) // copies of the descriptors we have
	f.progs = append(f.progs, l.programs)
	return l.programs, err
}

func (f *Fence) uncover(d device) error {
	found := false
	for _, dir := range directions {
		list, err := f.hook.attached(d, dir)
		if err != nil {
			return err
		}
		ours, err := f.ours(list)
		if err != nil {
			return err
		}
		found = found || len(ours) > 0
		if err := f.detachOurs(d, dir, list); err != nil {
			return err
		}
	}
	if !found {
		return nil
	}
	return f.hook.clear(d)
}

// detachOurs takes those of the list that are ours off one side of a device.
func (f *Fence) detachOurs(d device, dir direction, list []attached) error {
	ours, err := f.ours(list)
	if err != nil {
		return err
	}
	for _, a := range ours {
		if err := f.hook.detach(d, dir, a); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach program %d from %s: %w", a.id, dir, err)
		}
	}
	return nil
}

// ours picks the programs that bear our tag, of whichever life.
func (f *Fence) ours(list []attached) ([]attached, error) {
	var ours []attached
	for _, a := range list {
		info, err := programInfo(a.id)
		if errors.Is(err, unix.ENOENT) {
			continue // taken off meanwhile
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(info.Name, programPrefix(f.tag)) {
			ours = append(ours, a)
		}
	}
	return ours, nil
}

func programInfo(id ebpf.ProgramID) (*ebpf.ProgramInfo, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return nil, fmt.Errorf("read program %d: %w", id, err)
	}
	return info, nil
}
