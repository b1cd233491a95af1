package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vrrpcompat"
)

// A Packet is one IP packet of protocol 112 as it came in.
type Packet struct {
	// Device is the name that it was listened for by, Index the device's number.
	Device string
	Index  int
	Family vrrpcompat.Family
	// Source and Destination are those of the IP header, without zones: Device says what they are relative to.
	Source, Destination netip.Addr
	// HopLimit is the TTL or hop limit at arrival.
	HopLimit int
	// MAC is the Ethernet source, empty on devices without Ethernet addresses.
	MAC net.HardwareAddr
	// Arrival is when it was read.
	Arrival election.Instant
	// Payload is the VRRP message: as long as the IP header says, without Ethernet padding. Nil if there is no whole one.
	Payload []byte
	// Reason is zero for a packet that may be decoded and acted on, and else why it may not.
	Reason Reason
}

// VRID is the virtual router's number as the message has it, unverified, or 0 if it is too short to have one.
func (p *Packet) VRID() vrrpcompat.VRID {
	if len(p.Payload) < 2 {
		return 0
	}
	return vrrpcompat.VRID(p.Payload[1])
}

// A Reason is why a packet must not be acted on, judged by what is outside the VRRP message. String gives a short
// kebab-case name that serves as a metric label and never changes. Zero means that there is no such reason.
type Reason uint8

const (
	_ Reason = iota
	// ReasonIPHeader: the IP header is damaged or does not fit the packet: its version, lengths or checksum.
	ReasonIPHeader
	// ReasonFragment: a part of an IPv4 packet. No router fragments adverts, and no part of one can be judged.
	ReasonFragment
	// ReasonOversize: longer than the longest advert there is.
	ReasonOversize
	// ReasonAH: behind an IPsec authentication header, as keepalived's auth_type AH sends version 2. The header is not verified, and
	// so the message not believed; its Payload tells who needs another auth_type.
	ReasonAH
	// ReasonDestination: neither to the family's VRRP group nor to an address of this host: another program's group, or
	// unicast between others that this host forwards.
	ReasonDestination
	// ReasonOwn: this host's own packet, returned by the network.
	ReasonOwn
	// ReasonSpoofed: from an address of this host, but by the hardware address of another: that host has the same
	// address, or pretends to.
	ReasonSpoofed
	// ReasonMulticast: sent to the group, for a virtual router that has unicast peers.
	ReasonMulticast
	// ReasonUnicast: sent to this host alone, for a virtual router that speaks multicast.
	ReasonUnicast
	// ReasonNotPeer: unicast from an address that is not one of the virtual router's peers.
	ReasonNotPeer

	reasonEnd
)

var reasonNames = [reasonEnd]string{
	ReasonIPHeader:    "ip-header",
	ReasonFragment:    "fragment",
	ReasonOversize:    "oversize",
	ReasonAH:          "ipsec-ah",
	ReasonDestination: "destination",
	ReasonOwn:         "own",
	ReasonSpoofed:     "own-address-spoofed",
	ReasonMulticast:   "multicast",
	ReasonUnicast:     "unicast",
	ReasonNotPeer:     "not-a-peer",
}

// String returns the name, such as "own-address-spoofed", or "none".
func (r Reason) String() string {
	switch {
	case r == 0:
		return "none"
	case r >= reasonEnd:
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// Meta is what vrrpcompat.Decode wants to know of the packet. unicast are the hop limits at which an advert that was sent
// to this host alone is read.
func (p *Packet) Meta(unicast vrrpcompat.Hops) vrrpcompat.Meta {
	return vrrpcompat.Meta{Source: p.Source, Destination: p.Destination, HopLimit: p.HopLimit, Unicast: unicast}
}

// A Peer is a router that is spoken to by unicast.
type Peer struct {
	Addr netip.Addr
	// Hops are the TTLs or hop limits that its packets may arrive with. Zero stands for {1, 255}: unlike multicast, unicast
	// may cross routers, and keepalived sends IPv6 with 64. {255, 255} admits only what was sent on the link (RFC 5082).
	Hops vrrpcompat.Hops
}

// Admit tells a virtual router with these peers how to read the packet, or why not to. Without peers it speaks
// multicast, with peers unicast; what came the other way is for somebody else. A packet that has a Reason keeps it. That
// the hop limit is within the bounds of the Meta is for Decode to see.
func (p *Packet) Admit(peers []Peer) (vrrpcompat.Meta, Reason) {
	multicast := p.Destination == p.Family.Group()
	switch {
	case p.Reason != 0:
		return vrrpcompat.Meta{}, p.Reason
	case multicast && len(peers) > 0:
		return vrrpcompat.Meta{}, ReasonMulticast
	case multicast:
		return p.Meta(vrrpcompat.Hops{}), 0
	case len(peers) == 0:
		return vrrpcompat.Meta{}, ReasonUnicast
	}
	for _, peer := range peers {
		if peer.Addr.WithZone("") != p.Source {
			continue
		}
		if peer.Hops == (vrrpcompat.Hops{}) {
			peer.Hops = vrrpcompat.Hops{Min: 1, Max: vrrpcompat.HopLimit}
		}
		return p.Meta(peer.Hops), 0
	}
	return vrrpcompat.Meta{}, ReasonNotPeer
}

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40

	// bufferLen holds the longest advert behind the longest header, and one byte more.
	bufferLen = vrrpcompat.MaxLen + 61
)

// parse reads the IP header at the start of b into p. length is the whole packet's, which is more than len(b) if it did
// not fit; bytes behind what the header counts are the link's padding.
func (p *Packet) parse(b []byte, length int) Reason {
	if p.Family == vrrpcompat.IPv4 {
		return p.parseIPv4(b, length)
	}
	return p.parseIPv6(b, length)
}

func (p *Packet) parseIPv4(b []byte, length int) Reason {
	if len(b) < ipv4HeaderLen {
		return ReasonIPHeader
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < ipv4HeaderLen || total < header || total > length || len(b) < header || !ipv4HeaderSound(b[:header]) {
		return ReasonIPHeader
	}
	p.Source, p.Destination = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p.HopLimit = int(b[8])
	const moreOrOffset = 0x3fff
	switch {
	case binary.BigEndian.Uint16(b[6:])&moreOrOffset != 0:
		return ReasonFragment
	case total > len(b) || total-header > vrrpcompat.MaxLen:
		return ReasonOversize
	}
	p.Payload = b[header:total]
	if b[9] == protocolAH {
		return p.skipAH()
	}
	return 0
}

// protocolAH is the IPsec authentication header (RFC 4302).
const protocolAH = 51

// skipAH takes the authentication header off the payload.
func (p *Packet) skipAH() Reason {
	b := p.Payload
	p.Payload = nil
	if len(b) < 2 || len(b) < (int(b[1])+2)*4 || b[0] != vrrpcompat.Protocol {
		return ReasonIPHeader
	}
	p.Payload = b[(int(b[1])+2)*4:]
	return ReasonAH
}

// ipv4HeaderSound verifies the header's checksum (RFC 791), which the kernel has not done yet where we read.
func ipv4HeaderSound(header []byte) bool {
	var sum uint32
	for ; len(header) > 0; header = header[2:] {
		sum += uint32(binary.BigEndian.Uint16(header))
	}
	return sum>>16+sum&0xffff == 0xffff
}

func (p *Packet) parseIPv6(b []byte, length int) Reason {
	if len(b) < ipv6HeaderLen {
		return ReasonIPHeader
	}
	total := ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || total > length {
		return ReasonIPHeader
	}
	p.Source, p.Destination = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	p.HopLimit = int(b[7])
	if total > len(b) || total-ipv6HeaderLen > vrrpcompat.MaxLen {
		return ReasonOversize
	}
	p.Payload = b[ipv6HeaderLen:total]
	return 0
}
