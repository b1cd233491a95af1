package vipctl

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// ParseConflict reads a received Ethernet frame and reports whether its sender
// says that an address is its own, and which, and by what hardware address. That
// is: an ARP packet of either operation with a sender address other than 0.0.0.0
// (RFC 5227, section 2.4), or a Neighbor Advertisement that RFC 4861, section
// 7.1.2, calls valid. Every other frame, a question by probe included, is not ok.
// The hardware address is a copy.
func ParseConflict(frame []byte) (addr netip.Addr, mac net.HardwareAddr, ok bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(frame) != nil {
		return netip.Addr{}, nil, false
	}
	switch f.EtherType {
	case ethernet.EtherTypeARP:
		return parseARP(f.Payload)
	case ethernet.EtherTypeIPv6:
		return parseNA(f.Payload, f.Source)
	default:
		return netip.Addr{}, nil, false
	}
}

func parseARP(b []byte) (netip.Addr, net.HardwareAddr, bool) {
	var p arp.Packet
	if p.UnmarshalBinary(b) != nil || p.HardwareType != 1 || p.HardwareAddrLength != macLen ||
		p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4 {
		return netip.Addr{}, nil, false
	}
	if p.Operation != arp.OperationRequest && p.Operation != arp.OperationReply {
		return netip.Addr{}, nil, false
	}
	if p.SenderIP.IsUnspecified() || p.SenderIP.IsMulticast() {
		return netip.Addr{}, nil, false
	}
	return p.SenderIP, p.SenderHardwareAddr, true
}

func parseNA(b []byte, source net.HardwareAddr) (netip.Addr, net.HardwareAddr, bool) {
	no := func() (netip.Addr, net.HardwareAddr, bool) { return netip.Addr{}, nil, false }
	if len(b) < ipv6HeaderLen || b[0]>>4 != 6 || b[6] != protocolICMPv6 || b[7] != ndpHopLimit {
		return no()
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	msg := b[ipv6HeaderLen:]
	if n > len(msg) {
		return no()
	}
	msg = msg[:n] // what follows is Ethernet padding
	if len(msg) < 24 || msg[1] != 0 || !checksumOK(b[8:ipv6HeaderLen], msg) {
		return no()
	}
	m, err := ndp.ParseMessage(msg)
	if err != nil {
		return no()
	}
	na, isNA := m.(*ndp.NeighborAdvertisement)
	if !isNA || na.TargetAddress.IsMulticast() || na.TargetAddress.IsUnspecified() {
		return no()
	}
	if b[24] == 0xff && na.Solicited {
		return no()
	}
	mac := append(net.HardwareAddr(nil), source...)
	for _, o := range na.Options {
		if l, isLL := o.(*ndp.LinkLayerAddress); isLL && l.Direction == ndp.Target && len(l.Addr) == macLen {
			mac = append(net.HardwareAddr(nil), l.Addr...)
		}
	}
	return na.TargetAddress, mac, true
}

// checksumOK verifies the ICMPv6 checksum over the pseudo-header (RFC 8200,
// section 8.1): addrs are the 32 bytes of both addresses.
func checksumOK(addrs, msg []byte) bool {
	sum := uint32(len(msg)) + protocolICMPv6
	for _, part := range [][]byte{addrs, msg} {
		for len(part) >= 2 {
			sum += uint32(part[0])<<8 | uint32(part[1])
			part = part[2:]
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}
