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

// Set writes all entries that it can.
func (p fencePort) Set(addrs []netip.Addr, until election.Instant) error {
	var errs []error
	for _, addr := range addrs {
		errs = append(errs, p.set(addr, until))
	}
	return errors.Join(errs...)
}

// carry counts addresses that this life goes on with as an earlier one left them.
func (p fencePort) carry(a int) {
	if p.found[a] && p.clock().Before(p.fence[a].until) {
		p.w.watch.carried++
	}
	p.found[a] = false
}

func (p fencePort) set(addr netip.Addr, until election.Instant) error {
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
		p.carry(p.w.address(addr))
	}
	p.setFence(p.w.address(addr), until)
	p.at(afterFence)
	return nil
}

// Delete removes entries.
func (p fencePort) Delete(addrs []netip.Addr) error {
	if p.lifetime {
		return nil
	}
	for _, addr := range addrs {
		p.w.tell("n%d fence of %s deleted", p.i+1, addr)
		p.deleteFence(p.w.address(addr))
	}
	return nil
}

// A hostPort is the host's addresses.
type hostPort struct{ *process }

// Put adds the addresses or renews their lifetimes.
func (p hostPort) Put(h core.Holding, valid time.Duration) error {
	for _, at := range h.At {
		if err := p.add(at.Prefix, valid); err != nil {
			return err
		}
	}
	return nil
}

func (p hostPort) add(prefix netip.Prefix, valid time.Duration) error {
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

// Take returns nil when the addresses were seen gone.
func (p hostPort) Take(h core.Holding) error {
	var errs []error
	for _, at := range h.At {
		errs = append(errs, p.remove(at.Prefix))
	}
	return errors.Join(errs...)
}

// Converge puts back what is not there, renews what is due, and reports what is there besides.
func (p hostPort) Converge(held []core.Held, vips []netip.Addr, valid func(election.Instant) time.Duration) (out core.Converged) {
	p.kernelTime(p.w.env.Slow)
	if p.w.chance(p.w.env.BindFails) {
		return core.Converged{Err: errKernel}
	}
	ours := map[netip.Addr]bool{}
	seen := [maxAddrs]bool{}
	for a := range seen {
		seen[a] = p.has(a)
	}
	for _, h := range held {
		m := core.Mended{Group: h.Group, Gen: h.Gen, Renewed: h.Renew}
		for _, at := range h.At {
			ours[at.Prefix.Addr()] = true
			if !seen[p.w.address(at.Prefix.Addr())] {
				m.Missing.At = append(m.Missing.At, at)
			}
		}
		put := m.Missing
		if h.Renew {
			put = h.Holding
		}
		if len(put.At) == 0 {
			continue
		}
		if d := valid(h.Until); d > 0 {
			m.Err = p.Put(put, d)
		} else {
			m.Err = errKernel
		}
		out.Groups = append(out.Groups, m)
	}
	for _, addr := range vips {
		if a := p.w.address(addr); seen[a] && !ours[addr] {
			out.Stray = append(out.Stray, core.Place{Link: device, Prefix: Addresses[a]})
		}
	}
	return out
}

// ResetConnections sends an RST for each address, as far as the fence lets it: frames that
// bear the address, whoever has it.
func (p hostPort) ResetConnections(addrs []netip.Addr) error {
	p.at(beforeReset)
	p.kernelTime(p.w.env.Slow)
	for _, addr := range addrs {
		if p.passes(p.w.address(addr)) {
			p.w.heardClaim(p.host, addr, "resets connections of")
		}
	}
	return nil
}

func (p hostPort) remove(prefix netip.Prefix) error {
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
func (p hostPort) RemoveLeftovers(addrs []netip.Addr, _ core.Holding) (removed []netip.Addr, err error) {
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
func (p hostPort) Announce(_ string, addrs []netip.Addr) error {
	var errs []error
	for _, addr := range addrs {
		p.checkGuard(addr)
		p.at(beforeAnnounce)
		errs = append(errs, p.sendAnnouncement(addr))
	}
	return errors.Join(errs...)
}

// Tell sends the same to three neighbours, one after the other.
func (p hostPort) Tell(link string, addrs []netip.Addr) (next func() (more bool, err error)) {
	left := 3
	return func() (bool, error) {
		left--
		return left > 0, p.Announce(link, addrs)
	}
}

// Probe asks the LAN for another host that has the address.
func (p hostPort) Probe(_ context.Context, _ string, addrs []netip.Addr) (netip.Addr, net.HardwareAddr, bool, error) {
	p.sleep(p.probeTime)
	for _, addr := range addrs {
		if p.w.foreign[addr] {
			return addr, net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, true, nil
		}
	}
	return netip.Addr{}, nil, false, nil
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
