package gossip

import (
	"encoding/binary"
	"net/netip"
)

// A kind says what a payload is about. One that is not known is counted and ignored: it
// is from a later version.
type kind uint8

const (
	_          kind = iota
	lease           // an election datagram
	neighbours      // hosts that talked to a virtual IP
	survey          // a test of the way between two nodes
)

// memberlist does not say from whom a message came, so each of ours begins with
// its kind and the sender's listening address:
//
//	0  kind
//	1  length of the address, 4 or 16
//	2  address
//	…  port, big endian
//	…  payload
const maxEnvelope = 2 + 16 + 2

func appendEnvelope(b []byte, k kind, from netip.AddrPort) []byte {
	ip := from.Addr().AsSlice()
	b = append(b, byte(k), byte(len(ip)))
	b = append(b, ip...)
	return binary.BigEndian.AppendUint16(b, from.Port())
}

// openEnvelope returns the kind, the sender and the payload, which is part of b.
func openEnvelope(b []byte) (k kind, from netip.AddrPort, payload []byte, ok bool) {
	if len(b) < 2 || b[0] == 0 {
		return 0, from, nil, false
	}
	n := int(b[1])
	if (n != 4 && n != 16) || len(b) < 2+n+2 {
		return 0, from, nil, false
	}
	ip, _ := netip.AddrFromSlice(b[2 : 2+n])
	port := binary.BigEndian.Uint16(b[2+n:])
	if ip.Is4In6() || port == 0 {
		return 0, from, nil, false
	}
	return kind(b[0]), netip.AddrPortFrom(ip, port), b[2+n+2:], true
}
