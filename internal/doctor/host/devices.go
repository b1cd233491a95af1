package host

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
)

// A Use is a device and what of the cluster is on it.
type Use struct {
	Device             string
	Serves             []netip.Addr
	Adverts4, Adverts6 bool // go out here by multicast
	VMAC               bool // some of them from a virtual MAC address
}

// Describe looks at the devices and their sysctls.
func Describe(uses []Use) []doctor.Device {
	var out []doctor.Device
	for _, u := range uses {
		d := doctor.Device{Name: u.Device, Serves: []string{}, Adverts4: u.Adverts4, Adverts6: u.Adverts6, VMAC: u.VMAC}
		for _, a := range u.Serves {
			d.Serves = append(d.Serves, a.String())
		}
		if l, err := netlink.LinkByName(u.Device); err == nil {
			a := l.Attrs()
			d.Index, d.MTU, d.MAC = a.Index, a.MTU, a.HardwareAddr.String()
			d.Up, d.Carrier, d.NoARP = a.RawFlags&unix.IFF_UP != 0, a.RawFlags&unix.IFF_LOWER_UP != 0, a.RawFlags&unix.IFF_NOARP != 0
			d.Sysctls = effective(u.Device)
		}
		out = append(out, d)
	}
	return out
}

// ethernet reports whether frames can be exchanged on the device now.
func ethernet(d doctor.Device) (mac net.HardwareAddr, ok bool) {
	mac, err := net.ParseMAC(d.MAC)
	return mac, err == nil && len(mac) == 6 && mac.String() != "00:00:00:00:00:00" && d.Index != 0 && d.Up && d.Carrier && !d.NoARP
}

// RouteMTU is what this kernel believes of the way to an address, in bytes; 0: it does
// not know.
func RouteMTU(to netip.AddrPort) int {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	if !to.Addr().Unmap().Is4() {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
		at = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Connect(fd, at) != nil { // of a datagram socket: nothing is sent
		return 0
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0
	}
	return mtu
}
