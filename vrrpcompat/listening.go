package vrrpcompat

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// MaxNeighbours bounds how many routers a Listening remembers. One with the most addresses takes some six kilobytes.
	MaxNeighbours = 256
	// keepFor is for how long a router is remembered after it was last heard, so that a person who comes to look finds
	// it; keepOnceFor if it was heard only once.
	keepFor     = time.Hour
	keepOnceFor = time.Minute
)

// An Origin is where a packet came from.
type Origin struct {
	// Interface is the name of the interface that it came on.
	Interface string
	// From is the source address. Zones are ignored.
	From netip.Addr
	// MAC is the Ethernet source, or nil where it is not known. It is copied.
	MAC net.HardwareAddr
}

// A Dialect is what a neighbour speaks. Zero is invalid.
type Dialect uint8

const (
	_ Dialect = iota
	// SpeaksVRRP is a router whose adverts could be decoded.
	SpeaksVRRP
	// SpeaksCARP shares protocol number, group and virtual MAC addresses with VRRP, and nothing else.
	SpeaksCARP
	// Unreadable is a sender whose packets could not be decoded; Neighbour.Reject says why.
	Unreadable
)

// String returns "vrrp", "carp" or "unreadable".
func (d Dialect) String() string {
	switch d {
	case SpeaksVRRP:
		return "vrrp"
	case SpeaksCARP:
		return "carp"
	case Unreadable:
		return "unreadable"
	}
	return fmt.Sprintf("dialect(%d)", uint8(d))
}

// A Neighbour is a virtual router of another host, as this host hears it: one for each interface, VRID, source address and
// version, so that a router which sends both versions is there twice.
type Neighbour struct {
	Interface string
	Family    Family
	// VRID is 0 where a packet was too short to have one; of an Unreadable one it is unverified.
	VRID VRID
	From netip.Addr
	// MAC is nil where it is not known.
	MAC     net.HardwareAddr
	Dialect Dialect

	// What the last advert said; zero unless Dialect is SpeaksVRRP.
	Version   Version
	Priority  Priority
	Interval  Centis
	AuthType  AuthType
	Checksum  Checksum
	Addresses []netip.Addr
	auth      Auth

	// CARP is what the last CARP advert said; zero unless Dialect is SpeaksCARP.
	CARP CARP

	// First and Last are when it was heard, Adverts how many of its packets could be decoded, and Refused how many packets
	// were not to be acted on, decoded or not; the last of those was refused for Reject at RejectedAt.
	First, Last Instant
	Adverts     uint64
	Refused     uint64
	Reject      Reject
	RejectedAt  Instant
}

// Speaking reports whether the neighbour counts as Active: its last advert was not priority 0, and a backup of the least
// priority would still wait for the next. For CARP that is three of its intervals.
func (n *Neighbour) Speaking(now Instant) bool {
	silent := now.Sub(n.Last)
	switch n.Dialect {
	case SpeaksVRRP:
		return n.Priority != Release && silent < n.Version.DownInterval(1, n.Interval)
	case SpeaksCARP:
		return silent < downAdverts*(time.Duration(n.CARP.AdvBase)*time.Second+time.Duration(n.CARP.AdvSkew)*time.Second/256)
	}
	return false
}

// heardOnce is what most forged sources are, and no router is for long.
func (n *Neighbour) heardOnce() bool { return n.Adverts+n.Refused <= 1 }

// forgotten reports whether the neighbour was silent for so long that it is of no more interest.
func (n *Neighbour) forgotten(now Instant) bool {
	keep := keepFor
	if n.heardOnce() {
		keep = keepOnceFor
	}
	return now.Sub(n.Last) >= keep
}

// neighbourKey is what makes two packets come from the same neighbour.
type neighbourKey struct {
	iface   string
	vrid    VRID
	version Version // 0 for what could not be decoded
	from    netip.Addr
}

// A neighbour is a Neighbour in its place.
type neighbour struct {
	Neighbour
	key neighbourKey
}

// A Listening remembers the routers that this host hears, for a person to look at, and counts what was refused. It decides
// nothing.
//
// It holds MaxNeighbours at most. When it is full, a new one takes the place of one that was heard just once, and if there
// is none such, of one that is silent; otherwise it is not remembered. So no number of forged sources makes it grow, or pushes out a
// router that was heard twice and still speaks; while they come in thousands, though, no new router gets in.
type Listening struct {
	own        map[netip.Addr]bool
	neighbours map[neighbourKey]*neighbour
	slots      []*neighbour // the same, in no order, so that a search for room can go on where the last one ended
	hand       int
	refused    [reasonEnd]uint64
	accepted   uint64
	crowded    uint64
}

// NewListening returns a Listening that has heard nobody.
func NewListening() *Listening {
	return &Listening{own: map[netip.Addr]bool{}, neighbours: make(map[neighbourKey]*neighbour, MaxNeighbours)}
}

// SetOwn says which addresses are this host's own. Packets from them are counted as ReasonOwnSource and are nobody's.
func (l *Listening) SetOwn(addrs []netip.Addr) {
	clear(l.own)
	for _, a := range addrs {
		l.own[a.WithZone("")] = true
	}
}

// Heard takes note of an advert that Decode accepted, with the checksum that it found, and of why it must not be acted on, or nil
// (Virtual.Refuse). a.Addresses are copied.
func (l *Listening) Heard(now Instant, o Origin, a Advert, sum Checksum, refused *Reject) {
	if l.own[o.From.WithZone("")] {
		l.refused[ReasonOwnSource]++
		return
	}
	n := l.neighbour(now, o, a.VRID, a.Version)
	if refused != nil {
		l.refuse(now, n, refused)
	} else {
		l.accepted++
	}
	if n == nil {
		return
	}
	n.Adverts++
	n.Dialect = SpeaksVRRP
	n.Version, n.Priority, n.Interval, n.AuthType, n.auth, n.Checksum = a.Version, a.Priority, a.Interval, a.Auth.Type, a.Auth, sum
	n.Addresses = append(n.Addresses[:0], a.Addresses...)
}

// Undecoded takes note of a packet that Decode refused; payload is what Decode was given, and is not kept.
func (l *Listening) Undecoded(now Instant, o Origin, refused *Reject, payload []byte) {
	if l.own[o.From.WithZone("")] {
		l.refused[ReasonOwnSource]++
		return
	}
	n := l.neighbour(now, o, refused.VRID, 0)
	l.refuse(now, n, refused)
	if n == nil {
		return
	}
	n.Dialect, n.CARP = Unreadable, CARP{}
	if carp, ok := ParseCARP(payload); ok {
		n.Dialect, n.CARP = SpeaksCARP, carp
	}
}

// refuse counts, and notes it at the neighbour where there is one.
func (l *Listening) refuse(now Instant, n *neighbour, why *Reject) {
	if why.Reason < reasonEnd {
		l.refused[why.Reason]++
	}
	if n != nil {
		n.Refused++
		n.Reject, n.RejectedAt = *why, now
	}
}

// neighbour returns the one that was heard, a new one if need be, or nil where there is no room.
func (l *Listening) neighbour(now Instant, o Origin, vrid VRID, version Version) *neighbour {
	from := o.From.WithZone("")
	key := neighbourKey{o.Interface, vrid, version, from}
	n := l.neighbours[key]
	if n == nil {
		if n = l.room(now); n == nil {
			l.crowded++
			return nil
		}
		n.key, n.Neighbour = key, Neighbour{
			Interface: o.Interface, Family: FamilyOf(from), VRID: vrid, From: from, First: now,
			MAC: n.MAC[:0], Addresses: n.Addresses[:0],
		}
		l.neighbours[key] = n
	}
	n.Last = now
	if o.MAC != nil && !bytes.Equal(n.MAC, o.MAC) {
		n.MAC = append(n.MAC[:0], o.MAC...)
	}
	return n
}

// room returns a slot for a new neighbour, if need be that of one which has to go, or nil.
func (l *Listening) room(now Instant) *neighbour {
	if len(l.slots) < MaxNeighbours {
		n := &neighbour{}
		l.slots = append(l.slots, n)
		return n
	}
	n := l.next((*Neighbour).heardOnce)
	if n == nil {
		n = l.next(func(n *Neighbour) bool { return !n.Speaking(now) })
	}
	if n != nil {
		delete(l.neighbours, n.key)
	}
	return n
}

// next returns the next slot after the last one returned whose neighbour may go, or nil if there is none.
func (l *Listening) next(mayGo func(*Neighbour) bool) *neighbour {
	for range l.slots {
		l.hand = (l.hand + 1) % len(l.slots)
		if n := l.slots[l.hand]; mayGo(&n.Neighbour) {
			return n
		}
	}
	return nil
}

// Forget drops the neighbours that were silent for an hour, and for a minute those that were heard only once. Call it now and then.
func (l *Listening) Forget(now Instant) {
	l.slots = slices.DeleteFunc(l.slots, func(n *neighbour) bool {
		if !n.forgotten(now) {
			return false
		}
		delete(l.neighbours, n.key)
		return true
	})
}

// Neighbours returns copies of all that are remembered, by interface, family, VRID, address and version.
func (l *Listening) Neighbours(now Instant) []Neighbour {
	l.Forget(now)
	out := make([]Neighbour, 0, len(l.slots))
	for _, n := range l.slots {
		c := n.Neighbour
		c.MAC, c.Addresses = bytes.Clone(n.MAC), slices.Clone(n.Addresses)
		if len(c.MAC) == 0 {
			c.MAC = nil
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Family, b.Family), cmp.Compare(a.VRID, b.VRID), a.From.Compare(b.From), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// Counts are what a Listening has counted since it was made.
type Counts struct {
	// Accepted are the adverts that could be acted on.
	Accepted uint64
	// Refused are the packets that could not, by reason; every reason is there.
	Refused map[Reason]uint64
	// Crowded are the packets whose senders were not remembered for want of room.
	Crowded uint64
}

// Counts returns the counters as they stand.
func (l *Listening) Counts() Counts {
	c := Counts{Accepted: l.accepted, Refused: make(map[Reason]uint64, reasonEnd), Crowded: l.crowded}
	for _, r := range Reasons() {
		c.Refused[r] = l.refused[r]
	}
	return c
}
