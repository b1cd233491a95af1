package interop

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/tests/lab"
	"github.com/quorate/quorate/vrrpcompat"
)

// A forger sends packets from a host that no program would send.
type forger struct {
	host *lab.Host
	conn *packet.Conn
}

func newForger(h *lab.Host) (*forger, error) {
	f := &forger{host: h}
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			f.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_LOOPBACK, nil) // it only sends
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a raw socket on %s: %w", h.Name, err)
	}
	return f, nil
}

func (f *forger) close() { _ = f.conn.Close() }

func (f *forger) send(frame []byte) error {
	_, err := f.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

// An envelope is what is outside a VRRP message.
type envelope struct {
	from, to netip.Addr
	hops     byte
	proto    byte
	srcMAC   lab.MAC
	dstMAC   lab.MAC
}

// toGroup is an envelope from a host to all VRRP routers.
func toGroup(from netip.Addr, mac lab.MAC) envelope {
	group := vrrpcompat.FamilyOf(from).Group()
	e := envelope{from: from, to: group, hops: vrrpcompat.HopLimit, proto: vrrpcompat.Protocol, srcMAC: mac}
	if b := group.AsSlice(); from.Is4() { // RFC 1112, section 6.4
		e.dstMAC = lab.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	} else { // RFC 2464, section 7
		e.dstMAC = lab.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	return e
}

// frame puts a message into the envelope.
func (e envelope) frame(message []byte) []byte {
	out := append(e.dstMAC[:], e.srcMAC[:]...)
	if e.from.Is4() {
		out = binary.BigEndian.AppendUint16(out, unix.ETH_P_IP)
		ip := make([]byte, 20)
		ip[0], ip[1], ip[8], ip[9] = 0x45, 0xc0, e.hops, e.proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(message)))
		copy(ip[12:], e.from.AsSlice())
		copy(ip[16:], e.to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], onesComplement(ip))
		return append(append(out, ip...), message...)
	}
	out = binary.BigEndian.AppendUint16(out, unix.ETH_P_IPV6)
	ip := make([]byte, ip6Len)
	ip[0], ip[1], ip[6], ip[7] = 0x6c, 0, e.proto, e.hops
	binary.BigEndian.PutUint16(ip[4:], uint16(len(message)))
	copy(ip[8:], e.from.AsSlice())
	copy(ip[24:], e.to.AsSlice())
	return append(append(out, ip...), message...)
}

// onesComplement is the checksum of an IPv4 header (RFC 791, section 3.1).
func onesComplement(header []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// badSums returns messages whose checksum is wrong in every form: one that would take
// everything over and one that would give everything up, if it were believed.
func badSums(v virtual, e envelope) (all [][]byte, err error) {
	for _, p := range []vrrpcompat.Priority{vrrpcompat.Owner, vrrpcompat.Release} {
		m, err := advertOf(v, p).AppendTo(nil, e.from, e.to, vrrpcompat.PseudoHeader)
		if err != nil {
			return nil, err
		}
		m[6] ^= 0xa5 // the checksum's first byte
		all = append(all, m)
	}
	return all, nil
}

// advertOf is a sound advert for a virtual router.
func advertOf(v virtual, p vrrpcompat.Priority) vrrpcompat.Advert {
	a := vrrpcompat.Advert{
		Version: vrrpcompat.Version(v.version), VRID: vrrpcompat.VRID(v.vrid), Priority: p,
		Interval: vrrpcompat.Centis(v.interval / vrrpcompat.Centi),
	}
	for _, p := range v.addresses {
		a.Addresses = append(a.Addresses, p.Addr())
	}
	if v.password != "" {
		a.Auth.Type = vrrpcompat.AuthSimple
		copy(a.Auth.Data[:], v.password)
	}
	return a
}
