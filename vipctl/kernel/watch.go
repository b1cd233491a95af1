package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
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
// gone for each address that goes, one call at a time, on the caller's goroutine.
// When the kernel had to drop news, or on any other trouble, it compares afresh
// what there is with what it said last, and says the difference; so nothing is
// missed for good, though what came and went in between may be. It returns nil
// when ctx ends, and an error only when nothing has worked for five seconds.
func (k *Kernel) Watch(ctx context.Context, link func(LinkChange), gone func(AddressGone)) error {
	w := &watch{k: k, link: link, gone: gone, links: map[int]LinkChange{}, addrs: map[held]bool{}}
	const failures, pause = 500, 10 * time.Millisecond
	for failed := 0; ; {
		worked, err := w.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if worked {
			failed = 0
			continue
		}
		if failed++; failed == failures {
			return fmt.Errorf("watch links and addresses: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

type held struct {
	index int
	addr  netip.Addr
}

// A watch holds what has been said.
type watch struct {
	k     *Kernel
	link  func(LinkChange)
	gone  func(AddressGone)
	links map[int]LinkChange
	addrs map[held]bool
}

const receiveBuffer = 1 << 20 // bytes; room for some thousand changes at once

// round subscribes, compares, and follows the news until something fails. worked
// says that there was news to follow.
func (w *watch) round(ctx context.Context) (worked bool, err error) {
	var s *nl.NetlinkSocket
	err = w.k.ns.Do(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE,
			unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("subscribe: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	// More than the system's limit only with CAP_NET_ADMIN; with less room than
	// wished, more often some news is dropped and compared afresh.
	if s.SetReceiveBufferSize(receiveBuffer, true) != nil {
		if err := s.SetReceiveBufferSize(receiveBuffer, false); err != nil {
			return false, fmt.Errorf("set the receive buffer: %w", err)
		}
	}
	// After subscribing, so that a change falls into the one or the other.
	if err := w.resync(); err != nil {
		return false, err
	}
	for {
		msgs, from, err := s.Receive()
		if err != nil {
			return worked, fmt.Errorf("receive: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range msgs {
			if err := w.message(m); err != nil {
				return worked, err
			}
			worked = true
		}
	}
}

func (w *watch) resync() error {
	links, err := w.k.links()
	if err != nil {
		return err
	}
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
	for index := range w.links {
		if _, ok := links[index]; !ok {
			w.goneLink(index)
		}
	}
	for _, l := range links {
		w.change(LinkChange{Name: l.Name, Index: l.Index, MAC: l.MAC, Up: l.Up, Carrier: l.Carrier})
	}
	return nil
}

func (w *watch) message(m syscall.NetlinkMessage) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.linkMessage(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.addrMessage(m)
	default:
		return nil
	}
}

func (w *watch) linkMessage(m syscall.NetlinkMessage) error {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return fmt.Errorf("a link message of %d bytes", len(m.Data))
	}
	msg := nl.DeserializeIfInfomsg(m.Data)
	if msg.Family != unix.AF_UNSPEC {
		return nil // a bridge speaks of a port: that one has left it is no end of the device
	}
	index := int(msg.Index)
	if m.Header.Type == unix.RTM_DELLINK {
		w.goneLink(index)
		return nil
	}
	attrs, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return fmt.Errorf("parse a link message: %w", err)
	}
	// Some messages, of wireless devices, bear only part of the attributes.
	c := w.links[index]
	c.Index, c.Up, c.Carrier = index, msg.Flags&unix.IFF_UP != 0, msg.Flags&unix.IFF_LOWER_UP != 0
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			c.Name = unix.ByteSliceToString(a.Value)
		case unix.IFLA_ADDRESS:
			c.MAC = append(net.HardwareAddr(nil), a.Value...)
		}
	}
	w.change(c)
	return nil
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

func (w *watch) addrMessage(m syscall.NetlinkMessage) error {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return fmt.Errorf("an address message of %d bytes", len(m.Data))
	}
	msg := nl.DeserializeIfAddrmsg(m.Data)
	attrs, err := nl.ParseRouteAttr(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return fmt.Errorf("parse an address message: %w", err)
	}
	var addr netip.Addr
	for _, a := range attrs {
		// On point-to-point devices IFA_ADDRESS is the other end; there IFA_LOCAL
		// is given too, and it is ours.
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !addr.IsValid() {
			addr, _ = netip.AddrFromSlice(a.Value)
		}
	}
	if !addr.IsValid() {
		return nil
	}
	h := held{int(msg.Index), addr}
	if m.Header.Type == unix.RTM_NEWADDR {
		w.addrs[h] = true
		return nil
	}
	// Also of one that was never announced: IPv6 announces an address a little
	// after it can be used, and not at all when it was gone by then.
	delete(w.addrs, h)
	w.goneAddr(h)
	return nil
}

func (w *watch) goneAddr(h held) {
	w.gone(AddressGone{Link: w.links[h.index].Name, Addr: h.addr})
}
