package host

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
)

// A planting is a neighbour entry that was made for another node's test address.
type planting struct {
	from string // instance
	addr netip.Addr
}

// plant makes a neighbour entry for the test address of each other node, with a
// hardware address that nobody has: Linux takes note of an unsolicited announcement
// only where there is an entry already, as there is at who has spoken with the address
// lately. It makes none where the address could be somebody's.
func (s *seat) plant() (out []planting) {
	for i, p := range s.survey.Request.Nodes {
		if p.Instance == s.survey.Self.String() {
			continue
		}
		four, six := doctor.TestAddresses(s.survey.Request.Nonce, i)
		if s.serves(netip.Addr.Is4) {
			out = append(out, s.plantOne("garp", p.Instance, four, netlink.FAMILY_V4)...)
		}
		if s.serves(netip.Addr.Is6) && s.device.Sysctls["disable_ipv6"] == 0 {
			out = append(out, s.plantOne("na", p.Instance, six, netlink.FAMILY_V6)...)
		}
	}
	return out
}

func (s *seat) plantOne(id, from string, addr netip.Addr, family int) []planting {
	used, err := inUse(addr, family)
	if err == nil && used {
		s.out.unlooked(id, s.device.Name, fmt.Sprintf("this host has an address in the network of %s, which is for documentation; try again, "+
			"another network is taken then", addr))
		return nil
	}
	if err == nil {
		err = netlink.NeighAdd(s.entry(addr, family))
	}
	if err != nil {
		s.out.unlooked(id, s.device.Name, fmt.Sprintf("make a neighbour entry for %s: %v", addr, err))
		return nil
	}
	return []planting{{from, addr}}
}

func (s *seat) entry(addr netip.Addr, family int) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: s.device.Index, Family: family, State: unix.NUD_STALE, IP: addr.AsSlice(), HardwareAddr: doctor.PlantedMAC()}
}

// inUse reports whether this host has an address in the network that addr is of.
func inUse(addr netip.Addr, family int) (bool, error) {
	bits := 24
	if addr.Is6() {
		bits = 20
	}
	network := netip.PrefixFrom(addr, bits).Masked()
	list, err := netlink.AddrList(nil, family)
	if err != nil {
		return false, err
	}
	for _, a := range list {
		if own, ok := netip.AddrFromSlice(a.IP); ok && network.Contains(own.Unmap()) {
			return true, nil
		}
	}
	return false, nil
}

// harvest looks what became of the entries, and removes them.
func (s *seat) harvest(planted []planting) {
	for _, p := range planted {
		family, id := netlink.FAMILY_V4, "garp"
		if p.addr.Is6() {
			family, id = netlink.FAMILY_V6, "na"
		}
		list, err := netlink.NeighList(s.device.Index, family)
		found := false
		for _, n := range list {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == p.addr {
				found = true
				s.out.learn(doctor.Learnt{Device: s.device.Name, From: p.from, IPv6: p.addr.Is6(),
					Changed: !bytes.Equal(n.HardwareAddr, doctor.PlantedMAC())})
			}
		}
		if !found {
			s.out.unlooked(id, s.device.Name, fmt.Sprintf("the neighbour entry for %s went before its time (%v)", p.addr, err))
		}
		if err := netlink.NeighDel(s.entry(p.addr, family)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			s.out.unlooked(id, s.device.Name, fmt.Sprintf("remove the neighbour entry for %s, which goes by itself: %v", p.addr, err))
		}
	}
}
