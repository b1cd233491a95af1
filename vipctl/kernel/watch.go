package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A LinkChange is the state of a device after something about it has changed.
type LinkChange struct {
	Name    string
	Index   int
	MAC     net.HardwareAddr
	Up      bool // administratively
	Carrier bool
	Gone    bool // destroyed, renamed or moved away; the other fields are what it last was
}

func (c LinkChange) same(o LinkChange) bool {
	return c.Name == o.Name && c.Index == o.Index && c.Up == o.Up && c.Carrier == o.Carrier &&
		c.Gone == o.Gone && slices.Equal(c.MAC, o.MAC)
}

// An AddressGone says that an address has left a device: removed by us or another
// program, or because its lifetime was over. When it was put back at once it may
// be there again.
type AddressGone struct {
	Link string // empty if the device went before
	Addr netip.Addr
}

// Watch calls link for each device there is, then again for each change, and
// gone for each address that goes, one call at a time, on the caller's goroutine. A
// device that is renamed is gone under the old name first.
// When the kernel had to drop news, or on any other trouble, it compares afresh
// what there is with what it said last, and says the difference; so nothing is
// missed for good, though what came and went in between may be. It returns nil
// when ctx ends, and an error only when nothing has worked for five seconds.
func (k *Kernel) Watch(ctx context.Context, link func(LinkChange), gone func(AddressGone)) error {
	w := &watch{k: k, link: link, gone: gone, links: map[int]LinkChange{}, addrs: map[held]bool{}}
	const failures = 500
	// Also after a round that had news: with more of it than can be followed, comparing afresh must not
	// take all the time there is.
	const pause = 10 * time.Millisecond
	for failed := 0; ; {
		worked, err := w.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failed++; worked {
			failed = 0
		}
		if failed == failures {
			return fmt.Errorf("watch links and addresses: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// A watch holds what has been said.
type watch struct {
	k     *Kernel
	link  func(LinkChange)
	gone  func(AddressGone)
	links map[int]LinkChange
	addrs map[held]bool
}

// round subscribes, compares, and follows the news until something fails. worked
// says that there was news to follow.
func (w *watch) round(ctx context.Context) (worked bool, err error) {
	f, err := w.k.subscribe()
	if err != nil {
		return false, err
	}
	defer f.close()
	defer context.AfterFunc(ctx, f.close)()
	// After subscribing, so that a change falls into the one or the other.
	if err := w.resync(); err != nil {
		return false, err
	}
	for {
		news, err := f.receive()
		if err != nil {
			return worked, err
		}
		for m := range messages(news) {
			w.message(m)
			worked = true
		}
	}
}

func (w *watch) resync() error {
	links, err := w.k.links()
	if err != nil {
		return err
	}
	w.addOurs() // before the look: what is put there after it is not gone
	addrs, err := w.k.addresses(0)
	if err != nil {
		return err
	}
	now := map[held]bool{}
	for _, a := range addrs {
		now[held{a.index, a.prefix.Addr()}] = true
	}
	for h := range w.addrs {
		if !now[h] {
			w.goneAddr(h)
		}
	}
	w.addrs = now
	// All that is gone first: two devices may have changed their names with each other.
	for index, old := range w.links {
		if l, ok := links[index]; !ok || l.Name != old.Name {
			w.goneLink(index)
		}
	}
	for _, l := range links {
		w.change(LinkChange{Name: l.Name, Index: l.Index, MAC: l.MAC, Up: l.Up, Carrier: l.Carrier})
	}
	return nil
}

// addOurs notes the addresses that we have put there, of which the kernel does not tell (see leaveOutOurs).
func (w *watch) addOurs() {
	w.k.addrs.Lock()
	defer w.k.addrs.Unlock()
	for addr, index := range w.k.added {
		w.addrs[held{index, addr}] = true
	}
}

func (w *watch) message(m message) {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.linkMessage(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		w.addrMessage(m)
	}
}

// linkMessage reads a message of struct ifinfomsg (rtnetlink(7)).
func (w *watch) linkMessage(m message) {
	if len(m.data) < unix.SizeofIfInfomsg || m.data[0] != unix.AF_UNSPEC {
		return // a bridge speaks of a port: that one has left it is no end of the device
	}
	index, flags := int(uint32Of(m.data[4:])), uint32Of(m.data[8:])
	if m.kind == unix.RTM_DELLINK {
		w.goneLink(index)
		return
	}
	// Some messages, of wireless devices, bear only part of the attributes.
	c := w.links[index]
	c.Index, c.Up, c.Carrier = index, flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	for kind, value := range attributes(m.data[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			c.Name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			c.MAC = append(net.HardwareAddr(nil), value...)
		}
	}
	if c.Name != "" {
		w.change(c)
	}
}

func (w *watch) change(c LinkChange) {
	old, known := w.links[c.Index]
	if known && old.same(c) {
		return
	}
	if known && old.Name != c.Name {
		w.goneLink(c.Index)
	}
	w.links[c.Index] = c
	w.link(c)
}

func (w *watch) goneLink(index int) {
	old, known := w.links[index]
	if !known {
		return
	}
	delete(w.links, index)
	old.Gone, old.Up, old.Carrier = true, false, false
	w.link(old)
}

func (w *watch) addrMessage(m message) {
	deleted := m.kind == unix.RTM_DELADDR
	m.kind = unix.RTM_NEWADDR
	a, ok := addressOf(m)
	if !ok {
		return
	}
	h := held{a.index, a.prefix.Addr()}
	if !deleted {
		w.addrs[h] = true
		return
	}
	// Also of one that was never announced: IPv6 announces an address a little
	// after it can be used, and not at all when it was gone by then.
	delete(w.addrs, h)
	w.goneAddr(h)
}

func (w *watch) goneAddr(h held) {
	w.gone(AddressGone{Link: w.links[h.index].Name, Addr: h.addr})
}
