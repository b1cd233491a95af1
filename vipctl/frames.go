package vipctl

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// A Form is one of the two shapes of a gratuitous ARP packet. Receivers differ in
// which one they believe, so both are sent.
type Form uint8

const (
	_ Form = iota
	// Request is an ARP request for the sender's own address: the ARP
	// Announcement of RFC 5227, section 2.3.
	Request
	// Reply is an ARP reply that nobody asked for (RFC 5944, section 4.6).
	Reply
)

// String returns the form's name.
func (f Form) String() string {
	switch f {
	case Request:
		return "request"
	case Reply:
		return "reply"
	default:
		return fmt.Sprintf("form(%d)", uint8(f))
	}
}

const macLen = 6

// An Audience is to whom an unsolicited Neighbor Advertisement goes.
type Audience uint8

const (
	_ Audience = iota
	// AllNodes is ff02::1: whoever has an entry for the address corrects it (RFC 4861,
	// section 7.2.6).
	AllNodes
	// AllRouters is ff02::2: a router that follows RFC 9131 makes an entry where it has
	// none, so that the first packet from outside need not wait for its question.
	AllRouters
)

// String returns the audience's name.
func (a Audience) String() string {
	switch a {
	case AllNodes:
		return "all nodes"
	case AllRouters:
		return "all routers"
	default:
		return fmt.Sprintf("audience(%d)", uint8(a))
	}
}

var (
	noMAC        = make(net.HardwareAddr, macLen)
	allNodes     = netip.MustParseAddr("ff02::1")
	allNodesHW   = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	allRouters   = netip.MustParseAddr("ff02::2")
	allRoutersHW = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}
)

// AllNodesMAC is the Ethernet group of ff02::1, in which Neighbor Advertisements
// for everybody travel (RFC 2464, section 7).
func AllNodesMAC() net.HardwareAddr { return append(net.HardwareAddr(nil), allNodesHW...) }

// GratuitousARP returns an Ethernet frame that tells everybody on the LAN that
// mac now has the IPv4 address. The sender's and the target's protocol address
// are both addr. The target's hardware address is zero in a request (RFC 5227)
// and mac in a reply (RFC 5944). mac has 6 bytes.
func GratuitousARP(addr netip.Addr, mac net.HardwareAddr, form Form) ([]byte, error) {
	switch form {
	case Request:
		return arpFrame(ethernet.Broadcast, arp.OperationRequest, mac, addr, noMAC, addr)
	case Reply:
		return arpFrame(ethernet.Broadcast, arp.OperationReply, mac, addr, mac, addr)
	default:
		return nil, fmt.Errorf("gratuitous ARP for %s: no such form: %v", addr, form)
	}
}

// ProbeARP returns an Ethernet frame that asks who has the IPv4 address without
// claiming it: the sender's protocol address is 0.0.0.0, so that nobody's cache
// changes (RFC 5227, section 2.1.1). mac, 6 bytes, is where the answer goes.
func ProbeARP(addr netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	return arpFrame(ethernet.Broadcast, arp.OperationRequest, mac, netip.IPv4Unspecified(), noMAC, addr)
}

// TellARP returns an Ethernet frame that tells one neighbour alone that mac now has the
// IPv4 address: a request for the neighbour's own address, from addr.
//
// A request and no reply, for three reasons. RFC 826 has whoever is asked take note of
// who asks, before it answers. Linux does so without the second of locktime in which
// it ignores a reply, also where gratuitous ARP is refused (arp_accept,
// drop_gratuitous_arp), as this is none. And it is what every host gets all day, so no
// filter takes it out.
func TellARP(addr netip.Addr, mac net.HardwareAddr, to Neighbour) ([]byte, error) {
	if !addr.Is4() || !to.Addr.Is4() {
		return nil, fmt.Errorf("tell %s of %s: not two IPv4 addresses", to.Addr, addr)
	}
	return arpFrame(to.MAC[:], arp.OperationRequest, mac, addr, noMAC, to.Addr)
}

func arpFrame(ether net.HardwareAddr, op arp.Operation, srcHW net.HardwareAddr, src netip.Addr, dstHW net.HardwareAddr, dst netip.Addr) ([]byte, error) {
	if !dst.Is4() {
		return nil, fmt.Errorf("ARP frame for %s: not an IPv4 address", dst)
	}
	if err := checkMAC(srcHW); err != nil {
		return nil, fmt.Errorf("ARP frame for %s: %w", dst, err)
	}
	p, err := arp.NewPacket(op, srcHW, src, dstHW, dst)
	if err != nil {
		return nil, fmt.Errorf("ARP frame for %s: %w", dst, err)
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode ARP packet for %s: %w", dst, err)
	}
	return frame(ether, srcHW, ethernet.EtherTypeARP, payload)
}

// UnsolicitedNA returns an Ethernet frame with a Neighbor Advertisement that
// tells an audience that mac now has the IPv6 address (RFC 4861, section 7.2.6):
// Override set, so that caches change; Solicited clear, as nobody asked. RFC 9131 wants
// Override clear towards routers, from a host that may not be the only one with a new
// address; an owner of a virtual IP is, and their entry names the last one.
//
// router is the Router flag and must be what the host is, that is, whether it
// forwards IPv6 on the link: a host that sees a default router advertise itself
// with the flag clear stops using it.
func UnsolicitedNA(addr netip.Addr, mac net.HardwareAddr, router bool, to Audience) ([]byte, error) {
	switch to {
	case AllNodes:
		return naFrame(allNodesHW, allNodes, addr, mac, router)
	case AllRouters:
		return naFrame(allRoutersHW, allRouters, addr, mac, router)
	default:
		return nil, fmt.Errorf("neighbor advertisement for %s: no such audience: %v", addr, to)
	}
}

// TellNS returns an Ethernet frame that tells one neighbour alone that mac now has the
// IPv6 address: a Neighbor Solicitation for the neighbour's own address, from addr, as
// TellARP is a request. Whoever is asked takes note of the source's link-layer address
// (RFC 4861, section 7.2.3), also where unsolicited advertisements are refused
// (drop_unsolicited_na), and where there is no entry yet.
func TellNS(addr netip.Addr, mac net.HardwareAddr, to Neighbour) ([]byte, error) {
	if err := checkTarget(addr, mac); err != nil {
		return nil, fmt.Errorf("tell %s of %s: %w", to.Addr, addr, err)
	}
	if !to.Addr.Is6() || to.Addr.Is4In6() {
		return nil, fmt.Errorf("tell %s of %s: not two IPv6 addresses", to.Addr, addr)
	}
	return ndpFrame(to.MAC[:], mac, addr.WithZone(""), to.Addr.WithZone(""), &ndp.NeighborSolicitation{
		TargetAddress: to.Addr.WithZone(""),
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}},
	})
}

func naFrame(dstHW net.HardwareAddr, dst, addr netip.Addr, mac net.HardwareAddr, router bool) ([]byte, error) {
	if err := checkTarget(addr, mac); err != nil {
		return nil, fmt.Errorf("neighbor advertisement for %s: %w", addr, err)
	}
	addr = addr.WithZone("")
	return ndpFrame(dstHW, mac, addr, dst, &ndp.NeighborAdvertisement{
		Router:        router,
		Override:      true,
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	})
}

// NeighborSolicitation returns an Ethernet frame that asks who has the IPv6
// address without claiming it, as Duplicate Address Detection does: from the
// unspecified address to the solicited-node group, and with no option (RFC 4862,
// section 5.4.2). The owner answers to all nodes.
func NeighborSolicitation(addr netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	if err := checkTarget(addr, mac); err != nil {
		return nil, fmt.Errorf("neighbor solicitation for %s: %w", addr, err)
	}
	addr = addr.WithZone("")
	group, err := ndp.SolicitedNodeMulticast(addr)
	if err != nil {
		return nil, fmt.Errorf("neighbor solicitation for %s: %w", addr, err)
	}
	g := group.As16()
	hw := net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}
	return ndpFrame(hw, mac, netip.IPv6Unspecified(), group, &ndp.NeighborSolicitation{TargetAddress: addr})
}

const (
	ipv6HeaderLen  = 40
	protocolICMPv6 = 58
	ndpHopLimit    = 255 // proves that no router forwarded it (RFC 4861, section 3.1)
)

func ndpFrame(dstHW, srcHW net.HardwareAddr, src, dst netip.Addr, m ndp.Message) ([]byte, error) {
	msg, err := ndp.MarshalMessageChecksum(m, src, dst)
	if err != nil {
		return nil, fmt.Errorf("encode neighbor discovery message: %w", err)
	}
	b := make([]byte, ipv6HeaderLen, ipv6HeaderLen+len(msg))
	b[0] = 6 << 4
	b[4], b[5] = byte(len(msg)>>8), byte(len(msg))
	b[6] = protocolICMPv6
	b[7] = ndpHopLimit
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return frame(dstHW, srcHW, ethernet.EtherTypeIPv6, append(b, msg...))
}

func frame(dst, src net.HardwareAddr, et ethernet.EtherType, payload []byte) ([]byte, error) {
	f := ethernet.Frame{Destination: dst, Source: src, EtherType: et, Payload: payload}
	b, err := f.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode Ethernet frame: %w", err)
	}
	return b, nil
}

func checkTarget(addr netip.Addr, mac net.HardwareAddr) error {
	if !addr.Is6() || addr.Is4In6() {
		return fmt.Errorf("%s is not an IPv6 address", addr)
	}
	return checkMAC(mac)
}

func checkMAC(mac net.HardwareAddr) error {
	if len(mac) != macLen {
		return fmt.Errorf("hardware address %q has %d bytes, an Ethernet address has %d", mac, len(mac), macLen)
	}
	return nil
}
