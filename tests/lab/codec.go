package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// questions returns the codec for an address as the host asks for it, and its questions.
func (h *Host) questions(target netip.Addr, index int) (c codec, frames [senderIDs][]byte, err error) {
	if target.Is4() {
		c = newARPCodec(h.MAC, target, index)
	} else {
		c = newNDPCodec(h.MAC, target, index)
		if err := h.addSenders6(index); err != nil {
			return nil, frames, err
		}
	}
	for id := range frames {
		if frames[id], err = c.question(id); err != nil {
			return nil, frames, err
		}
	}
	return c, frames, nil
}

// Questions are those of a probe, for an observer that looks for the answers where they
// come from: see [Host.Capture].
type Questions struct {
	Frames [senderIDs][]byte // to be sent in turn, from the host
	codec  codec
}

// Questions returns the questions for an address, asked from the host.
func (h *Host) Questions(target netip.Addr) (*Questions, error) {
	c, frames, err := h.questions(target, 0)
	return &Questions{frames, c}, err
}

// Answered returns which of the questions a frame answers; not ok: none.
func (q *Questions) Answered(frame []byte) (id int, ok bool) {
	_, id, ok = q.codec.parse(frame)
	return id, ok && id >= 0
}

// arpCodec asks by ARP request. Its sender addresses are 10.0.0.128 and up: nobody's
// own, since an ARP answer goes straight to the hardware address in the question.
type arpCodec struct {
	self   MAC
	target netip.Addr
	first  byte // last octet of the first sender address
}

func newARPCodec(self MAC, target netip.Addr, index int) arpCodec {
	return arpCodec{self, target, byte(firstSender + senderIDs*index)}
}

func (c arpCodec) protocol() int { return unix.ETH_P_ARP }

func (c arpCodec) sender(id int) netip.Addr {
	b := c.target.As4()
	b[3] = c.first + byte(id)
	return netip.AddrFrom4(b)
}

func (c arpCodec) question(id int) ([]byte, error) {
	pkt, err := arp.NewPacket(arp.OperationRequest, c.self[:], c.sender(id), make(net.HardwareAddr, 6), c.target)
	if err != nil {
		return nil, fmt.Errorf("build ARP request: %w", err)
	}
	body, err := pkt.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode ARP request: %w", err)
	}
	f := ethernet.Frame{Destination: ethernet.Broadcast, Source: c.self[:], EtherType: ethernet.EtherTypeARP, Payload: body}
	return f.MarshalBinary()
}

func (c arpCodec) parse(frame []byte) (MAC, int, bool) {
	var f ethernet.Frame
	var pkt arp.Packet
	if f.UnmarshalBinary(frame) != nil || pkt.UnmarshalBinary(f.Payload) != nil || pkt.SenderIP != c.target {
		return MAC{}, 0, false
	}
	mac := toMAC(pkt.SenderHardwareAddr)
	if mac == c.self {
		return MAC{}, 0, false
	}
	if pkt.Operation == arp.OperationReply && toMAC(pkt.TargetHardwareAddr) == c.self {
		for id := range senderIDs {
			if pkt.TargetIP == c.sender(id) {
				return mac, id, true
			}
		}
	}
	return mac, -1, true
}

// ndpCodec asks by neighbour solicitation. An answer goes to the sender's IP address,
// so a probe's host really has these.
type ndpCodec struct {
	self   MAC
	target netip.Addr
	index  int
}

func newNDPCodec(self MAC, target netip.Addr, index int) ndpCodec {
	return ndpCodec{self, target, index}
}

func sender6(index, id int) netip.Addr { return numbered6(0xa5+uint16(index), id) }

// addSenders6 gives the host the sender addresses of an IPv6 probe.
func (h *Host) addSenders6(index int) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: h.ifi.Index}}
	for id := range senderIDs {
		addr := &netlink.Addr{
			IPNet: &net.IPNet{IP: sender6(index, id).AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD,
		}
		if err := h.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("give %s the probe's sender address %v: %w", h.Name, addr.IPNet, err)
		}
	}
	return nil
}

func (c ndpCodec) protocol() int { return unix.ETH_P_IPV6 }

const (
	ipv6Header = 40
	protoICMP6 = 58
)

func (c ndpCodec) question(id int) ([]byte, error) {
	src := sender6(c.index, id)
	dst, err := ndp.SolicitedNodeMulticast(c.target)
	if err != nil {
		return nil, fmt.Errorf("find the multicast group of %s: %w", c.target, err)
	}
	ns := &ndp.NeighborSolicitation{
		TargetAddress: c.target,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: c.self[:]}},
	}
	icmp, err := ndp.MarshalMessageChecksum(ns, src, dst)
	if err != nil {
		return nil, fmt.Errorf("encode neighbour solicitation: %w", err)
	}
	ip := make([]byte, ipv6Header, ipv6Header+len(icmp))
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(len(icmp)))
	ip[6], ip[7] = protoICMP6, ndp.HopLimit // RFC 4861, section 7.1.1: 255 or it is dropped
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	group := dst.As16()
	f := ethernet.Frame{ // RFC 2464, section 7: 33:33 and the group's last four bytes
		Destination: net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]},
		Source:      c.self[:], EtherType: ethernet.EtherTypeIPv6, Payload: append(ip, icmp...),
	}
	return f.MarshalBinary()
}

func (c ndpCodec) parse(frame []byte) (MAC, int, bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(frame) != nil || len(f.Payload) < ipv6Header || f.Payload[6] != protoICMP6 {
		return MAC{}, 0, false
	}
	length := int(binary.BigEndian.Uint16(f.Payload[4:]))
	if len(f.Payload) < ipv6Header+length {
		return MAC{}, 0, false
	}
	msg, err := ndp.ParseMessage(f.Payload[ipv6Header : ipv6Header+length])
	if err != nil {
		return MAC{}, 0, false
	}
	na, ok := msg.(*ndp.NeighborAdvertisement)
	if !ok || na.TargetAddress != c.target {
		return MAC{}, 0, false
	}
	mac := toMAC(f.Source)
	for _, o := range na.Options {
		if lla, ok := o.(*ndp.LinkLayerAddress); ok && lla.Direction == ndp.Target {
			mac = toMAC(lla.Addr)
		}
	}
	if na.Solicited {
		dst := netip.AddrFrom16([16]byte(f.Payload[24:ipv6Header]))
		for id := range senderIDs {
			if dst == sender6(c.index, id) {
				return mac, id, true
			}
		}
	}
	return mac, -1, true
}
