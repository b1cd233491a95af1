package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// Heard is one packet of protocol 112 that came in. It shares no storage with the Conn: it may be kept.
type Heard struct {
	// Interface is the name of the Conn's interface.
	Interface string
	// Source and Destination are those of the IP header, without zones: Interface says what they are relative to. One's
	// own adverts do not come back from this host, but a switch can reflect them; they are known by a Source that is ours.
	Source, Destination netip.Addr
	// Advert is what the packet says, and Checksum the form that it used; both are zero if Err is set.
	Advert   vrrpcompat.Advert
	Checksum vrrpcompat.Checksum
	// Err is why the packet was refused, or nil.
	Err *vrrpcompat.Reject
}

// Run reads until ctx ends, and then returns nil; any other end is an error. Each packet goes to handle, refused ones
// too, so that they can be counted. handle is called on Run's goroutine, one packet after the other. While it works, the kernel
// queues what its socket buffer holds (some hundred adverts) and drops the rest: a flood costs adverts, and makes
// nobody wait but handle's own work.
func (c *Conn) Run(ctx context.Context, handle func(Heard)) error {
	if err := c.ip.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("listen for %v adverts on %s: %w", c.family, c.name, err)
	}
	unblocked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(unblocked)
		c.ip.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket, whose read has ended anyway
	})
	defer func() {
		if !stop() {
			<-unblocked // or it could cut off a later Run
		}
	}()
	buf := make([]byte, bufferLen)
	for {
		n, meta, index, err := c.read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("listen for %v adverts on %s: %w", c.family, c.name, err)
		case index != c.index:
			// Queued between the socket's creation and its binding to the device.
			continue
		}
		handle(c.heard(buf[:n], meta))
	}
}

// heard decodes one packet.
func (c *Conn) heard(b []byte, meta vrrpcompat.Meta) Heard {
	h := Heard{Interface: c.name, Source: meta.Source, Destination: meta.Destination}
	var err error
	h.Advert, h.Checksum, err = vrrpcompat.Decode(b, meta, nil)
	if reject, ok := errors.AsType[*vrrpcompat.Reject](err); ok {
		h.Err = reject
	}
	return h
}

// read takes one packet from the socket, without its IP header. What the kernel does not tell stays zero, and is then
// refused.
func (c *Conn) read(buf []byte) (n int, meta vrrpcompat.Meta, index int, err error) {
	var from net.Addr
	if c.v4 != nil {
		got, cm, src, err := c.v4.ReadFrom(buf)
		if err != nil {
			return 0, meta, 0, err
		}
		n, from = got, src
		if cm != nil {
			meta.Destination, meta.HopLimit, index = addrOf(cm.Dst, c.family), cm.TTL, cm.IfIndex
		}
	} else {
		got, cm, src, err := c.v6.ReadFrom(buf)
		if err != nil {
			return 0, meta, 0, err
		}
		n, from = got, src
		if cm != nil {
			meta.Destination, meta.HopLimit, index = addrOf(cm.Dst, c.family), cm.HopLimit, cm.IfIndex
		}
	}
	if a, ok := from.(*net.IPAddr); ok {
		meta.Source = addrOf(a.IP, c.family)
	}
	return n, meta, index, nil
}

// addrOf converts an address of the family; package net keeps IPv4 ones in either of two lengths.
func addrOf(ip net.IP, family vrrpcompat.Family) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if family == vrrpcompat.IPv4 {
		return a.Unmap()
	}
	return a
}
