package health

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// nonceLen is how many random bytes an echo request carries: the answer to another
// one, whoever sent it, is not taken for ours.
const nonceLen = 16

// icmpProbe sends one echo request and waits for its answer.
func icmpProbe(host string) probe {
	return func(ctx context.Context) error {
		to, err := resolve(ctx, host)
		if err != nil {
			return err
		}
		if err := ping(ctx, to); err != nil {
			return fmt.Errorf("ping %s: %w", to, err)
		}
		return nil
	}
}

// resolve finds the address of a host.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, netError(ctx, err)
	}
	return found[0].Unmap(), nil // an answer without addresses is an error
}

// A family is how ICMP is spoken in one version of IP.
type family struct {
	plain, raw     string // networks of icmp.ListenPacket: for anybody, and with CAP_NET_RAW
	any            string
	request, reply icmp.Type
	protocol       int // IANA's number
}

var families = map[bool]family{
	true:  {"udp4", "ip4:icmp", "0.0.0.0", ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 1},
	false: {"udp6", "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58},
}

func ping(ctx context.Context, to netip.Addr) error {
	if to.Zone() != "" {
		// The socket would take an unknown one for none.
		if _, err := net.InterfaceByName(to.Zone()); err != nil {
			return fmt.Errorf("device %s: %w", to.Zone(), err)
		}
	}
	f := families[to.Is4()]
	conn, raw, err := f.listen()
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(ctx, conn, raw, f, to)
}

// echo sends a request and waits for its answer.
func echo(ctx context.Context, conn *icmp.PacketConn, raw bool, f family, to netip.Addr) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var random [nonceLen + 2]byte
	_, _ = rand.Read(random[:]) // it never fails
	nonce := random[:nonceLen]
	// With a plain socket the kernel puts the identifier of its own.
	request := &icmp.Echo{ID: int(binary.BigEndian.Uint16(random[nonceLen:])), Seq: 1, Data: nonce}
	b, err := (&icmp.Message{Type: f.request, Body: request}).Marshal(nil) // the kernel sees to the checksum of IPv6
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	if _, err := conn.WriteTo(b, address(to, raw)); err != nil {
		return netError(ctx, err)
	}
	in := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(in)
		if err != nil {
			return netError(ctx, err)
		}
		if f.answers(in[:n], nonce) && addrOf(from) == to.WithZone("") {
			return nil
		}
	}
}

// listen opens a socket: the one that needs no privilege if the kernel gives it
// (net.ipv4.ping_group_range), because a raw one gets every ICMP packet of the host.
func (f family) listen() (conn *icmp.PacketConn, raw bool, err error) {
	conn, err = icmp.ListenPacket(f.plain, f.any)
	if err == nil {
		return conn, false, nil
	}
	conn, err = icmp.ListenPacket(f.raw, f.any)
	if err == nil {
		return conn, true, f.filter(conn)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, false, fmt.Errorf("%w; give the daemon CAP_NET_RAW, or set net.ipv4.ping_group_range", err)
	}
	return nil, false, err
}

// filter has the kernel keep from a raw socket all but echo replies.
func (f family) filter(conn *icmp.PacketConn) error {
	var err error
	if p := conn.IPv4PacketConn(); p != nil {
		var only ipv4.ICMPFilter
		only.SetAll(true)
		only.Accept(ipv4.ICMPTypeEchoReply)
		err = p.SetICMPFilter(&only)
	} else {
		var only ipv6.ICMPFilter
		only.SetAll(true)
		only.Accept(ipv6.ICMPTypeEchoReply)
		err = conn.IPv6PacketConn().SetICMPFilter(&only)
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("filter ICMP: %w", err)
	}
	return nil
}

// answers reports whether a packet answers the request with the nonce.
func (f family) answers(packet, nonce []byte) bool {
	m, err := icmp.ParseMessage(f.protocol, packet)
	if err != nil || m.Type != f.reply {
		return false
	}
	body, ok := m.Body.(*icmp.Echo)
	return ok && bytes.Equal(body.Data, nonce)
}

// address is to whom a request goes, as the socket wants it.
func address(to netip.Addr, raw bool) net.Addr {
	if raw {
		return &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0))
}

// addrOf is whom a packet came from.
func addrOf(from net.Addr) netip.Addr {
	var ip net.IP
	switch from := from.(type) {
	case *net.IPAddr:
		ip = from.IP
	case *net.UDPAddr:
		ip = from.IP
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
