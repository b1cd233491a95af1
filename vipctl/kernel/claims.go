package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/vipctl"
)

const (
	// Of each socket at most claimBurst claims are read in claimRest; what comes faster
	// the kernel drops, and counts. So a flood costs no more than a few hundred reads a
	// second.
	claimBurst = 64
	claimRest  = 100 * time.Millisecond
	// ownFor is how long the list of this host's hardware addresses is believed.
	ownFor = time.Second
)

// A Claim says that somebody else calls an address its own.
type Claim struct {
	Addr netip.Addr
	MAC  net.HardwareAddr
	// Dropped is how many claims, of any of the addresses, were lost since the last because
	// they came too fast.
	Dropped int
}

// WatchClaims calls heard for each ARP packet and Neighbor Advertisement on the device by
// which a hardware address that is not of this host says that one of the addresses is its
// own (RFC 5227, section 2.4), until ctx ends; then it returns nil. A virtual MAC address
// of a device of this host counts as another's, as in Probe. heard is called from several
// goroutines. While nobody claims anything this costs nothing: what does not concern the
// addresses stays in the kernel.
func (k *Kernel) WatchClaims(ctx context.Context, link string, addrs []netip.Addr, heard func(Claim)) error {
	l, err := k.Link(link)
	if err != nil {
		return fmt.Errorf("watch for other owners: %w", err)
	}
	if !l.announces() {
		<-ctx.Done()
		return nil
	}
	g, within := errgroup.WithContext(ctx)
	for _, p := range families(addrs) {
		conn, err := k.listenClaims(l, p.addrs)
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		w := &claimWatch{kernel: k, conn: conn, of: map[netip.Addr]bool{}, heard: heard}
		for _, a := range p.addrs {
			w.of[a] = true
		}
		g.Go(func() error { return w.run(within) })
	}
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch %s for other owners: %w", link, err)
	}
	return nil
}

// A claimWatch reads one socket.
type claimWatch struct {
	kernel *Kernel
	conn   *packet.Conn
	of     map[netip.Addr]bool
	heard  func(Claim)

	own   map[string]bool // this host's hardware addresses
	ownAt time.Time       // when they were looked up
}

func (w *claimWatch) run(ctx context.Context) error {
	defer w.conn.Close()
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 2048)
	var dropped int
	for {
		began := time.Now()
		for range claimBurst {
			n, _, err := w.conn.ReadFrom(b)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			told, err := w.take(b[:n], dropped)
			if err != nil {
				return err
			}
			if told {
				dropped = 0
			}
		}
		rest := claimRest - time.Since(began)
		if rest <= 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		if s, err := w.conn.Stats(); err == nil {
			dropped += int(s.Drops)
		}
	}
}

// take reports whether the frame was a claim of another.
func (w *claimWatch) take(frame []byte, dropped int) (told bool, err error) {
	addr, mac, ok := vipctl.ParseConflict(frame)
	if !ok || !w.of[addr] {
		return false, nil
	}
	own, err := w.isOwn(mac)
	if own || err != nil {
		return false, err
	}
	w.heard(Claim{addr, mac, dropped})
	return true, nil
}

// isOwn is ownMAC with a memory, as claims may come fast.
func (w *claimWatch) isOwn(mac net.HardwareAddr) (bool, error) {
	if w.own == nil || time.Since(w.ownAt) > ownFor {
		links, err := w.kernel.links()
		if err != nil {
			return false, err
		}
		w.own, w.ownAt = map[string]bool{}, time.Now()
		for _, l := range links {
			if l.VirtualOn == 0 {
				w.own[string(l.MAC)] = true
			}
		}
	}
	return w.own[string(mac)], nil
}
