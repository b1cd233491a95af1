package fence

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const loopbackIndex = 1 // in every network namespace

// openHook returns the wanted way of attaching, or the best that this kernel has.
func openHook(want Kind) (hook, error) {
	if want == Clsact {
		return clsact{}, nil
	}
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopbackIndex, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		return tcx{}, nil
	case want == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported)):
		return clsact{}, nil // before Linux 6.6
	default:
		return nil, unavailable("the kernel must allow BPF programs on devices", err)
	}
}

// tcx attaches programs themselves, not BPF links: a link goes with the last
// descriptor or pin, and a pin with the mount namespace it was made in.
type tcx struct{}

func (tcx) kind() Kind { return TCX }

func (tcx) side(dir direction) ebpf.AttachType {
	if dir == ingress {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

func (t tcx) attached(d device, dir direction) ([]attached, error) {
	// ENOSPC: the list grew between the count and the read.
	const tries = 5
	var err error
	for range tries {
		var res *link.QueryResult
		res, err = link.QueryPrograms(link.QueryOptions{Target: d.index, Attach: t.side(dir)})
		switch {
		case errors.Is(err, unix.ENODEV):
			return nil, nil
		case errors.Is(err, unix.ENOENT):
			return nil, nil
		case errors.Is(err, unix.ENOSPC):
			continue
		case err != nil:
			return nil, err
		}
		list := make([]attached, 0, len(res.Programs))
		for _, p := range res.Programs {
			list = append(list, attached{id: p.ID})
		}
		return list, nil
	}
	return nil, err
}

func (t tcx) attach(d device, dir direction, prog *ebpf.Program, _ string) error {
	return link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: d.index, Program: prog, Attach: t.side(dir), Anchor: link.Head()})
}

func (t tcx) detach(d device, dir direction, a attached) error {
	prog, err := ebpf.NewProgramFromID(a.id)
	if err != nil {
		return err
	}
	defer prog.Close()
	return link.RawDetachProgram(link.RawDetachProgramOptions{
		Target: d.index, Program: prog, Attach: t.side(dir)})
}

func (tcx) clear(device) error { return nil }

// clsact attaches direct-action BPF filters, which the device keeps as well.
type clsact struct{}

func (clsact) kind() Kind { return Clsact }

// filterPref is the preference our filters have: the lowest that can be asked
// for, so that they run before those of others. Within one preference, of BPF
// filters the youngest runs first.
const filterPref = 1

func (clsact) side(dir direction) uint32 {
	if dir == ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func (c clsact) filters(d device, dir direction) ([]*netlink.BpfFilter, error) {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index}}
	const tries = 5
	var err error
	for range tries {
		var all []netlink.Filter
		all, err = netlink.FilterList(link, c.side(dir))
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted):
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil, nil // no such device, or no clsact on it
		case err != nil:
			return nil, fmt.Errorf("list the filters at %s: %w", dir, err)
		}
		var bpf []*netlink.BpfFilter
		for _, f := range all {
			if b, ok := f.(*netlink.BpfFilter); ok {
				bpf = append(bpf, b)
			}
		}
		return bpf, nil
	}
	return nil, fmt.Errorf("list the filters at %s: %w", dir, err)
}

func (c clsact) attached(d device, dir direction) ([]attached, error) {
	filters, err := c.filters(d, dir)
	if err != nil {
		return nil, err
	}
	var list []attached
	for _, f := range filters {
		if f.Id != 0 {
			list = append(list, attached{ebpf.ProgramID(f.Id), f.Handle})
		}
	}
	return list, nil
}

func (c clsact) attach(d device, dir direction, prog *ebpf.Program, name string) error {
	if err := c.qdisc(d); err != nil {
		return err
	}
	err := netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: d.index, Parent: c.side(dir), Priority: filterPref, Protocol: unix.ETH_P_ALL},
		Fd: prog.FD(), Name: name, DirectAction: true,
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("preference %d may be taken by a filter of another kind (see tc filter show dev %s %s); "+
			"move that one to a higher preference: %w", filterPref, d.name, dir, err)
	}
	return err
}

// qdisc makes sure that the device has the clsact queueing discipline.
func (clsact) qdisc(d device) error {
	err := netlink.QdiscAdd(clsactQdisc(d))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	list, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index}})
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	if slices.ContainsFunc(list, func(q netlink.Qdisc) bool { return q.Type() == "ingress" }) {
		return fmt.Errorf("%s has the ingress queueing discipline, which has no outgoing side; "+
			"replace it with clsact, which can do all that ingress can", d.name)
	}
	return nil
}

func clsactQdisc(d device) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: d.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

func (c clsact) detach(d device, dir direction, a attached) error {
	return netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: d.index, Parent: c.side(dir), Handle: a.handle,
		Priority: filterPref, Protocol: unix.ETH_P_ALL}})
}

// clear removes the clsact discipline when no filter of any kind is left below it.
func (c clsact) clear(d device) error {
	dev := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index}}
	for _, dir := range directions {
		all, err := netlink.FilterList(dev, c.side(dir))
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("list the filters at %s: %w", dir, err)
		}
		if len(all) > 0 {
			return nil
		}
	}
	if err := netlink.QdiscDel(clsactQdisc(d)); err != nil && !errors.Is(err, unix.ENODEV) &&
		!errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the clsact queueing discipline: %w", err)
	}
	return nil
}
