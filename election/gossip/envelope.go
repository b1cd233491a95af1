package gossip

import (
	"encoding/binary"
	"net/netip"
)

// memberlist does not say from whom a message came, so each of ours begins with
// the sender's listening address:
//
//	0  format, 1
//	1  length of the address, 4 or 16
//	2  address
//	…  port, big endian
//	…  payload
const (
	envelopeFormat = 1
	maxEnvelope    = 2 + 16 + 2
)

func appendEnvelope(b []byte, from netip.AddrPort) []byte {
	ip := from.Addr().AsSlice()
	b = append(b, envelopeFormat, byte(len(ip)))
	b = append(b, ip...)
	return binary.BigEndian.AppendUint16(b, from.Port())
}

// openEnvelope returns the sender and the payload, which is part of b.
func openEnvelope(b []byte) (from netip.AddrPort, payload []byte, ok bool) {
	if len(b) < 2 || b[0] != envelopeFormat {
		return from, nil, false
	}
	n := int(b[1])
	if (n != 4 && n != 16) || len(b) < 2+n+2 {
		return from, nil, false
	}
	ip, _ := netip.AddrFromSlice(b[2 : 2+n])
	port := binary.BigEndian.Uint16(b[2+n:])
	if ip.Is4In6() || port == 0 {
		return from, nil, false
	}
	return netip.AddrPortFrom(ip, port), b[2+n+2:], true
}
