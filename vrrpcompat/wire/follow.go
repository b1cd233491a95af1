package wire

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// A linkState is what of a device matters to its sockets and memberships.
type linkState struct {
	index   int
	mtu     int
	up      bool
	carrier bool
}

// A hostState is what the host had when the kernel was last asked. It is never changed.
type hostState struct {
	asked time.Time
	links map[string]linkState
	addrs map[int][]hostAddr // by device number, in the kernel's order
	macs  map[string]bool    // the bytes of each device's hardware address
	group map[int]bool       // the devices that are in the IPv6 group, by whomever
}

// has reports whether the address is this host's, seen from a device: an IPv6 link-local one is another on each device.
func (h *hostState) has(index int, a netip.Addr) bool {
	is := func(x hostAddr) bool { return x.prefix.Addr() == a }
	if a.IsLinkLocalUnicast() && a.Is6() {
		return slices.ContainsFunc(h.addrs[index], is)
	}
	for _, addrs := range h.addrs {
		if slices.ContainsFunc(addrs, is) {
			return true
		}
	}
	return false
}

// ask reads the host's state from the kernel.
func (t *Transport) ask() (*hostState, error) {
	h := &hostState{asked: time.Now(), links: map[string]linkState{}, addrs: map[int][]hostAddr{}, macs: map[string]bool{}}
	links, err := dump(t.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		h.links[a.Name] = linkState{a.Index, a.MTU, a.RawFlags&unix.IFF_UP != 0, a.RawFlags&unix.IFF_LOWER_UP != 0}
		if len(a.HardwareAddr) > 0 {
			h.macs[string(a.HardwareAddr)] = true
		}
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return t.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		h.addrs[a.LinkIndex] = append(h.addrs[a.LinkIndex], hostAddr{netip.PrefixFrom(ip.Unmap(), bits), a.Flags})
	}
	var text []byte
	if err := t.opts.In(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/igmp6"); return err }); err == nil {
		h.group = groupMembers(string(text))
	}
	return h, nil
}

// groupMembers reads the kernel's list of IPv6 memberships: number and name of the device, and the group.
func groupMembers(igmp6 string) map[int]bool {
	members, group := map[int]bool{}, hex.EncodeToString(vrrpcompat.GroupIPv6.AsSlice())
	for line := range strings.Lines(igmp6) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != group {
			continue
		}
		if index, err := strconv.Atoi(fields[0]); err == nil {
			members[index] = true
		}
	}
	return members
}

// dumpTries bounds how often a list that changed while the kernel gave it out is asked for again.
const dumpTries = 3

func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// refreshEvery is how soon a trouble with sending may have the kernel asked again: an advert may be due each hundredth of a second.
const refreshEvery = 100 * time.Millisecond

// due reports whether asking the kernel again may tell something new.
func (t *Transport) due() bool { return time.Since(t.host.Load().asked) >= refreshEvery }

// refresh converges if that was not done a moment ago, and reports whether it did.
func (t *Transport) refresh() bool { return t.due() && t.converge() == nil }

// converge asks the kernel what there is and makes the sockets fit: listeners on devices that came, changed or were made
// again, none on devices that went; no sender on a device that is another now. It returns an error when the kernel could
// not be asked.
func (t *Transport) converge() error {
	t.follow.Lock()
	defer t.follow.Unlock()
	host, err := t.ask()
	if err != nil {
		return fmt.Errorf("vrrp transport: %w", err)
	}
	t.host.Store(host)
	t.mu.Lock()
	listeners := maps.Clone(t.listeners)
	var stale []*sender
	for key, s := range t.senders {
		if host.links[key.via].index != s.index {
			stale = append(stale, s)
			delete(t.senders, key)
		}
	}
	t.mu.Unlock()
	for _, s := range stale {
		_ = s.close() // of no more use either way
	}
	for key, old := range listeners {
		t.fit(key, old, host)
	}
	t.poke()
	return nil
}

// poke has Run tell of the sources.
func (t *Transport) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// fit makes one wanted listener fit the device as it is now.
func (t *Transport) fit(key portKey, old *listener, host *hostState) {
	link, ok := host.links[key.device]
	if !ok {
		t.swap(key, old, nil, unix.ENODEV)
		return
	}
	if old == nil || old.index != link.index {
		var l *listener
		err := t.opts.In(func() (err error) {
			l, err = openListener(key, link)
			return err
		})
		t.swap(key, old, l, err)
		return
	}
	// When the MTU was too small for IPv6 for a moment the kernel has forgotten the membership. Without the list, which is
	// so on a host without IPv6, nobody knows.
	forgotten := key.family == vrrpcompat.IPv6 && host.group != nil && !host.group[link.index]
	if old.state == link && !forgotten {
		return
	}
	// After a pause without cable the switch behind it may be another, which has to be told.
	old.state = link
	if !link.up {
		return
	}
	if err := t.opts.In(old.join); err != nil {
		t.swap(key, old, nil, err)
	}
}

// swap puts another listener, or none because of a trouble, in the place of an old one.
func (t *Transport) swap(key portKey, old, l *listener, trouble error) {
	t.mu.Lock()
	_, wanted := t.listeners[key]
	if wanted {
		t.listeners[key] = l
		t.read(l)
		delete(t.trouble, key)
		if trouble != nil {
			t.trouble[key] = fmt.Errorf("listen for vrrp, %v: %w", key, trouble)
		}
	}
	t.mu.Unlock()
	t.retire(old)
	if !wanted {
		t.retire(l) // closed meanwhile
	}
}

const (
	// settle is the least time between two convergences, so that a storm of news costs a bounded share of a processor.
	settle = 50 * time.Millisecond
	// backstop is how long a change that no news tells of stays unseen, such as IPv6 switched off and on again.
	backstop = 2 * time.Second
	// failures in a row, a pause after each, end Run.
	failures, pause = 500, 10 * time.Millisecond
)

// followKernel converges whenever something has changed, until ctx ends.
func (t *Transport) followKernel(ctx context.Context) error {
	told := map[route]netip.Addr{}
	for failed := 0; ; {
		worked, err := t.followRound(ctx, told)
		if ctx.Err() != nil {
			return nil
		}
		if worked {
			failed = 0
		} else if failed++; failed == failures {
			return fmt.Errorf("vrrp transport: follow devices and addresses: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// followRound subscribes and follows until something fails. worked says that something did before.
func (t *Transport) followRound(ctx context.Context, told map[route]netip.Addr) (worked bool, err error) {
	var s *nl.NetlinkSocket
	err = t.opts.In(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("subscribe: %w", err)
	}
	news, broken := make(chan struct{}, 1), make(chan error, 1)
	go func() { broken <- t.listenToKernel(s, news) }()
	defer func() {
		s.Close() // which ends the goroutine, if it has not ended by itself
		<-broken
	}()
	tick := time.NewTicker(backstop)
	defer tick.Stop()
	for {
		// At first too, after subscribing, so that a change falls into the one or the other.
		if err := t.converge(); err != nil {
			return worked, err
		}
		worked = true
		t.tellSources(told)
		select {
		case <-ctx.Done():
			return worked, nil
		case <-time.After(settle):
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return worked, nil
			case err := <-broken:
				broken <- err
				return worked, fmt.Errorf("receive: %w", err)
			case <-t.wake:
				t.tellSources(told)
			case <-tick.C:
				waiting = false
			case <-news:
				waiting = false
			}
		}
	}
}

// listenToKernel says when there is news that matters, until the socket is closed.
func (t *Transport) listenToKernel(s *nl.NetlinkSocket, news chan<- struct{}) error {
	for {
		msgs, from, err := s.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			msgs, from, err = []syscall.NetlinkMessage{{}}, &unix.SockaddrNetlink{}, nil // some was lost: that is news
		}
		if err != nil {
			return err
		}
		if from.Pid == nl.PidKernel && slices.ContainsFunc(msgs, t.matters) {
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}
}

// matters leaves out virtual addresses, whose lifetimes are renewed all the time.
func (t *Transport) matters(m syscall.NetlinkMessage) bool {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return true
	}
	attrs, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		if a.Attr.Type != unix.IFA_LOCAL && a.Attr.Type != unix.IFA_ADDRESS {
			continue
		}
		if addr, ok := netip.AddrFromSlice(a.Value); ok && t.opts.IsVirtual(addr) {
			return false
		}
	}
	return true
}

// A route names where adverts go: from a device and family to a peer, or for the zero address to the group.
type route struct {
	portKey
	peer netip.Addr
}

// routes are those whose sources are told.
func (t *Transport) routes() []route {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []route
	for key := range t.listeners {
		out = append(out, route{portKey: key})
		for _, peer := range t.peers[key] {
			out = append(out, route{key, peer})
		}
	}
	slices.SortFunc(out, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.family, b.family), a.peer.Compare(b.peer))
	})
	return out
}

// tellSources tells of the sources that are not as they were told last. Only Run's goroutine does so, with no lock held.
func (t *Transport) tellSources(told map[route]netip.Addr) {
	routes := t.routes()
	for r, last := range told {
		if slices.Contains(routes, r) {
			continue
		}
		delete(told, r)
		if last.IsValid() { // a source that nobody follows must not be taken for ours when it is another's
			t.opts.SourceChanged(r.device, r.family, r.peer, netip.Addr{})
		}
	}
	for _, r := range routes {
		to := r.peer
		if !to.IsValid() {
			to = r.family.Group()
		}
		source, err := t.sourceNow(r.device, r.family, to)
		if err != nil {
			source = netip.Addr{}
		}
		if last, known := told[r]; !known || last != source {
			told[r] = source
			t.opts.SourceChanged(r.device, r.family, r.peer, source)
		}
	}
}
