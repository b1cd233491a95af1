// Package fence keeps the kernel from answering for an address whose lease has
// run out, whatever becomes of the process that holds it.
//
// A traffic control program on every device, in both directions, compares
// CLOCK_BOOTTIME with the absolute deadline that a map holds for an address, and
// drops frames that speak for or to an address past its deadline: IPv4 and IPv6
// source and destination, ARP sender and target, the target of Neighbor
// Solicitations and Advertisements, and, outgoing only, VRRP adverts that list it.
// A virtual router's hardware address can be guarded too, see OfMAC. An address that
// is not in the map is none of its business.
//
// The programs hang on the devices themselves, not on this process nor on a file
// system: they stay until they are taken off or the device is destroyed, so
// kill -9, SIGSTOP and a deadlock change nothing. Open finds them again.
//
// Not covered: frames that go around traffic control (XDP_TX and AF_XDP, packet
// sockets with PACKET_QDISC_BYPASS, bridging done by hardware), and, with clsact,
// filters of others that come before ours and end the chain.
package fence

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl/internal/netns"
)

// Options say which fence is meant.
type Options struct {
	// Tag tells the fences of several daemons in one network namespace apart:
	// 1 to 6 characters of 0-9 and a-f, made from the cluster's name. The same
	// tag finds the same fence again.
	Tag string

	// kind forces a way of attaching. Zero: tcx, else clsact.
	kind Kind
}

// A Kind is the way in which the programs are attached to devices.
type Kind uint8

const (
	_ Kind = iota
	// TCX is the list of programs that each device has from Linux 6.6 on.
	TCX
	// Clsact is a filter below the clsact queueing discipline, for older kernels.
	Clsact
)

// String returns the kind's name, as status output shows it.
func (k Kind) String() string {
	switch k {
	case TCX:
		return "tcx"
	case Clsact:
		return "clsact"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// A Fence is the deadlines map and the programs that act on it.
//
// Set and Delete may be called from one goroutine only, the agent's: a deadline
// computed by one goroutine and written after another has shut the fence would
// open it again. All other methods are safe for concurrent use.
type Fence struct {
	tag       string
	ns        *netns.Handle
	hook      hook
	deadlines *ebpf.Map
	drops     *ebpf.Map

	single bool // the kernel cannot write many entries at once (before Linux 5.6)

	mu    sync.Mutex // guards what follows, and attaching
	progs []*programs
}

// Open finds the fence that an earlier life of this daemon left in the calling
// thread's network namespace and takes it over with its entries, or makes a new
// one. Programs that an earlier life attached are replaced by this version's, in
// such an order that the fence is never open in between; no other device is
// covered before Cover is called.
//
// The error wraps ErrUnavailable when this host or this process cannot have a
// BPF fence; its text says what is missing and what the alternative loses.
func Open(opts Options) (*Fence, error) {
	if err := checkTag(opts.Tag); err != nil {
		return nil, err
	}
	if err := checkCapabilities(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, unavailable("raise RLIMIT_MEMLOCK, which kernels before 5.11 need", err)
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	f := &Fence{tag: opts.Tag, ns: ns}
	if err := ns.Do(func() error { return f.open(opts.kind) }); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fence) open(kind Kind) error {
	var err error
	if f.hook, err = openHook(kind); err != nil {
		return err
	}
	devices, err := listDevices()
	if err != nil {
		return err
	}
	left, err := f.findMaps(devices)
	if err != nil {
		return err
	}
	defer left.close()
	l, err := load(f.tag, left.deadlines, left.drops)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return fmt.Errorf("the fence found under tag %s has maps of another layout and cannot be taken over; "+
			"end the daemon that made it with nothing held, or restart the host: %w", f.tag, err)
	}
	if err != nil {
		return unavailable("the kernel must accept the program (Linux 5.8 or later, with CONFIG_BPF_SYSCALL "+
			"and CONFIG_NET_CLS_BPF or tcx)", err)
	}
	f.deadlines, f.drops = l.deadlines, l.drops
	f.progs = append(f.progs, l.programs)
	for _, d := range left.on {
		if err := f.cover(d); err != nil {
			return fmt.Errorf("take over the fence on %s: %w", d.name, err)
		}
	}
	return nil
}

// Kind tells how the programs are attached.
func (f *Fence) Kind() Kind { return f.hook.kind() }

// OfMAC returns the address under which the fence guards the hardware address of a
// virtual router, 00-00-5E-00-01-{VRID} or 00-00-5E-00-02-{VRID}: to be given to Set
// and Delete, and met in Entries and Drops, like a virtual address of the group. It is
// 100::/64 and the hardware address, which no host has (RFC 6666).
//
// Past its deadline nothing leaves this host from that hardware address but adverts,
// which go by the addresses that they list: what is no claim in itself, such as
// the kernel's answer to a multicast query, would draw to this host what the switches
// are to send to the Active router. A frame without Ethernet header has none.
//
// For any other hardware address the result is the zero Addr, which Set refuses.
func OfMAC(mac net.HardwareAddr) netip.Addr {
	if len(mac) != 6 || !bytes.HasPrefix(mac, []byte{0, 0, 0x5e, 0}) || mac[4] != 1 && mac[4] != 2 {
		return netip.Addr{}
	}
	a := [16]byte{0: 1}
	copy(a[10:], mac)
	return netip.AddrFrom16(a)
}

// Entries returns each address in the map with its deadline, those of an
// earlier life included.
func (f *Fence) Entries() (map[netip.Addr]election.Instant, error) {
	return entriesOf(f.deadlines)
}

// Drops returns for each address how many frames the fence has dropped since it
// was made; the count goes on over restarts of the daemon, and starts anew after
// Detach. Addresses that never lost a frame are not listed.
func (f *Fence) Drops() (map[netip.Addr]uint64, error) {
	values, err := readMap(f.drops)
	if err != nil {
		return nil, fmt.Errorf("read the fence's drop counts: %w", err)
	}
	return values, nil
}

// Close lets go of the fence and leaves it in force.
func (f *Fence) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.progs {
		p.close()
	}
	f.progs = nil
	var errs []error
	for _, m := range []*ebpf.Map{f.deadlines, f.drops} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(append(errs, f.ns.Close())...)
}

func checkTag(tag string) error {
	ok := len(tag) >= 1 && len(tag) <= 6
	for _, c := range tag {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
	}
	if !ok {
		return fmt.Errorf("fence tag %q: want 1 to 6 characters of 0-9 and a-f", tag)
	}
	return nil
}
