package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// RemoveLeftovers takes the addresses of the list that are ours off this host (kernel.Leftovers),
// and returns those that were seen gone.
func RemoveLeftovers(k *kernel.Kernel, addrs []netip.Addr) (removed []kernel.Found, err error) {
	these := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		these[a] = true
	}
	return k.RemoveLeftovers(func(a netip.Addr) bool { return these[a] })
}

// leftOpen returns what an earlier life of the daemon left on this host as it should be:
// addresses of ours behind an entry of the fence that is still open, each on one device and
// none of those of virtual MAC addresses, which are made anew.
func leftOpen(f *fence.Fence, k *kernel.Kernel, now election.Instant) ([]core.Leftover, error) {
	entries, err := f.Entries()
	if err != nil {
		return nil, err
	}
	open := func(a netip.Addr) bool { return entries[a].After(now) }
	found, err := k.Leftovers(open)
	if err != nil {
		return nil, err
	}
	foreign, err := k.Foreign(open)
	if err != nil {
		return nil, err
	}
	times := map[netip.Addr]int{}
	for _, on := range slices.Concat(found, foreign) {
		times[on.Prefix.Addr()]++
	}
	var left []core.Leftover
	for _, on := range found {
		link, err := k.Link(on.Link)
		if err != nil || link.VirtualOn != 0 || times[on.Prefix.Addr()] > 1 {
			continue
		}
		left = append(left, core.Leftover{At: core.Place{Link: on.Link, Prefix: on.Prefix}, Until: entries[on.Prefix.Addr()]})
	}
	return left, nil
}

// ClearFence shuts every entry of the fence, removes those addresses from the host,
// also the addresses of also, and the devices of virtual MAC addresses with the tag,
// and forgets the entries of what is gone. An address that stands there and is not ours
// (without a lifetime, say) keeps its shut entry and is an error: somebody has put it
// there by hand, and the host would answer for it.
// Nobody else may be using the fence. guarded are the addresses that had entries.
func ClearFence(f *fence.Fence, k *kernel.Kernel, tag string, also ...netip.Addr) (removed []kernel.Found, guarded []netip.Addr, err error) {
	return clearFence(f, k, tag, nil, also)
}

// clearFence is ClearFence of all but what is kept.
func clearFence(f *fence.Fence, k *kernel.Kernel, tag string, kept []core.Leftover, also []netip.Addr) (removed []kernel.Found, guarded []netip.Addr, err error) {
	entries, err := f.Entries()
	if err != nil {
		return nil, nil, err
	}
	for _, l := range kept {
		delete(entries, l.At.Prefix.Addr())
	}
	guarded = slices.SortedFunc(maps.Keys(entries), netip.Addr.Compare)
	if err := f.Set(guarded, 0); err != nil {
		return nil, nil, err
	}
	removed, err = RemoveLeftovers(k, slices.Concat(guarded, also))
	if err != nil {
		return removed, guarded, fmt.Errorf("%w; the fence stays shut for what is left", err)
	}
	if err := RemoveVirtualMACs(k, tag); err != nil {
		return removed, guarded, fmt.Errorf("%w; the fence stays shut for what is left", err)
	}
	left, err := k.Foreign(func(a netip.Addr) bool { return slices.Contains(guarded, a) })
	if err != nil {
		return removed, guarded, err
	}
	var errs []error
	var gone []netip.Addr
	for _, a := range guarded {
		i := slices.IndexFunc(left, func(l kernel.Found) bool { return l.Prefix.Addr() == a })
		if i < 0 {
			gone = append(gone, a)
			continue
		}
		errs = append(errs, fmt.Errorf("%s stands on %s, is not this daemon's, and a fence that an earlier life of it left guards it: "+
			"somebody has put it there by hand; the fence stays shut until it is removed: ip addr del %s dev %s",
			a, left[i].Link, left[i].Prefix, left[i].Link))
	}
	return removed, guarded, errors.Join(append(errs, f.Delete(gone))...)
}

// dropFence removes the fence that an earlier life with another configuration left:
// its entries would never be renewed.
func (n *node) dropFence() error {
	f, err := fence.Open(fence.Options{Tag: FenceTag(n.cfg.Cluster)})
	if err != nil {
		if !errors.Is(err, fence.ErrUnavailable) { // if it is, then there is none
			n.log.Warn("cannot look for a BPF fence of an earlier life", "error", err)
		}
		return nil
	}
	_, _, err = ClearFence(f, n.kernel, FenceTag(n.cfg.Cluster))
	if err == nil {
		err = f.Detach()
	}
	return errors.Join(err, f.Close())
}

// LockFence takes the right to change the cluster's fence and addresses in this network
// namespace, until the returned function is called or the process ends. The lock on
// data_dir is not enough: a second daemon with another data_dir would clear the
// first one's entries and take its programs off, and the first would go on without a
// fence. The lock is a socket in the abstract namespace, which the kernel keeps for
// each network namespace and takes back from a process that dies.
func LockFence(cluster string) (unlock func(), err error) {
	l, err := net.Listen("unix", "@quorate-fence-"+FenceTag(cluster))
	of := fmt.Sprintf("of cluster %q", cluster)
	if cluster == "" {
		of = "without a cluster's name"
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another quorate process %s runs in this network namespace, and the addresses and the fence are its: "+
			"stop that one first, or give this one another cluster or a network namespace of its own", of)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the fence %s: %w", of, err)
	}
	return func() { _ = l.Close() }, nil
}
