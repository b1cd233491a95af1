package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// An Address is one on a device, and how it stands there.
type Address struct {
	Link   string
	Prefix netip.Prefix
	Spec   fsm.AddressSpec // its Interface is not looked at: Link is the device
}

// String is the address and its device.
func (a Address) String() string { return a.Prefix.String() + " on " + a.Link }

// An address as it stands on a device.
type address struct {
	index     int
	prefix    netip.Prefix
	permanent bool
	flags     int
	valid     time.Duration // what is left; meaningless when permanent
	scope     uint8
	label     string // IPv4
	protocol  uint8  // who put it there; 0: unknown
}

// held is an address on a device, whatever its prefix length.
type held struct {
	index int
	addr  netip.Addr
}

const (
	forever  = math.MaxUint32 // as a lifetime
	ifaProto = 11             // IFA_PROTO of include/uapi/linux/if_addr.h, from Linux 5.18
)

// addresses returns what is on the device of that index, or with 0 on all.
func (k *Kernel) addresses(index int) ([]address, error) {
	return dump("addresses", func() (all []address, err error) {
		err = k.conn.ask(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(m message) {
			if a, ok := addressOf(m); ok && (index == 0 || a.index == index) {
				all = append(all, a)
			}
		})
		return all, err
	})
}

// addressOf reads a message of struct ifaddrmsg (rtnetlink(7)).
func addressOf(m message) (a address, ok bool) {
	if m.kind != unix.RTM_NEWADDR || len(m.data) < unix.SizeofIfAddrmsg {
		return a, false
	}
	a = address{index: int(uint32Of(m.data[4:])), flags: int(m.data[2]), scope: m.data[3]}
	var local, other netip.Addr
	valid := uint32(forever)
	for kind, value := range attributes(m.data[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(value)
		case unix.IFA_LABEL:
			a.label = unix.ByteSliceToString(value)
		case unix.IFA_FLAGS:
			a.flags = int(uint32Of(value))
		case unix.IFA_CACHEINFO:
			if len(value) >= unix.SizeofIfaCacheinfo {
				valid = uint32Of(value[4:])
			}
		case ifaProto:
			if len(value) == 1 {
				a.protocol = value[0]
			}
		}
	}
	addr, bits := other, int(m.data[1])
	if local.IsValid() {
		if addr = local; other.IsValid() && other != local {
			bits = local.BitLen() // on point-to-point devices the length is that of the other end
		}
	}
	a.prefix = netip.PrefixFrom(addr, bits)
	a.permanent = a.flags&unix.IFA_F_PERMANENT != 0 || valid == forever
	a.valid = time.Duration(valid) * time.Second
	return a, a.prefix.IsValid()
}

// request writes what is common to adding and deleting an address.
func (a address) request(b *batch, kind, flags uint16) {
	addr := a.prefix.Addr()
	// struct ifaddrmsg: family, prefix length, flags, scope, index
	b.add(kind, flags, binary.NativeEndian.AppendUint32(
		[]byte{familyOf(addr), byte(a.prefix.Bits()), 0, a.scope}, uint32(a.index)))
	raw := addr.AsSlice()
	b.attr(unix.IFA_LOCAL, raw)
	b.attr(unix.IFA_ADDRESS, raw) // without a broadcast address: the host's own address sees to that
}

// add writes the request that puts the address there, or renews it.
func (a address) add(b *batch, flags uint16) {
	a.request(b, unix.RTM_NEWADDR, flags|unix.NLM_F_CREATE)
	b.attr32(unix.IFA_FLAGS, uint32(a.flags))
	if a.label != "" {
		b.attr(unix.IFA_LABEL, append([]byte(a.label), 0))
	}
	valid := uint32(seconds(a.valid))
	preferred := valid // IPv4 knows no preference and would only show "deprecated"
	if a.prefix.Addr().Is6() {
		preferred = 0 // never chosen as a source
	}
	// struct ifa_cacheinfo: preferred, valid, and two instants that the kernel sets
	info := binary.NativeEndian.AppendUint32(make([]byte, 0, unix.SizeofIfaCacheinfo), preferred)
	b.attr(unix.IFA_CACHEINFO, append(binary.NativeEndian.AppendUint32(info, valid), make([]byte, 8)...))
	b.attr(ifaProto, []byte{a.protocol})
}

func (a address) delete(b *batch) { a.request(b, unix.RTM_DELADDR, 0) }

// scopeOf is the kernel's number for a scope (rtnetlink(7)).
func scopeOf(s fsm.Scope) uint8 {
	switch s {
	case fsm.ScopeSite:
		return unix.RT_SCOPE_SITE
	case fsm.ScopeLink:
		return unix.RT_SCOPE_LINK
	case fsm.ScopeHost:
		return unix.RT_SCOPE_HOST
	default:
		return unix.RT_SCOPE_UNIVERSE
	}
}

// seconds rounds up, so that renewing in time is enough to keep an address; and
// stops at 68 years, short of the value that means for ever.
func seconds(d time.Duration) int {
	s := int64(math.Ceil(d.Seconds()))
	return int(min(max(s, 1), math.MaxInt32))
}

// notOurs is why an address is left alone, "" if it is ours.
func notOurs(a address) string {
	switch {
	case a.permanent:
		return fmt.Sprintf("%s stands there without a lifetime, so it belongs to this host's own configuration, "+
			"and the host goes on answering for it; remove it there", a.prefix)
	case a.protocol == 0:
		return fmt.Sprintf("%s stands there without the mark of this program (ip -d addr shows no proto %d), so another one, such as "+
			"a DHCP client, has put it there, and the host goes on answering for it; remove it there", a.prefix, Protocol)
	default:
		return fmt.Sprintf("%s stands there with the mark of another program (proto %d; this one's is %d), "+
			"and the host goes on answering for it; remove it there", a.prefix, a.protocol, Protocol)
	}
}
