package daemon

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// watchSettles is how long it takes until a change of what is held is followed: groups
	// come and go together, and each change opens the sockets anew.
	watchSettles = 20 * time.Millisecond
	// watchAgain is after how long a watch is tried again that failed.
	watchAgain = time.Second
)

// watches are the devices on which others are listened for that say they have an address
// which is held here. They belong to one goroutine.
type watches struct {
	lan *lan
	ctx context.Context
	on  map[string]*claimWatch
	all sync.WaitGroup
}

// A claimWatch is one device's.
type claimWatch struct {
	addrs []netip.Addr
	stop  context.CancelFunc
}

// follow listens for these addresses, by device, and for no others.
func (w *watches) follow(held map[string][]netip.Addr) {
	for link, c := range w.on {
		if !slices.Equal(c.addrs, held[link]) {
			c.stop()
			delete(w.on, link)
		}
	}
	for link, addrs := range held {
		if w.on[link] != nil {
			continue
		}
		ctx, stop := context.WithCancel(w.ctx)
		w.on[link] = &claimWatch{addrs, stop}
		w.all.Go(func() { w.lan.watch(ctx, link, addrs) })
	}
}

// end returns when nobody listens any more.
func (w *watches) end() {
	w.follow(nil)
	w.all.Wait()
}

// watch listens on one device until ctx ends. The device may be gone for a while.
func (l *lan) watch(ctx context.Context, link string, addrs []netip.Addr) {
	pause := watchSettles
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := l.kernel.WatchClaims(ctx, link, addrs, func(c kernel.Claim) { l.claimed(link, c) })
		if err != nil && l.seldom.Allow("claims "+link) {
			l.log.Warn("cannot listen for others that say they have an address of ours; it is tried again", "link", link, "error", err)
		}
		pause = watchAgain
	}
}

// claimed tells the agent of a claim to an address that is held here: of each address ten
// a second at most, the others are counted. A virtual MAC address is what all routers of
// the group have.
func (l *lan) claimed(link string, c kernel.Claim) {
	if g, above := groupOf(l.doc(), c.Addr); above {
		of := kernel.VirtualMAC{Family: vrrpcompat.FamilyOf(c.Addr), VRID: vrrpcompat.VRID(g.VRRP.ID)}
		if slices.Equal(c.MAC, of.MAC()) {
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims.Keep(func(a netip.Addr) bool { return l.held[link][a] })
	if !l.held[link][c.Addr] {
		return
	}
	if count, tell := l.claims.Heard(l.now(), c.Addr, 1+c.Dropped); tell {
		l.post(core.Claimed{Link: link, Addr: c.Addr, MAC: c.MAC.String(), Count: count})
	}
}
