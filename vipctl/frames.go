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

var (
	noMAC      = make(net.HardwareAddr, macLen)
	allNodes   = netip.MustParseAddr("ff02::1")
	allNodesHW = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
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
		return arpFrame(arp.OperationRequest, mac, addr, noMAC, addr)
	case Reply:
		return arpFrame(arp.OperationReply, mac, addr, mac, addr)
	default:
		return nil, fmt.Errorf("gratuitous ARP for %s: no such form: %v", addr, form)
	}
}

// ProbeARP returns an Ethernet frame that asks who has the IPv4 address without
// claiming it: the sender's protocol address is 0.0.0.0, so that nobody's cache
// changes (RFC 5227, section 2.1.1). mac, 6 bytes, is where the answer goes.
func ProbeARP(addr netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	return arpFrame(arp.OperationRequest, mac, netip.IPv4Unspecified(), noMAC, addr)
}

func arpFrame(op arp.Operation, srcHW net.HardwareAddr, src netip.Addr, dstHW net.HardwareAddr, dst netip.Addr) ([]byte, error) {
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
	return frame(ethernet.Broadcast, srcHW, ethernet.EtherTypeARP, payload)
}

// UnsolicitedNA returns an Ethernet frame with a Neighbor Advertisement that
// tells all nodes that mac now has the IPv6 address (RFC 4861, section 7.2.6):
// Override set, so that caches change; Solicited clear, as nobody asked.
//
// router is the Router flag and must be what the host is, that is, whether it
// forwards IPv6 on the link: a host that sees a default router advertise itself
// with the flag clear stops using it.
func UnsolicitedNA(addr netip.Addr, mac net.HardwareAddr, router bool) ([]byte, error) {
	if err := checkTarget(addr, mac); err != nil {
		return nil, fmt.Errorf("neighbor advertisement for %s: %w", addr, err)
	}
	addr = addr.WithZone("")
	return ndpFrame(allNodesHW, mac, addr, allNodes, &ndp.NeighborAdvertisement{
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
