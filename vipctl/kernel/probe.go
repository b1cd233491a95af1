package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

// Probe asks whether another host on the device's LAN has the address, by ARP
// probe or Neighbor Solicitation, changing nobody's cache. It asks count times, at
// least once, listens gap after each question but the last, and wait after that.
// It returns the first hardware address that claims the address and is not one of
// this host's. On a device without Ethernet addresses nobody can be asked, and
// nobody is found.
//
// A question about an address that the fence has shut is dropped on its way out;
// that is an error, not silence.
func (k *Kernel) Probe(ctx context.Context, link string, addr netip.Addr, count int, gap, wait time.Duration) (
	mac net.HardwareAddr, found bool, err error) {
	l, err := k.Link(link)
	if err != nil {
		return nil, false, fmt.Errorf("probe %s: %w", addr, err)
	}
	if !l.announces() {
		return nil, false, nil
	}
	mac, err = k.probe(ctx, l, addr.WithZone(""), max(count, 1), gap, wait)
	if err != nil {
		return nil, false, fmt.Errorf("probe %s on %s: %w", addr, link, err)
	}
	return mac, mac != nil, nil
}

func (k *Kernel) probe(ctx context.Context, l LinkInfo, addr netip.Addr, count int, gap, wait time.Duration) (
	net.HardwareAddr, error) {
	question, conn, err := k.prepare(l, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Whoever is waiting for a frame is woken by a deadline in the past.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for i := range count {
		if err := sendOn(conn, question); err != nil {
			return nil, err
		}
		listen := gap
		if i == count-1 {
			listen = wait
		}
		mac, err := k.hear(ctx, conn, addr, listen)
		if mac != nil || err != nil {
			return mac, err
		}
	}
	return nil, nil
}

// prepare makes the question and opens a socket that hears the answers.
func (k *Kernel) prepare(l LinkInfo, addr netip.Addr) ([]byte, *packet.Conn, error) {
	if addr.Is4() {
		question, err := vipctl.ProbeARP(addr, l.MAC)
		if err != nil {
			return nil, nil, err
		}
		conn, err := k.listen(l, unix.ETH_P_ARP, nil)
		return question, conn, err
	}
	question, err := vipctl.NeighborSolicitation(addr, l.MAC)
	if err != nil {
		return nil, nil, err
	}
	filter, err := bpf.Assemble(advertisements)
	if err != nil {
		return nil, nil, fmt.Errorf("assemble socket filter: %w", err)
	}
	conn, err := k.listen(l, unix.ETH_P_IPV6, &packet.Config{Filter: filter})
	if err != nil {
		return nil, nil, err
	}
	// The answer goes to all nodes; a device with IPv6 off does not hear those.
	if err := conn.JoinGroup(vipctl.AllNodesMAC()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen to all nodes: %w", err), conn.Close())
	}
	return question, conn, nil
}

// advertisements lets Neighbor Advertisements through: on a busy host the others
// would fill the socket.
var advertisements = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // next header
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 14 + 40, Size: 1}, // ICMPv6 type
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136, SkipTrue: 1},
	bpf.RetConstant{Val: 2048},
	bpf.RetConstant{Val: 0},
}

// hear listens for a claim of the address by a hardware address not of this host.
func (k *Kernel) hear(ctx context.Context, conn *packet.Conn, addr netip.Addr, within time.Duration) (net.HardwareAddr, error) {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, fmt.Errorf("set the time for listening: %w", err)
	}
	if ctx.Err() != nil { // it may have set its deadline before we set ours
		return nil, ctx.Err()
	}
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		claimed, mac, ok := vipctl.ParseConflict(b[:n])
		if !ok || claimed != addr {
			continue
		}
		own, err := k.ownMAC(mac)
		if err != nil {
			return nil, err
		}
		if !own {
			return mac, nil
		}
	}
}

// ownMAC reports whether a hardware address is one of this host's own. A virtual MAC is not: whoever answers by it is
// another router, for the kernel does not give us what our own device sends.
func (k *Kernel) ownMAC(mac net.HardwareAddr) (bool, error) {
	links, err := k.links()
	if err != nil {
		return false, err
	}
	for _, l := range links {
		if l.VirtualOn == 0 && slices.Equal(l.MAC, mac) {
			return true, nil
		}
	}
	return false, nil
}
