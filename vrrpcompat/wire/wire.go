// Package wire carries VRRP messages: it sends them by multicast or to unicast peers, hears those of others together
// with what the message itself does not say, and keeps its sockets, group memberships and source addresses right while
// devices and addresses come and go.
//
// It moves bytes. What an advert says is encoded, decoded and judged in vrrpcompat; what to do about it is decided above.
// Sending never waits for hearing: they share no socket, no goroutine, and no lock that is held for more than a look-up.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// Options are what a Transport works with. All functions may be called from several goroutines at once.
type Options struct {
	// Receive gets each packet of protocol 112 on the devices that are listened on, also those that must not be
	// acted on: they have a Reason. It is called on the goroutine that reads the device and family, one packet after
	// the other. The packet and its payload are valid during the call only. While Receive works, the kernel queues some hundred
	// packets and drops the rest. Required.
	Receive func(*Packet)

	// IsVirtual reports whether an address is a virtual one, from which no advert may come: it moves, and other
	// routers break ties by it. Nil: none is.
	IsVirtual func(netip.Addr) bool

	// SourceChanged is told when the address that adverts to a peer come from has changed on a device that is listened
	// on, and its first value: of those to the group, for which peer is the zero address, and to the peers of Follow.
	// A source that is the zero address means that there is none at present, or that nobody follows it any more. May be nil.
	SourceChanged func(device string, family vrrpcompat.Family, peer, source netip.Addr)

	// In runs a function on a thread of the network namespace that is meant. Nil: the process's own.
	In func(func() error) error
}

// A Transport carries the VRRP messages of one network namespace. All methods are safe for concurrent use, except that
// Run may be called once and Close only when Run is not under way.
type Transport struct {
	opts Options
	nl   *netlink.Handle
	host atomic.Pointer[hostState]
	wake chan struct{} // sources may be others

	follow sync.Mutex // one convergence at a time

	mu        sync.Mutex // guards what follows; held for map operations only
	closed    bool
	reading   context.Context // of Run; nil while it is not under way
	readers   sync.WaitGroup
	listeners map[portKey]*listener    // a wanted one that could not be opened is nil
	peers     map[portKey][]netip.Addr // of Follow
	trouble   map[portKey]error        // why
	senders   map[senderKey]*sender
	lost      uint64 // packets that closed listeners had to drop
}

// A portKey names a device and a family on it.
type portKey struct {
	device string
	family vrrpcompat.Family
}

func (k portKey) String() string { return fmt.Sprintf("%v on %s", k.family, k.device) }

// New returns a Transport that listens nowhere yet. It starts nothing. The caller closes it.
func New(opts Options) (*Transport, error) {
	if opts.Receive == nil {
		return nil, errors.New("vrrp transport: Options.Receive is required: without it nobody would hear the others")
	}
	if opts.IsVirtual == nil {
		opts.IsVirtual = func(netip.Addr) bool { return false }
	}
	if opts.SourceChanged == nil {
		opts.SourceChanged = func(string, vrrpcompat.Family, netip.Addr, netip.Addr) {}
	}
	if opts.In == nil {
		opts.In = func(f func() error) error { return f() }
	}
	t := &Transport{opts: opts, listeners: map[portKey]*listener{}, peers: map[portKey][]netip.Addr{}, trouble: map[portKey]error{},
		senders: map[senderKey]*sender{}, wake: make(chan struct{}, 1)}
	err := opts.In(func() (err error) {
		t.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("vrrp transport: open netlink: %w", err)
	}
	t.host.Store(&hostState{})
	return t, nil
}

// Listen has the device heard for the family from now on, by joining the family's group there and by reading all messages that
// reach this host: unicast ones need nothing more. It may be called again, at no cost. It needs CAP_NET_RAW.
//
// An error says why the device cannot be heard at present; it stays wanted all the same, and Run tries again whenever
// something about the device has changed. Nothing is read before Run is called.
func (t *Transport) Listen(device string, family vrrpcompat.Family) error {
	if family != vrrpcompat.IPv4 && family != vrrpcompat.IPv6 {
		return fmt.Errorf("listen for vrrp on %s: %v is neither %v nor %v", device, family, vrrpcompat.IPv4, vrrpcompat.IPv6)
	}
	key := portKey{device, family}
	t.mu.Lock()
	l, trouble, closed := t.listeners[key], t.trouble[key], t.closed
	if l == nil && !closed {
		t.listeners[key] = nil // wanted
	}
	t.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("listen for vrrp %v: %w", key, net.ErrClosed)
	case l != nil:
		return nil
	case trouble != nil && !t.due():
		return trouble // as of a moment ago
	}
	if err := t.converge(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trouble[key]
}

// Follow has Options.SourceChanged told of the source towards each of these peers, beside that towards the group, while
// the device is listened on for the family. It replaces the earlier peers. It waits for nothing.
func (t *Transport) Follow(device string, family vrrpcompat.Family, peers []netip.Addr) {
	t.mu.Lock()
	t.peers[portKey{device, family}] = slices.Clone(peers)
	t.mu.Unlock()
	t.poke()
}

// Unlisten ends what Listen began, and Follow: the group is left and nothing of the device and family is received any more,
// except what Receive is being called with at this moment.
func (t *Transport) Unlisten(device string, family vrrpcompat.Family) {
	key := portKey{device, family}
	t.follow.Lock() // or a convergence under way could open it again
	defer t.follow.Unlock()
	t.mu.Lock()
	l := t.listeners[key]
	delete(t.listeners, key)
	delete(t.peers, key)
	delete(t.trouble, key)
	t.mu.Unlock()
	t.retire(l)
	t.poke()
}

// Listening returns whether the device is heard for the family at present.
func (t *Transport) Listening(device string, family vrrpcompat.Family) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listeners[portKey{device, family}] != nil
}

// Overruns returns how many packets the kernel has dropped so far because they came faster than they were read.
func (t *Transport) Overruns() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.lost
	for _, l := range t.listeners {
		if l != nil {
			sum += l.overruns()
		}
	}
	return sum
}

// Run reads from the devices that are listened on, and follows devices and addresses, until ctx ends; then it returns
// nil, having left all groups. Messages can be sent before, during and after. It returns an error when the kernel's
// news cannot be followed.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	if t.closed || t.reading != nil {
		t.mu.Unlock()
		return errors.New("run vrrp transport: it is closed, or runs already")
	}
	t.reading = ctx
	for _, l := range t.listeners {
		t.read(l)
	}
	t.mu.Unlock()

	err := t.followKernel(ctx)

	t.follow.Lock()
	t.mu.Lock()
	t.reading = nil
	old := t.listeners
	t.listeners = map[portKey]*listener{}
	t.mu.Unlock()
	for _, l := range old {
		t.retire(l)
	}
	t.follow.Unlock()
	t.readers.Wait()
	return err
}

// read starts the goroutine that reads a listener, if Run is under way. t.mu is held.
func (t *Transport) read(l *listener) {
	if l == nil || t.reading == nil {
		return
	}
	t.readers.Go(func() { l.run(t.handle) })
}

// retire closes a listener that is in no map any more; its reader ends with that.
func (t *Transport) retire(l *listener) {
	if l == nil {
		return
	}
	n := l.overruns()
	l.close()
	t.mu.Lock()
	t.lost += n
	t.mu.Unlock()
}

// Close closes all sockets.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	listeners, senders := t.listeners, t.senders
	t.listeners, t.senders = nil, nil
	t.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		if l != nil {
			l.close()
		}
	}
	for _, s := range senders {
		errs = append(errs, s.close())
	}
	t.nl.Close()
	return errors.Join(errs...)
}
