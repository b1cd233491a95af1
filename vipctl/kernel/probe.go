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
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

const (
	// probeChunk questions are sent at once, and probePause is before the next: 5,000 in
	// a second.
	probeChunk = 64
	probePause = probeChunk * time.Second / 5000
)

// errTaken ends the other family's questions when one of them was answered.
var errTaken = errors.New("an address is taken")

// Probe asks whether another host on the device's LAN has one of the addresses, by ARP
// probe or Neighbor Solicitation, changing nobody's cache. All are asked for together,
// count times, at least once; it listens gap after each round but the last, and wait
// after that. It returns the first address that a hardware address claims which is not
// one of this host's. On a device without Ethernet addresses nobody can be asked, and
// nobody is found.
//
// A question about an address that the fence has shut is dropped on its way out;
// that is an error, not silence.
func (k *Kernel) Probe(ctx context.Context, link string, addrs []netip.Addr, count int, gap, wait time.Duration) (
	addr netip.Addr, mac net.HardwareAddr, found bool, err error) {
	l, err := k.Link(link)
	if err != nil {
		return addr, nil, false, fmt.Errorf("probe %s: %w", named(addrs), err)
	}
	if !l.announces() {
		return addr, nil, false, nil
	}
	probes := families(addrs)
	g, within := errgroup.WithContext(ctx)
	for i := range probes {
		p := &probes[i]
		p.kernel, p.link, p.count, p.gap, p.wait = k, l, max(count, 1), gap, wait
		g.Go(func() error { return p.run(within) })
	}
	err = g.Wait()
	for _, p := range probes {
		if p.mac != nil {
			return p.taken, p.mac, true, nil
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return addr, nil, false, fmt.Errorf("probe %s on %s: %w", named(addrs), link, err)
	}
	return addr, nil, false, nil
}

// A probe asks for addresses of one family.
type probe struct {
	kernel    *Kernel
	link      LinkInfo
	addrs     []netip.Addr // without zone
	count     int
	gap, wait time.Duration

	taken netip.Addr
	mac   net.HardwareAddr // nil: nobody answered
}

func families(addrs []netip.Addr) []probe {
	var of4, of6 probe
	for _, a := range addrs {
		if a.Is4() {
			of4.addrs = append(of4.addrs, a)
		} else {
			of6.addrs = append(of6.addrs, a.WithZone(""))
		}
	}
	return slices.DeleteFunc([]probe{of4, of6}, func(p probe) bool { return len(p.addrs) == 0 })
}

// run asks until somebody answers, which is errTaken, or nobody has.
func (p *probe) run(ctx context.Context) error {
	questions, err := p.questions()
	if err != nil {
		return err
	}
	conn, err := p.listen()
	if err != nil {
		return err
	}
	defer conn.Close()
	// Whoever is waiting for a frame is woken by a deadline in the past.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for i := range p.count {
		listen := p.gap
		if i == p.count-1 {
			listen = p.wait
		}
		for chunk := range slices.Chunk(questions, probeChunk) {
			if err := sendOn(conn, p.link.Index, chunk); err != nil {
				return err
			}
			if len(questions) > probeChunk {
				if err := p.hear(ctx, conn, probePause); err != nil {
					return err
				}
			}
		}
		if err := p.hear(ctx, conn, listen); err != nil {
			return err
		}
	}
	return nil
}

func (p *probe) questions() ([][]byte, error) {
	ask := vipctl.NeighborSolicitation
	if p.addrs[0].Is4() {
		ask = vipctl.ProbeARP
	}
	out := make([][]byte, 0, len(p.addrs))
	for _, a := range p.addrs {
		q, err := ask(a, p.link.MAC)
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}

// listen opens a socket that hears claims of these addresses.
func (p *probe) listen() (*packet.Conn, error) {
	conn, err := p.kernel.listenClaims(p.link, p.addrs)
	if err != nil || p.addrs[0].Is4() {
		return conn, err
	}
	// The answer goes to all nodes; a device with IPv6 off does not hear those.
	if err := conn.JoinGroup(vipctl.AllNodesMAC()); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to all nodes: %w", err), conn.Close())
	}
	return conn, nil
}

// listenClaims opens a socket on which only claims of these addresses come in, which are
// of one family.
func (k *Kernel) listenClaims(l LinkInfo, addrs []netip.Addr) (*packet.Conn, error) {
	protocol := unix.ETH_P_IPV6
	if addrs[0].Is4() {
		protocol = unix.ETH_P_ARP
	}
	filter, err := bpf.Assemble(claimFilter(addrs))
	if err != nil {
		return nil, fmt.Errorf("assemble socket filter: %w", err)
	}
	return k.listen(l, protocol, &packet.Config{Filter: filter})
}

// Where a claim has the last four bytes of its address, from the start of its frame.
const (
	senderAt = 14 + 8 + 6       // the sender's address of ARP
	targetAt = 14 + 40 + 8 + 12 // the target's of a Neighbor Advertisement
)

// maxFiltered is how many addresses fit the kernel's 4,096 instructions; of more, each
// claim is looked at here.
const maxFiltered = 2000

// claimFilter lets claims of the addresses through, as far as their last four bytes tell.
// On a busy LAN nothing else wakes this process.
func claimFilter(addrs []netip.Addr) []bpf.Instruction {
	const outgoing = 4 // PACKET_OUTGOING
	accept, drop := bpf.RetConstant{Val: 2048}, bpf.RetConstant{Val: 0}
	prog := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: outgoing, SkipFalse: 1}, drop,
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}, // of another LAN on the same cable
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipFalse: 1}, drop,
	}
	at := uint32(senderAt)
	if addrs[0].Is6() {
		at = targetAt
		prog = append(prog,
			bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // next header
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipFalse: 1}, drop,
			bpf.LoadAbsolute{Off: 14 + 40, Size: 1}, // ICMPv6 type
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136, SkipFalse: 1}, drop)
	}
	if len(addrs) > maxFiltered {
		return append(prog, accept)
	}
	prog = append(prog, bpf.LoadAbsolute{Off: at, Size: 4})
	for _, a := range addrs {
		b := a.AsSlice()
		b = b[len(b)-4:]
		last := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: last, SkipFalse: 1}, accept)
	}
	return append(prog, drop)
}

// hear listens for a claim of one of the addresses by a hardware address not of this
// host; errTaken: there was one.
func (p *probe) hear(ctx context.Context, conn *packet.Conn, within time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return fmt.Errorf("set the time for listening: %w", err)
	}
	if ctx.Err() != nil { // it may have set its deadline before we set ours
		return ctx.Err()
	}
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		claimed, mac, ok := vipctl.ParseConflict(b[:n])
		if !ok || !slices.Contains(p.addrs, claimed) {
			continue
		}
		own, err := p.kernel.ownMAC(mac)
		if err != nil {
			return err
		}
		if !own {
			p.taken, p.mac = claimed, mac
			return errTaken
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
