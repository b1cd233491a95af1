package sim

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

var (
	errKernel = errors.New("the kernel says no")
	errDisk   = errors.New("no space left on device")
)

// Now reads CLOCK_BOOTTIME. The process can be stopped with the reading in its hand.
func (p *process) Now() election.Instant {
	t := p.clock()
	p.current.read = t
	if p.trap != nil {
		p.at(afterClock)
	}
	return t
}

// readClock is adjtimex(2).
func (p *process) readClock() (election.ClockReading, error) {
	return election.ClockReading{Tick: 10_000 + int64(p.slew*10_000)}, nil
}

// writeHold puts the longest hold on the disk.
func (p *process) writeHold(hold time.Duration) error {
	p.at(beforeHold)
	p.sleep(p.w.diskTime())
	if p.w.chance(p.w.env.DiskFails) {
		return errDisk
	}
	p.longest = hold
	p.at(afterHold)
	return nil
}

// diskTime is how long an fsync takes.
func (w *World) diskTime() time.Duration { return w.jitter(500*time.Microsecond, 6*time.Millisecond) }

// A fencePort is the map of the fence.
type fencePort struct{ *process }

// Set writes an entry.
func (p fencePort) Set(addr netip.Addr, until election.Instant) error {
	p.at(beforeFence)
	if p.w.chance(p.w.env.FenceFails) {
		return errKernel
	}
	if p.lifetime {
		return nil
	}
	p.checkDeadline(addr, until)
	if until != 0 && p.bareKnown {
		p.w.violated("n%d opens the fence of %s, and a device is without it", p.i+1, addr)
	}
	if until != 0 {
		p.checkGate(addr)
	}
	p.w.tellFence(p.host, addr, until)
	if until != 0 {
		p.w.extends(p.host, p.w.address(addr))
	}
	p.setFence(p.w.address(addr), until)
	p.at(afterFence)
	return nil
}

// Delete removes an entry.
func (p fencePort) Delete(addr netip.Addr) error {
	if p.lifetime {
		return nil
	}
	p.w.tell("n%d fence of %s deleted", p.i+1, addr)
	p.deleteFence(p.w.address(addr))
	return nil
}

// A hostPort is the host's addresses.
type hostPort struct{ *process }

// AddAddress adds the address or renews its lifetime.
func (p hostPort) AddAddress(link string, prefix netip.Prefix, valid time.Duration) error {
	if p.lifetime { // the time counts from now, whenever the kernel gets to it
		p.kernelTime(0)
	} else {
		p.at(beforeAdd)
		p.kernelTime(p.w.env.Slow)
	}
	if p.refuses || p.w.chance(p.w.env.BindFails) {
		return errKernel
	}
	p.w.tell("n%d address %s added", p.i+1, prefix.Addr())
	p.addAddress(p.w.address(prefix.Addr()), valid)
	p.at(afterAdd)
	return nil
}

// kernelTime is how long a netlink message takes.
func (p *process) kernelTime(slow float64) {
	d := p.w.jitter(10*time.Microsecond, 100*time.Microsecond)
	if p.w.chance(slow) {
		d = p.w.jitter(time.Millisecond, 100*time.Millisecond)
	}
	p.sleep(d)
}

// RemoveAddress returns nil when the address was seen gone.
func (p hostPort) RemoveAddress(link string, prefix netip.Prefix) error {
	p.at(beforeRemove)
	p.kernelTime(p.w.env.Slow)
	if p.w.chance(p.w.env.UnbindFails) {
		return errKernel
	}
	p.w.tell("n%d address %s removed", p.i+1, prefix.Addr())
	p.removed(p.w.address(prefix.Addr()))
	p.at(afterRemove)
	return nil
}

// LinkFor finds the device: there is one.
func (p hostPort) LinkFor(netip.Addr) (string, error) { return device, nil }

// HasLink finds the device that documents name.
func (p hostPort) HasLink(string) error { return nil }

// RemoveLeftovers takes off what an earlier life left.
func (p hostPort) RemoveLeftovers(addrs []netip.Addr) (removed []netip.Addr, err error) {
	p.kernelTime(p.w.env.Slow)
	if p.keepsLeftovers || p.w.chance(p.w.env.UnbindFails) {
		return nil, errKernel
	}
	for _, addr := range addrs {
		if a := p.w.address(addr); p.has(a) {
			removed = append(removed, addr)
			p.removed(a)
		}
	}
	return removed, nil
}

// Announce sends gratuitous ARP or an unsolicited NA.
func (p hostPort) Announce(link string, addr netip.Addr) error {
	p.checkGuard(addr)
	p.at(beforeAnnounce)
	return p.sendAnnouncement(addr)
}

// Probe asks the LAN for another host that has the address.
func (p hostPort) Probe(_ context.Context, _ string, addr netip.Addr) (net.HardwareAddr, bool, error) {
	p.sleep(p.probeTime)
	if p.w.foreign[addr] {
		return net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, true, nil
	}
	return nil, false, nil
}

// A speakerPort sends adverts.
type speakerPort struct{ *process }

// Serve has the group's virtual routers heard, where there is anybody to be heard.
func (p speakerPort) Serve(g fsm.Group, at []core.Place) error {
	virtuals, err := core.Virtuals(g.VRRP, at)
	if err != nil || !p.w.env.Outsider {
		return err
	}
	p.ears.serves[g.Name] = virtuals
	for _, v := range virtuals {
		p.post(core.SourceChanged{Link: v.Link, Family: v.Family, Addr: p.source(v.Family)})
	}
	return nil
}

// Insiders changes nothing: what is heard here is all told.
func (p speakerPort) Insiders([]netip.Addr) {}

// Advertise sends one advert for the addresses, which are of one family.
func (p speakerPort) Advertise(_ string, v fsm.VRRP, addrs []netip.Addr) error {
	p.at(beforeAdvert)
	return p.sendAdvert(v, addrs)
}

// A raftPort is what the agent asks of Raft.
type raftPort struct{ *process }

var errTimeout = errors.New("the outcome is unknown: timed out")

// await has something begun and waits until it reports its end, at most until ctx's.
func (p *process) await(ctx context.Context, begin func(done func(error))) error {
	c := p.current
	var result error
	over, waiting := false, false
	done := func(err error) {
		if over {
			return
		}
		over, result = true, err
		if waiting {
			p.w.after(0, func() { p.resume(c) })
		}
	}
	if b, ok := ctx.(bounded); ok {
		p.w.after(b.end-p.w.now, func() { done(errTimeout) })
	}
	begin(done)
	if !over {
		waiting = true
		c.wait()
	}
	return result
}

// Propose puts a command to the leader, wherever that is.
func (p raftPort) Propose(ctx context.Context, cmd fsm.Command) error {
	if p.w.estate != nil {
		p.w.estate.proposes(p.host, cmd)
	}
	return p.await(ctx, func(done func(error)) { p.w.propose(p.host, cmd, done) })
}

// Campaign makes the node stand for leader at once.
func (p raftPort) Campaign(context.Context) error {
	p.w.campaignSoon(p.host)
	return nil
}

// AskCampaign asks another node to.
func (p raftPort) AskCampaign(_ context.Context, node fsm.Node) error {
	if other := p.w.byID(node.ID); other != nil && p.w.both(p.i, other.i) && other.up() {
		p.w.campaignSoon(other)
		return nil
	}
	return errNoAnswer
}

// AddNonvoter has a node get the log.
func (p raftPort) AddNonvoter(ctx context.Context, node fsm.Node) error {
	return p.change(ctx, node, p.w.raft.AddNonvoter)
}

// AddVoter gives a node its vote.
func (p raftPort) AddVoter(ctx context.Context, node fsm.Node, _ election.VoterSet) error {
	return p.change(ctx, node, p.w.raft.AddVoter)
}

// RemoveServer takes a server from the members.
func (p raftPort) RemoveServer(ctx context.Context, id fsm.InstanceID, _ election.VoterSet) error {
	return p.change(ctx, fsm.Node{ID: id}, p.w.raft.Remove)
}
