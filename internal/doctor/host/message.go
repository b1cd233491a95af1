package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
)

// A message is what is sent to one of VRRP's groups, by the same kind of socket as
// adverts are, so that this host's own filters meet it too.
type message struct {
	kind doctor.Kind
	fd   int
	to   unix.Sockaddr
	body []byte
}

// id is the check that the message is for.
func (m message) id() string {
	if m.kind == doctor.Multicast4 || m.kind == doctor.Multicast6 {
		return "multicast"
	}
	return "protocol-112"
}

func (m message) send() error { return unix.Sendto(m.fd, m.body, unix.MSG_DONTWAIT, m.to) }

func (m message) close() { _ = unix.Close(m.fd) }

// discardPort is where nobody listens (RFC 863).
const discardPort = 9

// messages opens a socket for each kind that the device's groups use.
func (s *seat) messages() (out []message) {
	var kinds []doctor.Kind
	if s.device.Adverts4 {
		kinds = append(kinds, doctor.Multicast4, doctor.Protocol4)
	}
	if s.device.Adverts6 {
		kinds = append(kinds, doctor.Multicast6, doctor.Protocol6)
	}
	for _, k := range kinds {
		m, err := openMessage(k, s.device.Index)
		if err != nil {
			s.out.unlooked(m.id(), s.device.Name, err.Error())
			continue
		}
		m.body = s.tag(k).Message()
		out = append(out, m)
	}
	return out
}

func openMessage(k doctor.Kind, index int) (message, error) {
	m := message{kind: k}
	family, kind, protocol, port := unix.AF_INET, unix.SOCK_DGRAM, 0, discardPort
	if k == doctor.Protocol4 || k == doctor.Protocol6 {
		kind, protocol, port = unix.SOCK_RAW, 112, 0
	}
	if k == doctor.Multicast6 || k == doctor.Protocol6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return m, fmt.Errorf("open a socket for %s: %w", k, err)
	}
	m.fd = fd
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	if family == unix.AF_INET {
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, doctor.Hops)
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0)
		if err == nil {
			err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
		}
		m.to = &unix.SockaddrInet4{Port: port, Addr: doctor.Group4.As4()}
	} else {
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, doctor.Hops)
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
		m.to = &unix.SockaddrInet6{Port: port, Addr: doctor.Group6.As16(), ZoneId: uint32(index)}
	}
	if err != nil {
		return m, errors.Join(fmt.Errorf("set up a socket for %s: %w", k, err), unix.Close(fd))
	}
	return m, nil
}
