package vipctl

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A MAC is an Ethernet address; comparable.
type MAC [macLen]byte

// MACOf returns the address, if it is that of one host: six bytes, not all zero, no
// group.
func MACOf(hw net.HardwareAddr) (m MAC, ok bool) {
	if len(hw) != macLen {
		return m, false
	}
	copy(m[:], hw)
	return m, m.unicast()
}

func (m MAC) unicast() bool { return m != MAC{} && m[0]&1 == 0 }

// String gives the usual six pairs of digits.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// A Neighbour is a host on a LAN that talked to us.
type Neighbour struct {
	Addr netip.Addr // without zone
	MAC  MAC
	Age  time.Duration // since it was last heard of
}

// valid reports whether one host can be reached by it.
func (n Neighbour) valid() bool {
	a := n.Addr
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		n.MAC.unicast() && n.Age >= 0
}

const (
	// MaxNeighbours is how many neighbours of each address family are remembered of one
	// device.
	MaxNeighbours = 128
	// MaxTold is how many frames a take-over sends to neighbours, one by one, at most: at
	// 5,000 in a second they are gone within one.
	MaxTold = 4096
	// MaxToldEach is of how many addresses one neighbour is told in a take-over, at most. It
	// makes an entry for each in a table that on Linux has room for 1,024 (gc_thresh3), and
	// loses whom it really talks to when that is full.
	MaxToldEach = 64
)

// Newest returns what is known of neighbours in order of age, each address once and at
// most limit of each family. What no host can be reached by is left out.
func Newest(all []Neighbour, limit int) []Neighbour {
	all = slices.DeleteFunc(slices.Clone(all), func(n Neighbour) bool { return !n.valid() })
	slices.SortFunc(all, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Age, b.Age), a.Addr.Compare(b.Addr), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	seen := make(map[netip.Addr]bool, len(all))
	var of4, of6 int
	return slices.DeleteFunc(all, func(n Neighbour) bool {
		count := &of6
		if n.Addr.Is4() {
			count = &of4
		}
		if seen[n.Addr] || *count == limit {
			return true
		}
		seen[n.Addr] = true
		*count++
		return false
	})
}

// A Telling is one frame to be sent: where Addr now is, to one neighbour.
type Telling struct {
	Addr netip.Addr
	To   Neighbour
}

// Tellings returns whom to tell of which address, at most limit in all: the first
// neighbour of everything, then the next, so that where the limit cuts, those go without
// that were not heard of for longest. Who has no address of the same family is not told.
func Tellings(addrs []netip.Addr, to []Neighbour, limit int) []Telling {
	var out []Telling
	for _, n := range to {
		for _, a := range addrs {
			if a.Is4() != n.Addr.Is4() {
				continue
			}
			if len(out) == limit {
				return out
			}
			out = append(out, Telling{a, n})
		}
	}
	return out
}

// A Segment is what a host knows of one LAN: the networks that it has addresses in
// there, and neighbours. Nodes may name the device differently; the networks tell which
// it is.
type Segment struct {
	Networks   []netip.Prefix // masked; none link-local
	Neighbours []Neighbour
}

// Networks returns the networks of a device with these addresses: masked, without
// link-local ones, which are on every LAN, and without those that lie in another.
func Networks(addrs []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range addrs {
		if p.IsValid() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var apart []netip.Prefix
	for _, p := range out {
		if !overlaps(apart, []netip.Prefix{p}) && len(apart) < maxNetworks {
			apart = append(apart, p)
		}
	}
	return apart
}

func overlaps(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool { return slices.ContainsFunc(b, p.Overlaps) })
}

// An Instant is a reading of a clock that never goes back, since whenever it began.
type Instant time.Duration

// bookAge is how long a neighbour is remembered that nobody has spoken of. Hosts that
// hold an address speak of theirs every minute.
const bookAge = 20 * time.Minute

// maxBook bounds a Book: what some devices of seven nodes have at most.
const maxBook = 8192

// A Book has the neighbours that the hosts of a cluster told each other of. The zero
// value is empty and ready to use. It belongs to one goroutine.
type Book struct {
	entries map[bookKey]bookEntry
}

// A bookKey is one host in one place: a link-local address may be on several LANs.
type bookKey struct {
	addr netip.Addr
	mac  MAC
}

type bookEntry struct {
	networks []netip.Prefix // shared by what came together
	heard    Instant        // when the neighbour was
	told     Instant        // when we were
}

// Learn takes what a host said, or what this one knows itself.
func (b *Book) Learn(now Instant, s Segment) {
	if b.entries == nil {
		b.entries = map[bookKey]bookEntry{}
	}
	if len(b.entries)+len(s.Neighbours) > maxBook {
		b.Forget(now)
	}
	networks := slices.Clone(s.Networks)
	for _, n := range s.Neighbours {
		k := bookKey{n.Addr, n.MAC}
		if _, known := b.entries[k]; !n.valid() || !known && len(b.entries) >= maxBook {
			continue
		}
		b.entries[k] = bookEntry{networks, now - Instant(n.Age), now}
	}
}

// Forget drops what nobody has spoken of for twenty minutes, and returns how many are
// left.
func (b *Book) Forget(now Instant) int {
	for k, e := range b.entries {
		if now-e.told > Instant(bookAge) {
			delete(b.entries, k)
		}
	}
	return len(b.entries)
}

// Near returns the neighbours on a LAN with one of these networks, in no order.
func (b *Book) Near(now Instant, networks []netip.Prefix) []Neighbour {
	var out []Neighbour
	for k, e := range b.entries {
		if now-e.told <= Instant(bookAge) && overlaps(e.networks, networks) {
			out = append(out, Neighbour{k.addr, k.mac, max(0, time.Duration(now-e.heard))})
		}
	}
	return out
}

// Same reports whether two lists name the same neighbours, whenever those were heard.
func Same(a, b []Neighbour) bool {
	if len(a) != len(b) {
		return false
	}
	in := make(map[bookKey]bool, len(a))
	for _, n := range a {
		in[bookKey{n.Addr, n.MAC}] = true
	}
	return !slices.ContainsFunc(b, func(n Neighbour) bool { return !in[bookKey{n.Addr, n.MAC}] })
}

// The encoding of a Segment, in one datagram or several, each complete in itself:
//
//	0  how many networks, 1 to 16
//	   each: length of its address (4 or 16), address, bits
//	…  neighbours to the end
//	   each: length of its address (4 or 16), address, MAC (6), age in seconds (2, big endian)
const (
	maxNetworks = 16
	maxAge      = 65535 * time.Second
)

// AppendSegment returns the segment as messages of at most size bytes, which is 400 at
// least; none if it has no network or no neighbour.
func AppendSegment(out [][]byte, s Segment, size int) [][]byte {
	if len(s.Networks) == 0 || len(s.Networks) > maxNetworks {
		return out
	}
	head := []byte{byte(len(s.Networks))}
	for _, p := range s.Networks {
		head = append(appendAddr(head, p.Addr()), byte(p.Bits()))
	}
	b := head
	for _, n := range s.Neighbours {
		if len(b) > len(head) && len(b)+1+16+macLen+2 > size {
			out, b = append(out, b), head
		}
		if len(b) == len(head) {
			b = slices.Clone(head)
		}
		age := min(max(n.Age, 0), maxAge) / time.Second
		b = append(append(appendAddr(b, n.Addr), n.MAC[:]...), byte(age>>8), byte(age))
	}
	if len(b) > len(head) {
		out = append(out, b)
	}
	return out
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

// DecodeSegment reads one message of AppendSegment. Its errors say what was wrong with
// it; it was not made by a node of this version then.
func DecodeSegment(b []byte) (s Segment, err error) {
	if len(b) == 0 || b[0] == 0 || b[0] > maxNetworks {
		return Segment{}, fmt.Errorf("a list of neighbours of %d bytes: want 1 to %d networks first", len(b), maxNetworks)
	}
	r := segmentReader{b: b[1:]}
	for range b[0] {
		a := r.addr()
		p := netip.PrefixFrom(a, int(r.take(1)[0]))
		if r.bad || !p.IsValid() || p != p.Masked() || a.IsLinkLocalUnicast() {
			return Segment{}, fmt.Errorf("a list of neighbours: network %d of %d is none", len(s.Networks)+1, b[0])
		}
		s.Networks = append(s.Networks, p)
	}
	for len(r.b) > 0 {
		n := Neighbour{Addr: r.addr()}
		copy(n.MAC[:], r.take(macLen))
		age := r.take(2)
		n.Age = time.Duration(int(age[0])<<8|int(age[1])) * time.Second
		if r.bad || !n.valid() {
			return Segment{}, fmt.Errorf("a list of neighbours: number %d is none", len(s.Neighbours)+1)
		}
		s.Neighbours = append(s.Neighbours, n)
	}
	return s, nil
}

// A segmentReader takes bytes off a message; past its end there are zeros, and it is bad.
type segmentReader struct {
	b   []byte
	bad bool
}

func (r *segmentReader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.bad = nil, true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *segmentReader) addr() netip.Addr {
	n := int(r.take(1)[0])
	if n != 4 && n != 16 {
		r.b, r.bad = nil, true
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(r.take(n))
	if a.Is4In6() {
		r.bad = true
	}
	return a
}
